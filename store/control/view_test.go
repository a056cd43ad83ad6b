package control_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
	"muster/devices/views"
)

func TestViewsAreTheirUsersAndEndWithHim(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		for _, id := range []string{"usr_1", "usr_2"} {
			wantNil(t, c.WriteAccounts(ctx, accounts.Batch{Users: []accounts.UserRecord{{ID: id, Email: id + "@example.com", Role: "viewer", Created: 1}}}))
		}
		a := views.View{ID: "view_a", User: "usr_1", Name: "Zoë's; DROP TABLE saved_view", Query: `name:"é" v.t<3`, Columns: []string{"id", "v.a b"}, Sort: "-v.t", Created: 5}
		b := views.View{ID: "view_b", User: "usr_1", Name: "B", Columns: []string{}, Created: 6}
		other := views.View{ID: "view_c", User: "usr_2", Name: "B", Columns: []string{}, Created: 7}
		for _, v := range []views.View{a, b, other} {
			wantNil(t, c.CreateView(ctx, v, 2))
		}
		want := func(user string, list ...views.View) {
			t.Helper()
			got, err := c.Views(ctx, user)
			wantNil(t, err)
			if d := cmp.Diff(list, got); d != "" {
				t.Errorf("the views of %s differ (-want +got):\n%s", user, d)
			}
		}
		want("usr_1", b, a)
		want("usr_2", other)
		kind := func(what string, err error, k muster.Kind) {
			t.Helper()
			if err == nil || muster.KindOf(err) != k {
				t.Errorf("%s: %v, want %s", what, err, k)
			}
		}
		kind("one more than there may be", c.CreateView(ctx, views.View{ID: "view_d", User: "usr_1", Name: "D"}, 2), muster.Conflict)
		kind("a name that is there", c.CreateView(ctx, views.View{ID: "view_d", User: "usr_2", Name: "B"}, 9), muster.Conflict)
		kind("a name that another has", c.ReplaceView(ctx, views.View{ID: "view_a", User: "usr_1", Name: "B"}), muster.Conflict)
		kind("another's view", c.ReplaceView(ctx, views.View{ID: "view_c", User: "usr_1", Name: "mine"}), muster.NotFound)
		kind("another's view", c.DeleteView(ctx, "usr_1", "view_c"), muster.NotFound)
		a.Name, a.Columns = "A", []string{"seen"}
		wantNil(t, c.ReplaceView(ctx, a))
		want("usr_1", a, b)
		wantNil(t, c.DeleteView(ctx, "usr_1", "view_b"))
		want("usr_1", a)
		wantNil(t, c.WriteAccounts(ctx, accounts.Batch{DropUsers: []string{"usr_1"}}))
		want("usr_1")
		want("usr_2", other)
	})
}

func TestTheOldestViewsStayWhenThereIsRoomForNoMore(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		wantNil(t, c.WriteAccounts(t.Context(), accounts.Batch{Users: []accounts.UserRecord{{ID: "usr_1", Email: "a@example.com", Role: "viewer", Created: 1}}}))
		for i := range 5 {
			v := views.View{ID: fmt.Sprintf("view_%d", i), User: "usr_1", Name: fmt.Sprint(i)}
			err := c.CreateView(t.Context(), v, 3)
			if (i < 3) != (err == nil) {
				t.Errorf("view %d: %v", i, err)
			}
		}
		all, err := c.Views(t.Context(), "usr_1")
		wantNil(t, err)
		if len(all) != 3 || all[2].ID != "view_2" {
			t.Errorf("there are %v", all)
		}
	})
}
