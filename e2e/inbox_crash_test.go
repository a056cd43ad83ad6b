package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"muster/notify/email/mailtest"
	"muster/store/control/controltest"
)

const (
	crashSenders = 3
	windowLimit  = 60 // kills at most until enough fell between commit and push
)

// TestWhatWasCommittedAndNotPushedComesOnceAfterTheRestart kills the server when a
// notification can be seen in its store by another connection, which is before, while or
// soon after it is written to sockets. Who comes again after the place that he had reached
// gets exactly what the store has and he was not told, each once, whatever the sender was
// answered. Enough of the kills must have fallen between the commit and a push.
func TestWhatWasCommittedAndNotPushedComesOnceAfterTheRestart(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			c := newInboxCrash(t, engine, nil)
			wanted := kills(8)
			for round := 0; round < wanted || c.between < 3; round++ {
				if round == max(windowLimit, 2*wanted) {
					t.Fatalf("of %d kills %d fell between a commit and its push", round, c.between)
				}
				c.begin()
				answers := c.sendMany(round)
				c.visible(len(c.ids) + 1 + c.dice.IntN(4))
				if c.dice.IntN(2) == 0 {
					<-time.After(time.Duration(c.dice.IntN(20_000)) * time.Microsecond)
				}
				c.m.kill()
				c.resume(answers())
			}
			c.end()
		})
	}
}

// TestAMessageWhoseCommitTheServerNeverHearsOfComesOnceAfterTheRestart holds back the
// database's answer to the commit of a notification, so that the server can have pushed
// nothing, and kills it then. All of these kills are between the commit and the push.
func TestAMessageWhoseCommitTheServerNeverHearsOfComesOnceAfterTheRestart(t *testing.T) {
	t.Parallel()
	holder := newCommitHolder(t, controltest.Database(t, timescale(t)))
	c := newInboxCrash(t, "postgres", holder)
	for round := range kills(4) {
		c.begin()
		title := fmt.Sprintf("held %d of %s", round, t.Name())
		held := holder.hold(title)
		answer := make(chan string, 1)
		go func() { answer <- c.send(0, title) }()
		select {
		case <-held:
		case <-time.After(workLimit):
			t.Fatal("no commit came")
		}
		before := c.between
		c.visible(len(c.ids) + 1)
		c.m.kill()
		holder.release()
		if id := <-answer; id != "" {
			t.Errorf("the sender was told %s, which the server cannot know of", id)
		}
		c.resume(nil)
		if c.between != before+1 {
			t.Errorf("the kill did not fall between the commit and the push")
		}
	}
	c.end()
}

// inboxCrash is a server that is killed, those who send to one person and those who follow
// what comes.
type inboxCrash struct {
	t       *testing.T
	m       *muster
	dice    *rand.Rand
	keys    []string
	ann     *caretaker
	readers []*inboxReader
	store   *sql.DB
	ids     []string // of all notifications in the store, after the last kill

	accepted        int // answered with 202
	between, pieces int // kills between a commit and a push; what had to come after the restarts, over all readers
}

func newInboxCrash(t *testing.T, engine string, holder *commitHolder) *inboxCrash {
	t.Helper()
	post := mailtest.Start(t, mailtest.Config{})
	m := newWatched(t)
	m.args = []string{"--public-url", "http://" + m.http, "--smtp", post.URL("muster@example.org")}
	c := &inboxCrash{t: t, m: m, dice: seeded(t)}
	driver, dsn := "sqlite", (&url.URL{Scheme: "file", Path: filepath.Join(m.data, "control.db"), RawQuery: "mode=ro"}).String()
	switch {
	case holder != nil:
		driver, dsn = "pgx", holder.target
		m.args = append(m.args, "--database", holder.dsn)
	case engine == "postgres":
		driver, dsn = "pgx", controltest.Database(t, timescale(t))
		m.args = append(m.args, "--database", dsn)
	}
	m.start()
	m.ready()
	c.ann, _ = caretakers(t, m, post)
	for i := range crashSenders {
		var made struct{ Secret string }
		m.ask(http.MethodPost, "/api/v1/api-keys", map[string]any{"name": fmt.Sprint("sender ", i), "scopes": []string{"admin"}}, http.StatusCreated, &made)
		c.keys = append(c.keys, made.Secret)
	}
	c.ann.ask(http.MethodPost, "/api/v1/topics", map[string]any{"name": "pumps"}, http.StatusCreated)
	c.ann.ask(http.MethodPut, "/api/v1/topics/pumps/subscriptions/me", map[string]any{}, http.StatusOK)
	var err error
	if c.store, err = sql.Open(driver, dsn); err != nil {
		t.Fatal(err)
	}
	c.store.SetMaxOpenConns(1)
	for i := range 4 {
		c.readers = append(c.readers, newInboxReader(fmt.Sprint("socket ", i), c.ann, bySocket), newInboxReader(fmt.Sprint("stream ", i), c.ann, byStream))
	}
	t.Cleanup(func() {
		for _, r := range c.readers {
			r.leave()
		}
		if err := c.store.Close(); err != nil {
			t.Error(err)
		}
	})
	c.follow()
	return c
}

