package server

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"
)

func TestAQuantileLiesInItsBucket(t *testing.T) {
	buckets := []bucket{{1, 10}, {2, 60}, {4, 100}}
	for _, c := range []struct {
		name    string
		buckets []bucket
		n       uint64
		q, want float64
	}{
		{"none yet", buckets, 0, 0.5, 0},
		{"in the first", buckets, 100, 0.05, 0.5},
		{"in the middle", buckets, 100, 0.35, 1.5},
		{"in the last", buckets, 100, 0.8, 3},
		{"beyond the last", buckets, 200, 0.99, 4},
		{"no buckets", nil, 3, 0.5, 0},
	} {
		if got := quantile(c.buckets, c.n, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestTheSizeOfTheDatabaseIsAskedForOnceInAWhile(t *testing.T) {
	now, asked, fail := time.Unix(0, 0), 0, false
	z := sizes{now: func() time.Time { return now }, ask: func(ctx context.Context) (int64, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("there is no deadline")
		}
		if asked++; fail {
			return 7, errors.New("away")
		}
		return int64(asked * 100), nil
	}}
	if a, b := z.get(), z.get(); a != 100 || b != 100 {
		t.Errorf("%d, %d", a, b)
	}
	now, fail = now.Add(sizeEvery), true
	if got := z.get(); got != -1 || asked != 2 {
		t.Errorf("%d of a store that is away, asked %d times", got, asked)
	}
}
