package regression_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/firmware/regression"
)

func gate(change ...func(*regression.Gate)) regression.Gate {
	g := regression.Gate{Key: "errors", Aggregate: regression.Avg, Worse: regression.Up, Percent: 10, Window: time.Hour, Devices: 2}
	for _, c := range change {
		c(&g)
	}
	return g
}

func down(g *regression.Gate) { g.Worse = regression.Down }

func TestTelemetryIsWorseBeyondThePercentAndInItsDirectionAlone(t *testing.T) {
	for name, c := range map[string]struct {
		gate            regression.Gate
		updated, others []float64
		want            regression.Verdict
	}{
		"the same":                              {gate(), []float64{10, 10}, []float64{10, 10}, regression.Good},
		"at the percent":                        {gate(), []float64{11, 11}, []float64{10, 10}, regression.Good},
		"beyond it":                             {gate(), []float64{11, 11.1}, []float64{10, 10}, regression.Worse},
		"better by much":                        {gate(), []float64{1, 1}, []float64{10, 10}, regression.Good},
		"down is worse":                         {gate(down), []float64{8, 9}, []float64{10, 10}, regression.Worse},
		"down at the percent":                   {gate(down), []float64{9, 9}, []float64{10, 10}, regression.Good},
		"down is worse, and it went up":         {gate(down), []float64{90, 90}, []float64{10, 10}, regression.Good},
		"below zero, up":                        {gate(), []float64{-80, -80}, []float64{-100, -100}, regression.Worse},
		"below zero, within":                    {gate(), []float64{-91, -91}, []float64{-100, -100}, regression.Good},
		"below zero, down":                      {gate(down), []float64{-120, -120}, []float64{-100, -100}, regression.Worse},
		"nothing beside nothing":                {gate(), []float64{0, 0}, []float64{0, 0}, regression.Good},
		"something beside nothing":              {gate(), []float64{0, 1}, []float64{0, 0}, regression.Worse},
		"one of many devices is far worse":      {gate(), []float64{10, 10, 10, 10, 90}, []float64{10, 10}, regression.Worse},
		"no tolerance":                          {gate(func(g *regression.Gate) { g.Percent = 0 }), []float64{10, 10.1}, []float64{10, 10}, regression.Worse},
		"too few that were updated":             {gate(), []float64{99}, []float64{10, 10}, regression.NotYet},
		"too few others":                        {gate(), []float64{99, 99}, []float64{10}, regression.NotYet},
		"nobody":                                {gate(), nil, nil, regression.NotYet},
		"values whose sum is beyond any number": {gate(), []float64{math.MaxFloat64, math.MaxFloat64}, []float64{1, 1}, regression.Worse},
	} {
		got, words := c.gate.Judge(c.updated, c.others)
		if got != c.want || !strings.Contains(words, `"errors"`) {
			t.Errorf("%s: %d, want %d: %s", name, got, c.want, words)
		}
	}
}

func TestTheWordsSayWhatWasComparedAndWhatIsMissing(t *testing.T) {
	_, words := gate().Judge([]float64{20, 24}, []float64{10, 10, 10})
	if want := `avg of "errors" is 22 on 2 updated devices and 10 on 3 others: it went up by more than 10 percent`; words != want {
		t.Errorf("%s", words)
	}
	_, words = gate().Judge([]float64{20}, nil)
	if want := `too little telemetry of "errors" is known: of 1 updated devices and of 0 others, of 2 of each it must be`; words != want {
		t.Errorf("%s", words)
	}
}

func TestADeviceIsOneNumber(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, c := range []struct {
		aggregate regression.Aggregate
		readings  []float64
		want      float64
		known     bool
	}{
		{regression.Avg, []float64{1, 2, 6}, 3, true},
		{regression.Min, []float64{4, 2, 6}, 2, true},
		{regression.Max, []float64{4, 2, 6}, 6, true},
		{regression.P95, hundred, 95, true},
		{regression.P95, []float64{7}, 7, true},
		{regression.P95, []float64{1, 2, 3}, 3, true},
		{regression.Max, []float64{math.NaN(), 5, math.Inf(1)}, 5, true},
		{regression.Avg, []float64{math.NaN()}, 0, false},
		{regression.Avg, nil, 0, false},
	} {
		if got, known := c.aggregate.Of(slices.Clone(c.readings)); got != c.want || known != c.known {
			t.Errorf("%s of %v is %v, %v", c.aggregate, c.readings, got, known)
		}
	}
}

func TestAGateThatIsNoneIsRefusedWithItsPlace(t *testing.T) {
	for at, change := range map[string]func(*regression.Gate){
		"key":         func(g *regression.Gate) { g.Key = "" },
		"aggregate":   func(g *regression.Gate) { g.Aggregate = "median" },
		"worse":       func(g *regression.Gate) { g.Worse = "" },
		"percent":     func(g *regression.Gate) { g.Percent = math.NaN() },
		"window_s":    func(g *regression.Gate) { g.Window = time.Second },
		"min_devices": func(g *regression.Gate) { g.Devices = 0 },
	} {
		err := gate(change).Check("regression")
		if got := muster.FieldsOf(err); muster.KindOf(err) != muster.Invalid || !slices.Equal(got, []string{"regression/" + at}) {
			t.Errorf("%s: %v at %v", at, err, got)
		}
	}
	if err := gate().Check("x"); err != nil || !gate().Asked() {
		t.Errorf("a gate is refused: %v", err)
	}
	if err := (regression.Gate{}).Check("x"); err != nil || (regression.Gate{}).Asked() {
		t.Errorf("no gate is refused: %v", err)
	}
}

// TestAGateKnowsNoUnit has both sides in another unit: the verdict is the same.
func TestAGateKnowsNoUnit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		side := rapid.SliceOfN(rapid.Map(rapid.IntRange(-1e6, 1e6), func(n int) float64 { return float64(n) }), 2, 20)
		updated, others := side.Draw(t, "updated"), side.Draw(t, "others")
		g := gate(func(g *regression.Gate) { g.Percent = rapid.Float64Range(0, 200).Draw(t, "percent") })
		if rapid.Bool().Draw(t, "down") {
			g.Worse = regression.Down
		}
		double := func(list []float64) (out []float64) {
			for _, v := range list {
				out = append(out, v*4) // exact in binary
			}
			return out
		}
		was, _ := g.Judge(updated, others)
		if is, words := g.Judge(double(updated), double(others)); is != was {
			t.Fatalf("%d becomes %d: %s", was, is, words)
		}
	})
}
