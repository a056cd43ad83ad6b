package bulk

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"muster"
	"muster/devices"
)

// check moves what the registry would refuse to the refusals, and counts what is
// left as if it was done.
func (im *importer) check() {
	var families devices.Families
	tokens := make(map[string]int)
	news := im.news[:0]
	for _, it := range im.news { // gateways come first
		err := im.checkNew(it, &families, tokens)
		if err != nil {
			im.report.refuse(it.line, it.spec.ID, err)
			continue
		}
		families.Put(it.spec.ID, it.spec.Parent)
		news = append(news, it)
	}
	im.news = news
	olds := im.olds[:0]
	for _, it := range im.olds {
		if err := im.reg.CheckChange(it.spec.ID, it.change, &families); err != nil {
			im.report.refuse(it.line, it.spec.ID, err)
			continue
		}
		if p := it.change.Parent; p != nil {
			families.Put(it.spec.ID, *p)
		}
		olds = append(olds, it)
	}
	im.olds = olds
	im.report.Created, im.report.Updated = len(im.news), len(im.olds)
}

func (im *importer) checkNew(it item, f *devices.Families, tokens map[string]int) error {
	if it.depth > devices.MaxDepth {
		return muster.Errorf(muster.Conflict, "a device may have at most %d ancestors, and not itself among them", devices.MaxDepth)
	}
	if t := it.spec.Given; t != "" && it.spec.Credential == devices.Token {
		if first, twice := tokens[t]; twice {
			return muster.Errorf(muster.Conflict, "the token is on line %d already", first)
		}
		if line, ok := im.seen[muster.DeviceID(t)]; ok {
			return muster.Errorf(muster.Conflict, "the token is the id on line %d", line)
		}
		tokens[t] = it.line
	}
	return im.reg.CheckSpec(it.spec, f)
}

// run makes and changes what was checked.
func (im *importer) run(ctx context.Context) error {
	done, all := im.done, im.done+len(im.news)+len(im.olds)
	step := func(n int) {
		if done += n; im.o.Progress != nil {
			im.o.Progress(done, all)
		}
	}
	may := func() error { return nil }
	if im.o.May != nil {
		may = im.o.May
	}
	batch := cmp.Or(im.o.Batch, batchSize)
	for part := range slices.Chunk(im.news, batch) {
		if err := may(); err != nil {
			return err
		}
		if err := im.make(ctx, part); err != nil {
			return err
		}
		step(len(part))
	}
	for part := range slices.Chunk(im.olds, batch) {
		if err := may(); err != nil {
			return err
		}
		if err := im.alter(ctx, part); err != nil {
			return err
		}
		step(len(part))
	}
	return nil
}

// make makes a batch. When the registry refuses it, because somebody made one of the
// devices meanwhile, it is halved until that one stands alone.
func (im *importer) make(ctx context.Context, part []item) error {
	specs := make([]devices.Spec, len(part))
	for i := range part {
		specs[i] = part[i].spec
	}
	if im.o.Keeper != nil {
		return im.makeKept(ctx, part, specs)
	}
	ds, issued, err := im.reg.CreateMany(ctx, specs)
	if err != nil {
		return im.halve(part, err, func(half []item) error { return im.make(ctx, half) })
	}
	im.report.Created += len(ds)
	for i := range ds {
		if im.o.Made == nil {
			break
		}
		if err := im.o.Made(part[i].line, ds[i], issued[i]); err != nil {
			return fmt.Errorf("hand out a credential: %w", err)
		}
	}
	return nil
}

func (im *importer) alter(ctx context.Context, part []item) error {
	changes := make([]devices.DeviceChange, len(part))
	before := make([]devices.Device, len(part))
	for i := range part {
		changes[i] = devices.DeviceChange{ID: part[i].spec.ID, Change: part[i].change}
		before[i], _ = im.reg.Get(part[i].spec.ID) // one that is gone is refused below
	}
	if im.o.Keeper != nil {
		return im.alterKept(ctx, part, changes, before)
	}
	after, err := im.reg.UpdateMany(ctx, changes)
	if err != nil {
		return im.halve(part, err, func(half []item) error { return im.alter(ctx, half) })
	}
	for i := range after {
		if after[i] == before[i] {
			im.report.Same++
		} else {
			im.report.Updated++
		}
	}
	return nil
}

func (im *importer) halve(part []item, err error, again func([]item) error) error {
	switch muster.KindOf(err) {
	case muster.Invalid, muster.Conflict, muster.NotFound:
	default:
		return err
	}
	if len(part) == 1 {
		im.report.refuse(part[0].line, part[0].spec.ID, err)
		im.done++
		return nil
	}
	if err := again(part[:len(part)/2]); err != nil {
		return err
	}
	return again(part[len(part)/2:])
}
