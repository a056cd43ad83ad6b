package sim

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// progressEvery is how often Run calls progress.
const progressEvery = time.Second

// mostIdle bounds the connections that devices which update over HTTP keep for each other.
const mostIdle = 64

// Run connects the fleet of cfg, at most cfg.Ramp new devices per second, and
// publishes until ctx ends or every device has reached cfg.Limit; then it returns
// nil. A device that cannot connect, or is cut off, tries again with a jittered
// backoff and counts in Stats.Errors, so the only error Run returns is a cfg of
// kind Invalid. No goroutine and no socket is left when it returns.
//
// progress, when not nil, is called about once a second and once at the end,
// never twice at a time. With gateways, Stats.Connected counts those.
func Run(ctx context.Context, cfg Config, progress func(Stats)) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	if progress == nil {
		progress = func(Stats) {}
	}
	f := &fleet{
		cfg: cfg, flash: newFlash(cfg.FirmwareImages), links: make(map[*link]struct{}),
		web: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: mostIdle, IdleConnTimeout: time.Minute}},
	}
	defer f.web.CloseIdleConnections()
	launched := make(chan struct{})
	go func() {
		defer close(launched)
		f.launch(ctx)
		f.devices.Wait()
	}()

	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	stop := ctx.Done()
	for {
		select {
		case <-tick.C:
			progress(f.counters.take())
		case <-stop:
			stop = nil
			f.stopLinks()
		case <-launched:
			progress(f.counters.take())
			return nil
		}
	}
}

// fleet is one Run.
type fleet struct {
	cfg      Config
	counters counters
	flash    *flash // nil when no images are kept
	devices  sync.WaitGroup
	web      *http.Client // of images, and of DDI

	mu      sync.Mutex
	stopped bool               // no more links are taken
	links   map[*link]struct{} // the open connections; at most two per device
}

// launch starts the devices one after another at the ramp's pace.
func (f *fleet) launch(ctx context.Context) {
	start := time.Now()
	connections := f.cfg.Devices
	if f.cfg.Gateways > 0 {
		connections = f.cfg.Gateways
	}
	for i := range connections {
		due := start.Add(time.Duration(float64(i) / f.cfg.Ramp * float64(time.Second)))
		if !sleepUntil(ctx, due) {
			return
		}
		if f.cfg.Gateways > 0 {
			f.devices.Go(func() { newGateway(f, i, start).run(ctx) })
			continue
		}
		f.devices.Go(func() { newDevice(f, i).run(ctx) })
		switch {
		case i < f.cfg.FirmwareDDI:
			f.devices.Go(func() { newDDIDevice(f, i).run(ctx) })
		case f.cfg.Firmware:
			f.devices.Go(func() { newUpdater(f, i).run(ctx) })
		}
	}
}

// sleepUntil returns false when ctx ended first.
func sleepUntil(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// keep registers l so that the end of the run reaches it, and returns false when
// the run has ended already.
func (f *fleet) keep(l *link) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.stopped {
		f.links[l] = struct{}{}
	}
	return !f.stopped
}

func (f *fleet) drop(l *link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.links, l)
}

// stopLinks wakes every device that waits for its socket.
func (f *fleet) stopLinks() {
	f.mu.Lock()
	f.stopped = true
	open := make([]*link, 0, len(f.links))
	for l := range f.links {
		open = append(open, l)
	}
	f.mu.Unlock()
	for _, l := range open {
		l.stop()
	}
}
