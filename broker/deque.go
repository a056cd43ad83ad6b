package broker

// deque is a queue on a ring that grows by doubling and gives its memory back when
// it becomes empty. The zero deque is ready.
type deque[T any] struct {
	ring []T // its length is a power of two, or 0
	head int
	n    int
}

const keptRing = 8 // a ring no longer than this stays when the deque becomes empty

func (d *deque[T]) len() int { return d.n }

// at returns the i-th from the front.
func (d *deque[T]) at(i int) *T { return &d.ring[(d.head+i)&(len(d.ring)-1)] }

func (d *deque[T]) push(v T) {
	d.grow()
	d.n++
	*d.at(d.n - 1) = v
}

func (d *deque[T]) pushFront(v T) {
	d.grow()
	d.head = (d.head - 1) & (len(d.ring) - 1)
	d.n++
	*d.at(0) = v
}

func (d *deque[T]) pop() (v T) {
	var zero T
	p := d.at(0)
	v, *p = *p, zero
	d.head = (d.head + 1) & (len(d.ring) - 1)
	d.n--
	if d.n == 0 && len(d.ring) > keptRing {
		d.ring, d.head = nil, 0
	}
	return v
}

func (d *deque[T]) grow() {
	if d.n < len(d.ring) {
		return
	}
	ring := make([]T, max(4, 2*len(d.ring)))
	for i := range d.n {
		ring[i] = *d.at(i)
	}
	d.ring, d.head = ring, 0
}
