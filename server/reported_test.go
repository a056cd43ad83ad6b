package server

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/devices/intake"
	"muster/devices/twin"
	"muster/firmware/director"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/sqlite"
)

func TestReportsOfABatchAreKeptOrRefusedEachForItself(t *testing.T) {
	dir := t.TempDir()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	store, err := control.Open(t.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	if err != nil {
		t.Fatal(err)
	}
	registry := devices.NewRegistry(store, time.Now, slog.New(slog.DiscardHandler), devices.Options{})
	twins := twin.New(store, registry, time.Now, slog.New(slog.DiscardHandler), twin.Options{})
	_, _, err = registry.Create(t.Context(), devices.Spec{ID: "d"})
	if err := errors.Join(err, twins.Load(t.Context())); err != nil {
		t.Fatal(err)
	}
	owner := reportedOwner{twins, func(context.Context, []director.Report) {}}
	report := func(id muster.DeviceID, patch string) intake.Message {
		return intake.Message{Kind: intake.Reported, Device: id, Payload: []byte(patch)}
	}
	var codes []string
	for _, err := range owner.Take(t.Context(), []intake.Message{report("d", `{"a":1}`), report("d", `{`), report("none", `{}`), report("d", `{"b":2}`)}) {
		code := ""
		if err != nil {
			code = intake.CodeOf(err)
		}
		codes = append(codes, code)
	}
	if d := cmp.Diff([]string{"", "invalid", "not_found", ""}, codes); d != "" {
		t.Error(d)
	}
	if got, err := twins.Get("d"); err != nil || string(got.Reported) != `{"a":1,"b":2}` {
		t.Errorf("reported is %s, %v", got.Reported, err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range owner.Take(t.Context(), []intake.Message{report("d", `{"a":2}`), report("d", `{"a":3}`)}) {
		if muster.KindOf(err) != muster.Unavailable {
			t.Errorf("a store that is away gives %v", err)
		}
	}
}
