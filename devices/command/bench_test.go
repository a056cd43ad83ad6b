package command_test

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"muster"
	"muster/devices/command"
)

// onDisk is SQLite as in production: every transaction is synced.
func onDisk(b *testing.B) *rig {
	b.Helper()
	return newRig(b, onSQLite(b, false), true)
}

// BenchmarkCommandEndToEnd is one command from Send over the store, the delivery, its
// acknowledgement and the device's result to the answer, by 1 and by 256 callers for
// as many devices.
func BenchmarkCommandEndToEnd(b *testing.B) {
	for _, callers := range []int{1, 256} {
		b.Run("callers="+strconv.Itoa(callers), func(b *testing.B) {
			r := onDisk(b)
			defer r.close()
			ids := r.devices(callers)
			reports := make(chan command.Report, callers)
			r.wire.answers = func(d command.Delivery) {
				reports <- command.Report{Device: d.Device, Command: string(d.Correlation), Payload: []byte(`{"status":"ok"}`)}
			}
			var intake sync.WaitGroup
			intake.Go(func() { r.takeIn(reports) })
			r.online(ids)
			var next atomic.Int64
			b.ResetTimer()
			var wg sync.WaitGroup
			for _, id := range ids {
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) {
						m, err := r.c.Send(context.Background(), command.Spec{Device: id, Method: "m"}, command.MaxWait)
						if err != nil || m.State != command.Succeeded {
							b.Errorf("%s: %v", m.State, err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
			close(reports)
			intake.Wait()
		})
	}
}

// takeIn hands reports over as intake does: all that are there, at most 500 at once.
func (r *rig) takeIn(reports <-chan command.Report) {
	for first := range reports {
		batch := []command.Report{first}
		for len(batch) < 500 && len(reports) > 0 {
			batch = append(batch, <-reports)
		}
		for _, err := range r.c.Results(context.Background(), batch) {
			if err != nil {
				r.Error(err)
			}
		}
	}
}

// BenchmarkJobOf10000 is a job from its making until all of 10,000 connected devices
// have acknowledged their commands.
func BenchmarkJobOf10000(b *testing.B) {
	r := onDisk(b)
	defer r.close()
	ids := r.devices(10_000)
	r.online(ids)
	var left atomic.Int64
	all := make(chan struct{}, 1)
	r.wire.answers = func(command.Delivery) {
		if left.Add(-1) == 0 {
			all <- struct{}{}
		}
	}
	var at int
	writes := r.store.batches()
	b.ResetTimer()
	for b.Loop() {
		left.Store(int64(len(ids)))
		j := r.job(command.JobSpec{Query: "id:d*"})
		<-all
		b.StopTimer()
		at = r.answer(at, nil)
		for r.jobNow(j.ID).Phase != command.Done {
			r.c.Ready("nobody", false) // one more turn
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(len(ids)*b.N)/b.Elapsed().Seconds(), "devices/s")
	b.ReportMetric(float64(r.store.batches()-writes)/float64(b.N), "transactions/op")
}

// BenchmarkReconnectOf10000 is 10,000 devices that come back to one command each.
func BenchmarkReconnectOf10000(b *testing.B) {
	r := onDisk(b)
	defer r.close()
	ids := r.devices(10_000)
	var left atomic.Int64
	all := make(chan struct{}, 1)
	r.wire.answers = func(command.Delivery) {
		if left.Add(-1) == 0 {
			all <- struct{}{}
		}
	}
	at := 0
	for b.Loop() {
		b.StopTimer()
		for part := range slices.Chunk(ids, 1000) {
			var wg sync.WaitGroup
			for _, id := range part {
				wg.Go(func() { r.sendTo(id) })
			}
			wg.Wait()
		}
		left.Store(int64(len(ids)))
		b.StartTimer()
		r.online(ids)
		<-all
		b.StopTimer()
		for _, id := range ids {
			r.wire.disconnect(id)
		}
		at = r.answer(at, nil)
		b.StartTimer()
	}
	b.ReportMetric(float64(len(ids)*b.N)/b.Elapsed().Seconds(), "devices/s")
}

func (r *rig) sendTo(id muster.DeviceID) {
	if _, err := r.c.Send(context.Background(), command.Spec{Device: id, Method: "m"}, 0); err != nil {
		r.Error(err)
	}
}

func (f *faulty) batches() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}
