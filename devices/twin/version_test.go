package twin_test

import (
	"testing"

	"muster/devices/twin"
	"muster/store/control"
)

func TestTheVersionThatADeviceSaidLastIsTheOneWhicheverDoorItSaidItBy(t *testing.T) {
	said := func(version string) twin.Report { return twin.Report{Device: "a", Version: version} }
	patch := func(text string) twin.Report { return twin.Report{Device: "a", Patch: []byte(text)} }
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.device("a")
		for _, step := range []struct {
			report         twin.Report
			want, firmware string
		}{
			{said("1"), `{"firmware":{"version":"1"}}`, "1"},
			{patch(`{"firmware":{"version":"2"}}`), `{"firmware":{"version":"2"}}`, "2"},
			{said("3"), `{"firmware":{"version":"3"}}`, "3"},
			{patch(`{"x": 1, "firmware": "4"}`), `{"firmware":"4","x":1}`, "4"},
			{said("5"), `{"firmware":"5","x":1}`, "5"},
			{patch(`{"fw_version":"6"}`), `{"firmware":"6","fw_version":"6","x":1}`, "6"},
			{patch(`{"firmware":null,"x":null}`), `{"fw_version":"6"}`, "6"},
			{said("7"), `{"fw_version":"7"}`, "7"},
			{twin.Report{Device: "a", Version: "8", Product: "pump"}, `{"fw_version":"8"}`, "8"},
			{patch(`{"versions":{"pump":"9"}}`), `{"fw_version":"8","versions":{"pump":"9"}}`, "8"},
			{twin.Report{Device: "a", Version: "10", Product: "pump"}, `{"fw_version":"8","versions":{"pump":"10"}}`, "8"},
			{twin.Report{Device: "a", Version: "11", Product: "other"}, `{"fw_version":"11","versions":{"pump":"10"}}`, "11"},
			{twin.Report{Device: "a", Version: "12", Product: "app", Beside: true}, `{"fw_version":"11","versions":{"app":"12","pump":"10"}}`, "11"},
			{patch(`{"firmware":{"version":"13"}}`), `{"firmware":{"version":"13"},"fw_version":"11","versions":{"app":"12","pump":"10"}}`, "13"},
		} {
			must(t, r.twins.ApplyReported(t.Context(), []twin.Report{step.report})[0])
			if got := string(r.get("a").Reported); got != step.want {
				t.Errorf("after %+v it reports %s, want %s", step.report, got, step.want)
			}
			if d, err := r.registry.Get("a"); err != nil || d.Firmware != step.firmware {
				t.Errorf("after %+v the registry has %q (%v), want %q", step.report, d.Firmware, err, step.firmware)
			}
		}
	})
}

func TestAPatchNamesVersionsHoweverItIsWritten(t *testing.T) {
	for text, want := range map[string]bool{
		`{"firmware":{"version":"1"}}`:                         true,
		`{"x": 1, "firmware": {"version": "1"}}`:               true,
		"{\n  \"z\": 1,\n  \"versions\": {\"pump\": \"1\"}\n}": true,
		`{"fw_version" : "1"}`:                                 true,
		`{"x":{"firmware":"1"}}`:                               false,
		`{"x":"firmware"}`:                                     false,
		`{"y":1}`:                                              false,
	} {
		if got := twin.NamesVersions([]byte(text)); got != want {
			t.Errorf("%s: %t, want %t", text, got, want)
		}
	}
}
