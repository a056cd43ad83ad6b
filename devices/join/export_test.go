package join

import "context"

// TidyNow does what Run does every ten minutes.
func (j *Join) TidyNow(ctx context.Context) error { return j.tidyClaims(ctx) }
