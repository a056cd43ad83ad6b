package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
)

func TestADeletionSaysWhatBecomesOfTheData(t *testing.T) {
	r := newRig(t)
	r.device("a")
	r.device("b")
	const at = "/api/v1/devices/"
	for name, path := range map[string]string{"nothing said": at + "a", "an unknown word": at + "a?data=erase", "an empty one": at + "a?data="} {
		t.Run(name, func(t *testing.T) {
			detail, _ := r.as("DELETE", path, nil).wantProblem(t, 422, "invalid")["detail"].(string)
			for _, part := range []string{"data=keep", "continues it", "data=delete", "for good"} {
				if !strings.Contains(detail, part) {
					t.Errorf("the detail is %q, want %q in it", detail, part)
				}
			}
		})
	}
	if r.registry.Count() != 2 {
		t.Fatal("a refused deletion deleted")
	}
	r.as("DELETE", at+"nobody?data=keep", nil).wantProblem(t, 404, "not_found")
	r.as("DELETE", at+"a?data=keep&date=x", nil).wantStatus(t, 422)

	kept := r.as("DELETE", at+"a?data=keep", nil).wantStatus(t, 200).decode(t)
	if d := cmp.Diff(object{"id": "a", "data": "keep", "detail": "Its telemetry is kept: a device made again with this id continues it."}, kept); d != "" {
		t.Error(d)
	}
	r.as("POST", "/api/v1/devices", object{"id": "a"}).wantStatus(t, 201)

	gone := r.as("DELETE", at+"b?data=delete", nil).wantStatus(t, 202).decode(t)
	if gone["id"] != "b" || gone["data"] != "delete" || !strings.Contains(gone["detail"].(string), "no device can be made with this id") {
		t.Errorf("the answer is %v", gone)
	}
	if p := r.as("POST", "/api/v1/devices", object{"id": "b"}).wantProblem(t, 409, "conflict"); !strings.Contains(p["detail"].(string), "try again") {
		t.Errorf("making it again is refused with %v", p)
	}
	csv := header("Content-Type", "text/csv")
	if _, report, _ := imported(t, r.do("POST", "/api/v1/devices:import", "id\nb\nc\n", bearer(r.admin), csv)); report["refused"] != 1.0 || report["created"] != 0.0 {
		t.Errorf("importing it again says %v", report)
	}
	r.must(r.registry.Erased(t.Context(), []muster.DeviceID{"b"}))
	r.as("POST", "/api/v1/devices", object{"id": "b"}).wantStatus(t, 201)
}

func TestTheDeletionOfManySaysWhatBecomesOfTheirData(t *testing.T) {
	r := newRig(t)
	for _, id := range []muster.DeviceID{"a", "b", "c"} {
		r.device(id)
	}
	remove := func(body object) answer { return r.as("POST", "/api/v1/devices:delete", body) }
	remove(object{"ids": []any{"a"}}).wantProblem(t, 422, "invalid")
	remove(object{"ids": []any{"a"}, "data": "erase"}).wantProblem(t, 422, "invalid")
	remove(object{"ids": []any{"a"}, "data": "erase", "dry_run": true}).wantProblem(t, 422, "invalid")
	remove(object{"ids": []any{"a"}, "dry_run": true}).wantStatus(t, 200)
	remove(object{"ids": []any{"a"}, "data": "keep"}).wantStatus(t, 200)
	remove(object{"ids": []any{"b", "c"}, "data": "delete"}).wantStatus(t, 200)
	ids, _ := r.registry.Erasing("", 10)
	if d := cmp.Diff([]muster.DeviceID{"b", "c"}, ids); d != "" || r.registry.Count() != 0 {
		t.Error(d, r.registry.Count())
	}
}

func TestTheRejectedMessagesOfADeviceThatIsErasedAreNotShown(t *testing.T) {
	r := newRig(t)
	r.device("a")
	r.device("b")
	rejected := func(id muster.DeviceID) muster.Rejected {
		return muster.Rejected{Device: id, Arrival: 1, Topic: "t", Code: "malformed", Reason: "no", Payload: []byte("x"), Size: 1}
	}
	r.store(nil, rejected("a"), rejected("b"))
	r.as("DELETE", "/api/v1/devices/a?data=delete", nil).wantStatus(t, 202)
	items := r.as("GET", "/api/v1/rejected", nil).wantStatus(t, 200).decode(t)["items"].([]any)
	if len(items) != 1 || items[0].(map[string]any)["device"] != "b" {
		t.Errorf("shown are %v", items)
	}
}

func TestTheParameterIsInTheDocument(t *testing.T) {
	r := newRig(t)
	doc := r.do("GET", "/api/openapi.json", nil).wantStatus(t, 200).decode(t)
	op := doc["paths"].(map[string]any)["/api/v1/devices/{device}"].(map[string]any)["delete"].(map[string]any)
	for _, p := range op["parameters"].([]any) {
		p := p.(map[string]any)
		if p["name"] != "data" {
			continue
		}
		if d := cmp.Diff([]any{"keep", "delete"}, p["schema"].(map[string]any)["enum"]); d != "" || p["required"] != true {
			t.Error(d, p)
		}
		for _, status := range []string{"200", "202"} {
			if op["responses"].(map[string]any)[status] == nil {
				t.Errorf("the answer %s is not described", status)
			}
		}
		return
	}
	t.Error("data is no parameter")
}
