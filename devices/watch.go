package devices

import (
	"slices"
	"sync"

	"muster"
)

// watchers are told of changes. There are as many as rooms that watch.
type watchers struct {
	mu   sync.RWMutex
	list []*watcher // replaced, never changed in place
}

type watcher struct{ fn func([]muster.DeviceID) }

// Watch calls fn with the devices whose registry entry or presence changed, after
// the change and without a lock held; fn reads what it wants to know, must not
// block and must not keep ids. cancel ends it; a call under way may still finish.
func (r *Registry) Watch(fn func(ids []muster.DeviceID)) (cancel func()) {
	w := &watcher{fn}
	r.watch.mu.Lock()
	defer r.watch.mu.Unlock()
	r.watch.list = append(slices.Clone(r.watch.list), w)
	return func() { r.watch.remove(w) }
}

func (ws *watchers) remove(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.list = slices.DeleteFunc(slices.Clone(ws.list), func(o *watcher) bool { return o == w })
}

func (ws *watchers) changed(ids []muster.DeviceID) {
	ws.mu.RLock()
	list := ws.list
	ws.mu.RUnlock()
	for _, w := range list {
		w.fn(ids)
	}
}
