package bulk

import (
	"context"
	"fmt"
	"io"
	"slices"

	"muster"
	"muster/devices"
)

// batchSize is how many devices are made or changed in one transaction unless Batch
// says another number.
const batchSize = 5000

// MaxRefusals is the most refused lines a Report names; the rest are counted.
const MaxRefusals = 1000

// Registry is where devices are made and changed.
type Registry interface {
	Checker
	Get(id muster.DeviceID) (devices.Device, error)
	CreateMany(ctx context.Context, specs []devices.Spec) ([]devices.Device, []devices.Issued, error)
	UpdateMany(ctx context.Context, cs []devices.DeviceChange) ([]devices.Device, error)
	// Preview returns the device id as c would make it.
	Preview(id muster.DeviceID, c devices.Change) (devices.Device, error)
}

// Checker says what the registry would refuse, without changing it.
type Checker interface {
	// CheckSpec says whether s could be made, when families are as the lines before make
	// them.
	CheckSpec(s devices.Spec, f *devices.Families) error
	// CheckChange says whether the device id could be changed so, likewise.
	CheckChange(id muster.DeviceID, c devices.Change, f *devices.Families) error
}

// Options say how an import is done.
type Options struct {
	Format Format
	// DryRun reads and checks everything and changes nothing.
	DryRun bool
	// Update changes devices that exist; without it they are refused.
	Update bool
	// Partial makes what can be made when lines are refused; without it one refused
	// line leaves everything as it is.
	Partial bool
	// Progress is told, now and then, how many of the lines are done; it may be nil.
	Progress func(done, lines int)
	// Made is told of each device that was made, once its batch is kept, and its
	// credential: this is the only time it can be had. It may be nil.
	Made func(line int, d devices.Device, is devices.Issued) error
	// May is asked before each batch whether the import may go on; its error ends it. It may
	// be nil.
	May func() error
	// Batch is how many devices are made or changed in one transaction; 5,000 when zero.
	Batch int
	// Keeper makes the import one that goes on after the process died: see Keeper. Made is
	// not called then.
	Keeper Keeper
}

// Report says what an import did or, in a dry run, would do.
type Report struct {
	DryRun   bool      `json:"dry_run"`
	Lines    int       `json:"lines" doc:"Lines with a device"`
	Created  int       `json:"created"`
	Updated  int       `json:"updated"`
	Same     int       `json:"same" doc:"Devices that were already as their line says"`
	Refused  int       `json:"refused"`
	Refusals []Refusal `json:"refusals" nullable:"false" doc:"The first 1,000 refused lines"`
}

// Refusal is a line that was refused.
type Refusal struct {
	Line   int             `json:"line"`
	ID     muster.DeviceID `json:"id,omitempty"`
	Detail string          `json:"detail"`
}

func (r *Report) refuse(line int, id muster.DeviceID, err error) {
	if r.Refused++; len(r.Refusals) < MaxRefusals {
		r.Refusals = append(r.Refusals, Refusal{line, id, muster.Public(err)})
	}
}

// Import makes and changes the devices that in lists. Lines are checked all before
// the first device is made. Batches of 5,000 are then each kept whole or not at all,
// gateways before their children: when the server dies between two of them, the same
// import with Update does the rest. An error means that the list as a whole could not
// be read, or that the store failed; the report says what was done until then.
func Import(ctx context.Context, reg Registry, in io.Reader, o Options) (Report, error) {
	im := importer{reg: reg, o: o, seen: map[muster.DeviceID]int{}, report: Report{DryRun: o.DryRun, Refusals: []Refusal{}}}
	if o.Keeper != nil {
		return ImportFrom(ctx, reg, in, o, Mark{})
	}
	if err := im.read(ctx, in, im.take); err != nil {
		return im.report, err
	}
	im.order()
	im.check()
	if im.ends() {
		return im.report, nil
	}
	return im.report, im.run(ctx)
}

// read calls take for each line.
func (im *importer) read(ctx context.Context, in io.Reader, take func(r Row, line int, refused error)) error {
	return Read(in, im.o.Format, func(r Row, line int, refused error) error {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read the list: %w", err)
		}
		take(r, line, refused)
		return nil
	})
}

// ends says whether nothing is to be done after the check, and makes the report say what
// was done.
func (im *importer) ends() bool {
	if im.o.DryRun {
		return true
	}
	im.report.Created, im.report.Updated = 0, 0
	return im.report.Refused > 0 && !im.o.Partial
}

type importer struct {
	reg    Registry
	o      Options
	seen   map[muster.DeviceID]int // the line of each id
	news   []item
	olds   []item
	report Report
	done   int // items that are done, with a Keeper
}

// item is a line that can be done.
type item struct {
	line   int
	nth    int // among the lines with a device, from 0
	spec   devices.Spec
	change devices.Change
	depth  int
}

// take sorts a line into those to make, to change and refused.
func (im *importer) take(r Row, line int, refused error) {
	im.report.Lines++
	if refused != nil {
		im.report.refuse(line, r.ID, refused)
		return
	}
	if first, twice := im.seen[r.ID]; twice {
		im.report.refuse(line, r.ID, muster.Errorf(muster.Conflict, "this id is on line %d already", first))
		return
	}
	im.seen[r.ID] = line
	_, err := im.reg.Get(r.ID)
	exists := err == nil
	it := item{line: line, nth: im.report.Lines - 1}
	switch {
	case exists && !im.o.Update:
		err = muster.Errorf(muster.Conflict, "a device with this id exists")
	case exists:
		it.spec.ID = r.ID
		it.change, err = r.change()
	default:
		it.spec, err = r.spec()
	}
	switch {
	case err != nil:
		im.report.refuse(line, r.ID, err)
	case exists:
		im.olds = append(im.olds, it)
	default:
		im.news = append(im.news, it)
	}
}

// order puts gateways before their children.
func (im *importer) order() {
	parents := make(map[muster.DeviceID]muster.DeviceID, len(im.news))
	for _, it := range im.news {
		parents[it.spec.ID] = it.spec.Parent
	}
	for _, it := range im.olds {
		if it.change.Parent != nil {
			parents[it.spec.ID] = *it.change.Parent
		}
	}
	for _, list := range [][]item{im.news, im.olds} {
		for i := range list {
			list[i].depth = depthOf(list[i].spec.ID, parents)
		}
		slices.SortStableFunc(list, func(a, b item) int { return a.depth - b.depth })
	}
}

// depthOf counts the ancestors of id as the list has them, at most so many that a circle
// is too deep.
func depthOf(id muster.DeviceID, parents map[muster.DeviceID]muster.DeviceID) int {
	n := 0
	for n <= devices.MaxDepth+1 && parents[id] != "" {
		id = parents[id]
		n++
	}
	return n
}
