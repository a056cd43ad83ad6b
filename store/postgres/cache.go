package postgres

// cache keeps at most twice limit entries: when the young half is full it becomes
// the old half, and what is not asked for again is forgotten with it. Its owner
// guards it.
type cache[K comparable, V any] struct {
	limit      int
	young, old map[K]V
}

func newCache[K comparable, V any](limit int) *cache[K, V] {
	return &cache[K, V]{limit: limit, young: map[K]V{}}
}

func (c *cache[K, V]) get(k K) (V, bool) {
	if v, ok := c.young[k]; ok {
		return v, true
	}
	v, ok := c.old[k]
	if ok {
		c.put(k, v)
	}
	return v, ok
}

func (c *cache[K, V]) remove(k K) {
	delete(c.young, k)
	delete(c.old, k)
}

func (c *cache[K, V]) put(k K, v V) {
	if len(c.young) >= c.limit {
		c.old, c.young = c.young, make(map[K]V, c.limit/4)
	}
	c.young[k] = v
}
