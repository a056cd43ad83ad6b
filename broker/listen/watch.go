package listen

import (
	"context"
	"os"
	"slices"
	"time"
)

// watchEvery is how often Watch looks at the files.
const watchEvery = 10 * time.Second

// stamp is how the files look from outside, in the order of their names in the
// configuration.
type stamp []fileStamp

type fileStamp struct {
	modified int64 // nanoseconds of the Unix clock
	size     int64 // -1 for a file that cannot be looked at
}

// Watch reloads when a file's modification time or size has changed, looking every
// 10 s; a reload that failed is tried again each time. Failures are logged, the same
// one once. It returns nil when ctx ends.
func (c *Certs) Watch(ctx context.Context) error {
	ticks, stop := c.cfg.Tick(watchEvery)
	defer stop()
	last := "" // the failure logged last
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
		}
		if slices.Equal(c.look(), c.now.Load().stamp) {
			last = ""
			continue
		}
		err := c.Reload()
		switch {
		case err == nil:
			last = ""
			c.cfg.Logger.Info("TLS certificates reloaded", "expires", c.Expires().UTC())
		case err.Error() != last:
			last = err.Error()
			c.cfg.Logger.Error("TLS certificates changed and cannot be used, the old ones stay", "err", err)
		}
	}
}

// look returns the files' stamp.
func (c *Certs) look() stamp {
	names := make([]string, 0, 2*len(c.cfg.Pairs)+1)
	for _, p := range c.cfg.Pairs {
		names = append(names, p.Cert, p.Key)
	}
	if c.cfg.ClientCA != "" {
		names = append(names, c.cfg.ClientCA)
	}
	s := make(stamp, len(names))
	for i, name := range names {
		st, err := os.Stat(name)
		if err != nil {
			s[i] = fileStamp{size: -1}
			continue
		}
		s[i] = fileStamp{modified: st.ModTime().UnixNano(), size: st.Size()}
	}
	return s
}

func newTicker(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(d)
	return t.C, t.Stop
}
