package once

import (
	"context"
	"sync"

	"muster"
)

// Row is a request that was done.
type Row struct {
	Principal string        // id of the credential that it came with
	Name      string        // SHA-256 of its route and key, in hex
	Print     string        // SHA-256 of all else that it asked for, in hex
	At        muster.Micros // when it began
	Answer    []byte        // sealed; empty when none is kept
}

// Claim is a request under way that is to be written down with its first change. It is safe for concurrent use.
type Claim struct {
	mu      sync.Mutex
	row     Row
	written bool
}

type claimKey struct{}

// Of returns the claim of ctx, nil when there is none.
func Of(ctx context.Context) *Claim {
	c, _ := ctx.Value(claimKey{}).(*Claim)
	return c
}

// Pending returns the row that the next transaction is to write, if it is still to be written.
func (c *Claim) Pending() (Row, bool) {
	if c == nil {
		return Row{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.row, !c.written
}

// Written says that the row was committed.
func (c *Claim) Written() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written = true
}

func (c *Claim) isWritten() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.written
}
