package control_test

import (
	"testing"

	"muster/devices"
	"muster/devices/command"
)

func TestTheCommandsThatEndedAreCountedAndThoseThatWereAcknowledged(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		wantNil(t, c.InsertDevices(t.Context(), []devices.Device{{ID: "d", Created: 1, Profile: devices.DefaultProfile}}, nil))
		first, err := c.TakeCommandIDs(t.Context(), 6)
		wantNil(t, err)
		b := command.Batch{Token: "ended"}
		for i := range int64(6) {
			b.Insert = append(b.Insert, command.Insert{ID: first + i, Device: "d", Method: "m", Created: 1, Expires: 99})
		}
		b.Changes = []command.Change{
			{ID: first, State: command.Succeeded, Delivered: 5, Finished: 20},
			{ID: first + 1, State: command.Failed, Reported: 6, Finished: 21}, // its answer came before its PUBACK
			{ID: first + 2, State: command.Expired, Finished: 22},
			{ID: first + 3, State: command.Cancelled, Delivered: 5, Finished: 23},
			{ID: first + 4, State: command.Succeeded, Delivered: 5, Finished: 10}, // too long ago
		}
		_, err = c.WriteCommands(t.Context(), b)
		wantNil(t, err)
		ended, acked, err := c.CommandsEnded(t.Context(), 10)
		if err != nil || ended != 3 || acked != 2 {
			t.Errorf("%d ended, %d were acknowledged, %v", ended, acked, err)
		}
	})
}