func (c *inboxCrash) follow() {
	c.t.Helper()
	for _, r := range c.readers {
		r.follow(c.t, c.m.http)
	}
}

// begin waits until everybody follows.
func (c *inboxCrash) begin() {
	c.t.Helper()
	for _, r := range c.readers {
		c.m.await(r.name+" to follow the inbox", workLimit, func() bool { return r.is(&r.begun) })
	}
}

// send sends one, and returns the id that was answered with 202, empty when none was.
func (c *inboxCrash) send(sender int, title string) string {
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	status, body, err := request(ctx, http.MethodPost, "http://"+c.m.http+"/api/v1/notifications", c.keys[sender], map[string]any{"topic": "pumps", "title": title})
	if err != nil || status != http.StatusAccepted {
		return ""
	}
	return acceptedID(body)
}

// sendMany has all send, and returns how to get the ids that were accepted until the server died.
func (c *inboxCrash) sendMany(round int) func() []string {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var out []string
	for s := range crashSenders {
		wg.Go(func() {
			for n := range 20 {
				id := c.send(s, "number "+strconv.Itoa(n)+" of round "+strconv.Itoa(round))
				if id == "" {
					return
				}
				mu.Lock()
				out = append(out, id)
				mu.Unlock()
			}
		})
	}
	return func() []string {
		wg.Wait()
		return out
	}
}

// visible waits until the store shows n notifications to others.
func (c *inboxCrash) visible(n int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), workLimit)
	defer cancel()
	for {
		var have int
		if err := c.store.QueryRowContext(ctx, "SELECT count(*) FROM notification").Scan(&have); err != nil {
			c.t.Fatalf("look into the store: %v", err)
		}
		if have >= n {
			return
		}
	}
}

// stored returns the ids of all notifications, while no server runs.
func (c *inboxCrash) stored() (ids []string) {
	c.t.Helper()
	rows, err := c.store.QueryContext(context.Background(), "SELECT id FROM notification ORDER BY id")
	if err != nil {
		c.t.Fatalf("read the store: %v", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			c.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		c.t.Fatalf("read the store: %v", err)
	}
	return ids
}

// resume starts the server after a kill, and holds every reader to what he missed.
func (c *inboxCrash) resume(accepted []string) {
	c.t.Helper()
	missed := make([][]string, len(c.readers))
	for _, r := range c.readers {
		c.m.await(r.name+" to see the end", workLimit, func() bool { return r.is(&r.ended) })
		r.leave()
	}
	c.settled()
	c.ids = c.stored()
	c.accepted += len(accepted)
	for _, id := range accepted {
		if !slices.Contains(c.ids, id) {
			c.t.Errorf("%s was accepted and is not stored", id)
		}
	}
	fell := false
	for i, r := range c.readers {
		missed[i] = r.missing(c.ids)
		c.pieces += len(missed[i])
		fell = fell || len(missed[i]) > 0
	}
	if fell {
		c.between++
	}
	c.m.start()
	c.m.ready()
	c.follow()
	c.begin()
	for i, r := range c.readers {
		c.m.await(r.name+" to get what it missed", workLimit, func() bool { return len(r.missing(c.ids)) == 0 })
		r.mu.Lock()
		if d := cmp.Diff(missed[i], slices.Sorted(maps.Keys(r.anew))); len(missed[i])+len(r.anew) > 0 && d != "" {
			c.t.Errorf("%s: what was new after the restart (-missed +got):\n%s", r.name, d)
		}
		for id, n := range r.anew {
			if n != 1 {
				c.t.Errorf("%s: %s came %d times", r.name, id, n)
			}
		}
		r.mu.Unlock()
	}
}

// settled waits until no transaction of the dead server is open in the database any more.
func (c *inboxCrash) settled() {
	c.t.Helper()
	if !slices.Contains(c.m.args, "--database") {
		return
	}
	c.m.await("the database to see the end", workLimit, func() bool {
		var open int
		err := c.store.QueryRowContext(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'").Scan(&open)
		return err == nil && open == 0
	})
}

// end holds all to what the inbox has in the end.
func (c *inboxCrash) end() {
	c.t.Helper()
	c.m.stop()
	c.ids = c.stored()
	events := 0
	for _, r := range c.readers {
		r.leave()
		for _, v := range r.violations {
			c.t.Error(v)
		}
		if d := cmp.Diff(c.ids, slices.Sorted(maps.Keys(r.known))); d != "" {
			c.t.Errorf("%s (-stored +told):\n%s", r.name, d)
		}
		events += r.events
	}
	c.t.Logf("%d notifications, %d of them accepted; %d events to %d readers; %d kills between a commit and a push, after which %d had to come",
		len(c.ids), c.accepted, events, len(c.readers), c.between, c.pieces)
	if c.pieces == 0 {
		c.t.Error("nothing was ever missed")
	}
}
