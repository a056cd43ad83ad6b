package twin_test

import (
	"slices"
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

func TestAVersionWithAnotherTitleIsThatOfItsImageAndNotTheFirmwares(t *testing.T) {
	type step struct {
		report         twin.Report
		want, firmware string
	}
	patch := func(text string) twin.Report { return twin.Report{Device: "a", Patch: []byte(text)} }
	said := func(product, version string) twin.Report {
		return twin.Report{Device: "a", Version: version, Product: product}
	}
	for name, steps := range map[string][]step{
		"a device that says its version elsewhere": {
			{said("", "1"), `{"firmware":{"version":"1"}}`, "1"},
			{patch(`{"fw_title":"boot","fw_version":"7"}`), `{"firmware":{"version":"1"},"fw_title":"boot","fw_version":"7","versions":{"boot":"7"}}`, "1"},
			{said("pump", "2"), `{"firmware":{"version":"2"},"fw_title":"boot","fw_version":"7","versions":{"boot":"7"}}`, "2"},
			{patch(`{"fw_version":"3"}`), `{"firmware":{"version":"3"},"fw_title":"boot","fw_version":"3","versions":{"boot":"7"}}`, "3"}, // without its title it is the firmware's
		},
		"a device that says nothing else": {
			{patch(`{"fw_title":"pump","fw_version":"1"}`), `{"fw_title":"pump","fw_version":"1"}`, "1"},
			{said("pump", "2"), `{"fw_title":"pump","fw_version":"2"}`, "2"},
			{patch(`{"fw_version":"3"}`), `{"fw_title":"pump","fw_version":"3"}`, "3"},
		},
		"a device that has another title there": {
			{patch(`{"fw_title":"boot","fw_version":"7"}`), `{"fw_title":"boot","fw_version":"7"}`, "7"},
			{said("pump", "2"), `{"firmware":{"version":"2"},"fw_title":"boot","fw_version":"7"}`, "2"},
			{patch(`{"fw_title":"boot","fw_version":"8"}`), `{"firmware":{"version":"2"},"fw_title":"boot","fw_version":"8","versions":{"boot":"8"}}`, "2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, c *control.Control) {
				r := newRig(t, c)
				r.device("a")
				for _, step := range steps {
					must(t, r.twins.ApplyReported(t.Context(), []twin.Report{step.report})[0])
					if got := string(r.get("a").Reported); got != step.want {
						t.Errorf("after %+v it reports %s, want %s", step.report, got, step.want)
					}
					if d, err := r.registry.Get("a"); err != nil || d.Firmware != step.firmware {
						t.Errorf("after %+v the registry has %q (%v), want %q", step.report, d.Firmware, err, step.firmware)
					}
				}
			})
		})
	}
}

func TestAPatchNamesVersionsHoweverItIsWritten(t *testing.T) {
	for text, want := range map[string][]string{
		`{"firmware":{"version":"1"}}`:                                            {""},
		`{"x": 1, "firmware": {"version": "1"}}`:                                  {""},
		"{\n  \"z\": 1,\n  \"versions\": {\"pump\": \"1\", \"b\\\"o\": \"2\"}\n}": {`b"o`, "pump"},
		`{"fw_version" : "1"}`:                                                    {""},
		`{"fw_version" : "1", "fw_title": "boot"}`:                                {"boot"},
		`{"fw_version":"1","fw_title":"boot","versions":{"radio":"2"}}`:           {"boot", "radio"},
		`{"firmware":"1","fw_version":"1","fw_title":"boot"}`:                     {""},
		`{"firmware":null,"versions":{}}`:                                         nil,
		`{"versions":"1"}`:                                                        nil,
		`{"x":{"firmware":"1"}}`:                                                  nil,
		`{"x":"firmware"}`:                                                        nil,
		`{"y":1}`:                                                                 nil,
	} {
		if got := twin.VersionsOf([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
