package control_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/devices/command"
	"muster/devices/trail"
	"muster/devices/twin"
	"muster/store/control"
)

// writesOf are the changes that keep something of devices and leave out those that are
// not there.
func writesOf(c *control.Control, n int64, ids ...muster.DeviceID) map[string]func(ctx context.Context) error {
	at := muster.Micros(n)
	return map[string]func(ctx context.Context) error{
		"twins": func(ctx context.Context) error {
			rows := make([]twin.Row, len(ids))
			for i, id := range ids {
				rows[i] = twin.Row{Device: id, Created: 1, Version: n, Effective: "{}", Desired: document("{}", n)}
			}
			_, err := c.SaveTwins(ctx, rows, n)
			return err
		},
		"effective documents": func(ctx context.Context) error {
			rows := make([]twin.Row, len(ids))
			for i, id := range ids {
				rows[i] = twin.Row{Device: id, Created: 1, Version: n, Effective: "{}"}
			}
			return c.SaveEffective(ctx, rows, n)
		},
		"events": func(ctx context.Context) error {
			es := make([]trail.Event, len(ids))
			for i, id := range ids {
				es[i] = trail.Event{Device: id, Time: at, Mark: n, Arrival: at, Type: "x", Payload: "{}"}
			}
			_, err := c.AppendEvents(ctx, es)
			return err
		},
		"log lines": func(ctx context.Context) error {
			rs := make([]trail.LogRow, len(ids))
			for i, id := range ids {
				rs[i] = trail.LogRow{Device: id, Arrival: at, Mark: n, Count: 1}
			}
			return c.AppendLogs(ctx, rs)
		},
		"presence": func(ctx context.Context) error {
			rs := make([]devices.PresenceRow, len(ids))
			for i, id := range ids {
				rs[i] = devices.PresenceRow{Device: id, Presence: muster.Presence{State: muster.PresenceOnline, Since: at}}
			}
			return c.SavePresence(ctx, rs)
		},
		"presence histories": func(ctx context.Context) error {
			rs := make([]devices.HistoryRow, len(ids))
			for i, id := range ids {
				rs[i] = devices.HistoryRow{Device: id, History: "x"}
			}
			return c.SaveHistory(ctx, rs)
		},
		"commands": func(ctx context.Context) error {
			first, err := c.TakeCommandIDs(ctx, int64(len(ids)))
			if err != nil {
				return err
			}
			b := command.Batch{Token: fmt.Sprint(n)}
			for i, id := range ids {
				b.Insert = append(b.Insert, command.Insert{ID: first + int64(i), Device: id, Method: "m", Created: at, Expires: at})
			}
			_, err = c.WriteCommands(ctx, b)
			return err
		},
	}
}

func TestWhatIsWrittenOfDevicesThatAreDeletedMeanwhileFailsNobody(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		for round := range int64(12) {
			var ids []muster.DeviceID
			var ds []devices.Device
			for i := range 20 {
				ids = append(ids, muster.DeviceID(fmt.Sprintf("d%d-%d", round, i)))
				ds = append(ds, devices.Device{ID: ids[i], Created: 1, Profile: devices.DefaultProfile})
			}
			wantNil(t, c.InsertDevices(t.Context(), ds, nil))
			var all sync.WaitGroup
			for what, write := range writesOf(c, round+1, ids...) {
				all.Go(func() {
					if err := write(t.Context()); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				})
			}
			for _, id := range ids {
				wantNil(t, c.DeleteDevices(t.Context(), []muster.DeviceID{id}))
			}
			all.Wait()
		}
		if h := twinsIn(t, c); len(h.Twins) != 0 {
			t.Errorf("%d twins are left", len(h.Twins))
		}
	})
}

// On PostgreSQL the change has seen the device when it waits for the one that deletes it.
func TestATwinThatWaitsForTheDeletionOfItsDeviceIsToldThatItIsGone(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		if !e.postgres {
			return // SQLite has one writer: nothing comes between seeing a device and writing of it
		}
		c, h := e.control(t), e.open(t)
		defer func() { wantNil(t, h.Close()) }()
		stays := devices.Device{ID: "stays", Created: 1, Profile: devices.DefaultProfile}
		goes := devices.Device{ID: "goes", Created: 1, Profile: devices.DefaultProfile}
		wantNil(t, c.InsertDevices(t.Context(), []devices.Device{goes, stays}, nil))
		tx, err := h.Write.BeginTx(t.Context(), nil)
		wantNil(t, err)
		_, err = tx.ExecContext(t.Context(), `DELETE FROM device WHERE id = 'goes'`)
		wantNil(t, err)
		type answer struct {
			gone []muster.DeviceID
			err  error
		}
		done := make(chan answer, 1)
		go func() { // the test takes its answer
			rows := []twin.Row{{Device: "goes", Created: 1, Version: 1, Effective: "{}"}, {Device: "stays", Created: 1, Version: 2, Effective: "{}"}}
			gone, err := c.SaveTwins(context.WithoutCancel(t.Context()), rows, 2)
			done <- answer{gone, err}
		}()
		awaitLock(t, h.Read)
		wantNil(t, tx.Commit())
		got := <-done
		wantNil(t, got.err)
		if d := cmp.Diff([]muster.DeviceID{"goes"}, got.gone); d != "" {
			t.Errorf("devices that are gone (-want +got):\n%s", d)
		}
		if kept := twinsIn(t, c); len(kept.Twins) != 1 || kept.Twins[0].Device != "stays" {
			t.Errorf("kept are %+v", kept.Twins)
		}
	})
}

// awaitLock waits until somebody in the database waits for a lock.
func awaitLock(t *testing.T, db *sql.DB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for waiting := 0; waiting == 0; {
		const query = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`
		wantNil(t, db.QueryRowContext(ctx, query).Scan(&waiting))
	}
}
