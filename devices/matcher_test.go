package devices_test

import (
	"testing"

	"muster"
	"muster/devices"
)

func TestAMatcherFollowsTheGroupsItsQueriesName(t *testing.T) {
	r := selectorRegistry(t)
	if err := r.PutGroup(t.Context(), devices.Group{Name: "mine", Query: "id:a"}); err != nil {
		t.Fatal(err)
	}
	match, err := r.Matcher("group:mine", "", "id:*")
	if err != nil {
		t.Fatal(err)
	}
	if !match("a") || match("b") || match("nobody") {
		t.Error("it does not match as it was made")
	}
	if err := r.PutGroup(t.Context(), devices.Group{Name: "mine", Query: "id:b"}); err != nil {
		t.Fatal(err)
	}
	if match("a") || !match("b") {
		t.Error("it does not follow the group")
	}
	if err := r.DeleteGroup(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	if match("a") || match("b") {
		t.Error("it matches by a group that is gone")
	}
	if all, err := r.Matcher("", ""); all != nil || err != nil {
		t.Errorf("no queries give %v", err)
	}
	if _, err := r.Matcher("(("); muster.KindOf(err) != muster.Invalid {
		t.Errorf("a broken query: %v", err)
	}
}
