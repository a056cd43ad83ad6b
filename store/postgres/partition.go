package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"muster"
)

// week is the width of a chunk or partition, counted from 1970-01-01 (a Thursday)
// on both engines, so that one batch is split the same way.
const week = muster.Micros(7 * 24 * time.Hour / time.Microsecond)

// maxWeeks bounds the chunks that one transaction touches: each holds locks on its
// table and indexes, and the server's lock table is finite.
const maxWeeks = 64

// weekOf returns which week t lies in, negative before 1970.
func weekOf(t muster.Micros) int32 {
	w := t / week
	if t%week < 0 {
		w--
	}
	return int32(w)
}

// partitions remembers the native partitions that are there. It holds at most
// 4,096 weeks; when it is full it starts anew and asks the database again.
type partitions struct {
	mu    sync.Mutex
	known map[int32]bool
}

func newPartitions() *partitions { return &partitions{known: map[int32]bool{}} }

// unknown returns the weeks of rows that may have no partition.
func (p *partitions) unknown(rows []staged) []int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []int32
	seen := map[int32]bool{}
	for i := range rows {
		if w := weekOf(rows[i].Time); !p.known[w] && !seen[w] {
			seen[w] = true
			out = append(out, w)
		}
	}
	return out
}

// add notes weeks whose partitions are committed.
func (p *partitions) add(weeks []int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known)+len(weeks) > 4096 {
		clear(p.known)
	}
	for _, w := range weeks {
		p.known[w] = true
	}
}

// forget makes the next batch ask the database: a partition was dropped.
func (p *partitions) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.known)
}

// ensurePartitions creates the partitions of weeks that are not there. It attaches
// them, since CREATE TABLE ... PARTITION OF would lock out every reader.
func ensurePartitions(ctx context.Context, tx pgx.Tx, weeks []int32) error {
	if len(weeks) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, lockPartitions); err != nil {
		return fmt.Errorf("lock the partitions: %w", err)
	}
	for _, w := range weeks {
		name := "telemetry_default_" + (muster.Micros(w) * week).Time().Format("20060102")
		var attached bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_inherits
			WHERE inhparent = 'telemetry_default'::regclass AND inhrelid = to_regclass($1))`, name).Scan(&attached)
		if err != nil {
			return fmt.Errorf("look for partition %s: %w", name, err)
		}
		if attached {
			continue
		}
		table := pgx.Identifier{name}.Sanitize()
		_, err = tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE %s (LIKE telemetry_default INCLUDING ALL);
			ALTER TABLE telemetry_default ATTACH PARTITION %s
			FOR VALUES FROM (timestamptz 'epoch' + %d * interval '168 hours') TO (timestamptz 'epoch' + %d * interval '168 hours')`,
			table, table, w, w+1), pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return fmt.Errorf("create partition %s: %w", name, err)
		}
	}
	return nil
}
