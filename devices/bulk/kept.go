package bulk

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"muster"
	"muster/devices"
)

// Keeper is what an import needs to go on after the process died, and then do no line
// twice and leave none out.
type Keeper interface {
	// Plan returns what KeepPlan kept, nil for nothing.
	Plan() ([]byte, error)
	// KeepPlan keeps which lines are to be done, durable when it returns.
	KeepPlan(plan []byte) error
	// Step does a part of the import: do makes one change of the registry, to be kept
	// together with m and made, or none of them. It returns what do fails with.
	Step(ctx context.Context, m Mark, made []Made, do func(ctx context.Context) error) error
}

// Mark is how far an import is.
type Mark struct {
	Done   int    `json:"done"` // items of the plan
	Report Report `json:"report"`
}

// Made is a device that is made, with its credential.
type Made struct {
	Line       int
	ID         muster.DeviceID
	Credential devices.Issued // zero for none
}

// plan is what becomes of the lines of a list, as it was decided before the first
// device was made: afterwards the registry would say otherwise.
type plan struct {
	Report Report `json:"report"`
	// Lines has a letter for each line with a device.
	Lines []byte `json:"lines"`
}

// What becomes of a line.
const (
	lineRefused = 'r'
	lineNew     = 'n'
	lineOld     = 'o'
)

// Resume returns the mark of an import that was begun before, the zero Mark for text nil.
func Resume(text []byte) (m Mark, err error) {
	if text == nil {
		return m, nil
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("read how far an import is: %w", err)
	}
	return m, nil
}

// ImportFrom is Import with a Keeper, from a mark: the list and o are the same as at
// first.
func ImportFrom(ctx context.Context, reg Registry, in io.Reader, o Options, from Mark) (Report, error) {
	im := importer{reg: reg, o: o, seen: map[muster.DeviceID]int{}, report: Report{DryRun: o.DryRun, Refusals: []Refusal{}}}
	text, err := o.Keeper.Plan()
	if err != nil {
		return im.report, fmt.Errorf("recall the plan of an import: %w", err)
	}
	if text == nil {
		return im.kept(ctx, in)
	}
	return im.again(ctx, in, text, from)
}

// kept is Import with a Keeper, from the beginning.
func (im *importer) kept(ctx context.Context, in io.Reader) (Report, error) {
	if err := im.read(ctx, in, im.take); err != nil {
		return im.report, err
	}
	im.order()
	im.check()
	if im.ends() {
		return im.report, nil
	}
	text, err := json.Marshal(plan{im.report, im.letters()})
	if err == nil {
		err = im.o.Keeper.KeepPlan(text)
	}
	if err != nil {
		return im.report, fmt.Errorf("keep the plan of an import: %w", err)
	}
	return im.report, im.run(ctx)
}

// letters returns what becomes of each line, by its number among those with a device.
func (im *importer) letters() []byte {
	out := make([]byte, im.report.Lines)
	for i := range out {
		out[i] = lineRefused
	}
	for _, it := range im.news {
		out[it.nth] = lineNew
	}
	for _, it := range im.olds {
		out[it.nth] = lineOld
	}
	return out
}

// again does what is left of a plan.
func (im *importer) again(ctx context.Context, in io.Reader, text []byte, from Mark) (Report, error) {
	var p plan
	if err := json.Unmarshal(text, &p); err != nil {
		return im.report, fmt.Errorf("read the plan of an import: %w", err)
	}
	nth, bad := 0, error(nil)
	err := im.read(ctx, in, func(r Row, line int, refused error) {
		if nth < len(p.Lines) && bad == nil && refused == nil {
			bad = im.retake(r, line, nth, p.Lines[nth])
		}
		nth++
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return im.report, err
	}
	im.order()
	im.report = p.Report
	if from.Done > 0 {
		im.report = from.Report
	}
	im.skip(from.Done)
	return im.report, im.run(ctx)
}

// retake sorts a line as the plan has it.
func (im *importer) retake(r Row, line, nth int, letter byte) (err error) {
	it := item{line: line, nth: nth}
	switch letter {
	case lineNew:
		it.spec, err = r.spec()
		im.news = append(im.news, it)
	case lineOld:
		it.spec.ID = r.ID
		it.change, err = r.change()
		im.olds = append(im.olds, it)
	}
	return err
}

// skip leaves out the first n items, which are done.
func (im *importer) skip(n int) {
	im.done = n
	news := min(n, len(im.news))
	im.news = im.news[news:]
	im.olds = im.olds[min(n-news, len(im.olds)):]
}

func (im *importer) makeKept(ctx context.Context, part []item, specs []devices.Spec) error {
	made := make([]Made, len(part))
	for i := range specs { // before they are made: who dies then has handed them out
		made[i] = Made{part[i].line, specs[i].ID, specs[i].Choose()}
	}
	after := im.report
	after.Created += len(part)
	err := im.o.Keeper.Step(ctx, Mark{im.done + len(part), after}, made, func(ctx context.Context) error {
		_, _, err := im.reg.CreateMany(ctx, specs)
		return err
	})
	if err != nil {
		return im.halve(part, err, func(half []item) error { return im.make(ctx, half) })
	}
	im.report, im.done = after, im.done+len(part)
	return nil
}

func (im *importer) alterKept(ctx context.Context, part []item, changes []devices.DeviceChange, before []devices.Device) error {
	after := im.report
	for i := range changes {
		d, err := im.reg.Preview(changes[i].ID, changes[i].Change)
		if err == nil && d == before[i] {
			after.Same++
		} else {
			after.Updated++
		}
	}
	err := im.o.Keeper.Step(ctx, Mark{im.done + len(part), after}, nil, func(ctx context.Context) error {
		_, err := im.reg.UpdateMany(ctx, changes)
		return err
	})
	if err != nil {
		return im.halve(part, err, func(half []item) error { return im.alter(ctx, half) })
	}
	im.report, im.done = after, im.done+len(part)
	return nil
}
