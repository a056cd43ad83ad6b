package bulk_test

import (
	"context"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"muster"
	"muster/devices"
	"muster/devices/bulk"
)

func TestMovesOfAListAreJudgedTogether(t *testing.T) {
	chain := func(n int) string {
		text := "id,parent,credential\nd0,,none\n"
		for i := 1; i < n; i++ {
			text += fmt.Sprintf("d%d,d%d,none\n", i, i-1)
		}
		return text
	}
	for _, c := range []struct {
		name, there, list string
		refused           int
	}{
		{"two devices that would be each other's gateway", "id\na\nb\n", "id,parent\na,b\nb,a\n", 1},
		{"three in a circle", "id\na\nb\nc\n", "id,parent\na,b\nb,c\nc,a\n", 1},
		{"a new device below one that moves too deep", chain(4) + "e,,none\n", "id,parent\nnew,e\ne,d3\n", 1},
		{"a token that is the id of another line", "id\na\n", "id,token\nnew,meter-0123456789abcdef\nmeter-0123456789abcdef,\n", 1},
		{"a gateway and its device change places", "id,parent\na,\nb,a\n", `{"id":"a","parent":"b"}` + "\n" + `{"id":"b","parent":""}` + "\n", 0},
		{"a gateway that moves, and its devices to it", "id\na\nb\nc\n", "id,parent\nc,b\nb,a\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := registry(t)
			load(t, r, c.there, bulk.Options{Format: bulk.CSV})
			before := parents(t, r)
			o := bulk.Options{Format: bulk.CSV, Update: true, DryRun: true}
			if c.list[0] == '{' {
				o.Format = bulk.NDJSON
			}
			dry := load(t, r, c.list, o)
			o.DryRun = false
			report := load(t, r, c.list, o)
			if dry.Refused != c.refused || report.Refused != c.refused {
				t.Fatalf("%+v, in a dry run %+v", report, dry)
			}
			if c.refused > 0 && fmt.Sprint(parents(t, r)) != fmt.Sprint(before) {
				t.Errorf("one line is refused and %v became %v", before, parents(t, r))
			}
		})
	}
}

// A list that is taken is done whole: what the check lets through the registry takes.
func TestAListThatTheCheckTakesIsDoneWhole(t *testing.T) {
	r := registry(t)
	ids := []string{"a", "b", "c", "d", "e", "f", "g"}
	load(t, r, "id\na\nb\nc\nd\ne\nf\n", bulk.Options{Format: bulk.CSV})
	rapid.Check(t, func(rt *rapid.T) {
		_ = r.Delete(context.Background(), "g", devices.KeepData) // it is new in each list
		want := map[muster.DeviceID]string{}
		text := ""
		for _, id := range rapid.Permutation(ids).Draw(rt, "order")[:rapid.IntRange(1, len(ids)).Draw(rt, "lines")] {
			parent := rapid.SampledFrom(append([]string{""}, ids...)).Draw(rt, "parent")
			want[muster.DeviceID(id)] = parent
			text += fmt.Sprintf("{\"id\":%q,\"parent\":%q,\"credential\":\"none\"}\n", id, parent)
		}
		before := parents(t, r)
		report := load(t, r, text, bulk.Options{Format: bulk.NDJSON, Update: true})
		after := parents(t, r)
		if report.Refused > 0 && fmt.Sprint(before) != fmt.Sprint(after) {
			rt.Fatalf("half of it was done: %+v\n%s%v\n%v", report, text, before, after)
		}
		if report.Refused > 0 {
			return
		}
		for id, parent := range want {
			if after[id] != parent {
				rt.Fatalf("%s has the parent %q: %+v\n%s", id, after[id], report, text)
			}
		}
	})
}

func parents(t *testing.T, r *devices.Registry) map[muster.DeviceID]string {
	t.Helper()
	out := map[muster.DeviceID]string{}
	r.Each(func(d devices.Device) bool {
		out[d.ID] = string(d.Parent)
		return true
	})
	return out
}
