package query

// Both returns what matches the devices that a and b match. It changes neither, and may
// share their parts. nil matches every device.
func Both(a, b *Expr) *Expr {
	switch {
	case a == nil || a.Root == nil:
		return b
	case b == nil || b.Root == nil:
		return a
	}
	var nodes []Node
	for _, e := range []*Expr{a, b} {
		if and, ok := e.Root.(*And); ok {
			nodes = append(nodes, and.Nodes...)
			continue
		}
		nodes = append(nodes, e.Root)
	}
	return &Expr{Root: &And{Nodes: nodes}}
}
