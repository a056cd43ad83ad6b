package twin

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"muster"
	"muster/devices"
)

// Report is a merge patch (RFC 7396) of what a device reports, or the version that it said it runs by
// another door than its document: that goes to where the document has the version.
type Report struct {
	Device muster.DeviceID
	Patch  []byte

	Version string // in the place of Patch
	Product string // that Version is of, as far as the device says; empty for its firmware
	Beside  bool   // Product is beside the firmware, which has a version of its own
}

// ApplyReported applies reports in their order, at most devices.MaxBatch, and commits
// them in one transaction for 2,000 devices each. The errors are in the order of batch:
// nil when the report is kept, NotFound, Invalid or TooLarge when it is refused for
// good, else what the store said of it, and nothing of it was kept. A report that
// changes nothing costs no write and gives no new version.
//
// The firmware version among what is reported (the string firmware or fw_version, or
// firmware.version) goes to the registry. Where the document has it twice both are the one that was
// said last.
func (t *Twins) ApplyReported(ctx context.Context, batch []Report) []error {
	errs := make([]error, len(batch))
	fail := func(err error) {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = err
			}
		}
	}
	if len(batch) > devices.MaxBatch {
		fail(muster.Errorf(muster.TooLarge, "%d reports at once, at most %d are allowed", len(batch), devices.MaxBatch))
		return errs
	}
	err := t.change(ctx, func(ctx context.Context) error { return t.applyReported(ctx, batch, errs) })
	if err != nil {
		fail(err)
	}
	return errs
}

// reporting is what a batch makes of one device.
type reporting struct {
	device devices.Device
	prev   twin
	text   string
	by     []int // places in the batch
}

// applyReported sets errs for reports that are refused, and returns an error only when
// it is everybody's. It is called in turn.
func (t *Twins) applyReported(ctx context.Context, batch []Report, errs []error) error {
	found := make(map[muster.DeviceID]*reporting)
	var order []*reporting
	for i := range batch {
		r := found[batch[i].Device]
		if r == nil {
			d, err := t.registry.Get(batch[i].Device)
			if err != nil {
				errs[i] = err
				continue
			}
			prev := t.current(&d)
			r = &reporting{device: d, prev: prev, text: prev.reported.body()}
			found[d.ID] = r
			order = append(order, r)
		}
		text, err := batch[i].apply(r.text)
		if err != nil {
			errs[i] = err
			continue
		}
		r.text, r.by = text, append(r.by, i)
	}
	edits, by, err := t.reportEdits(order)
	if err != nil {
		return err
	}
	n, err := t.saveWhole(ctx, edits)
	t.admit(edits[:n])
	for i := range edits {
		why := err
		switch {
		case i >= n:
			t.todo.unsaved(edits[i].id)
		case edits[i].gone:
			why = errGone(edits[i].id)
		default:
			continue
		}
		for _, at := range by[i] {
			errs[at] = why
		}
	}
	t.reportFirmware(ctx, edits[:n])
	return nil
}

// reportEdits returns the edits of those whose document changed, with their places in
// the batch.
func (t *Twins) reportEdits(order []*reporting) ([]edit, [][]int, error) {
	at := muster.MicrosOf(t.now())
	var edits []edit
	var by [][]int
	for _, r := range order {
		if r.text == r.prev.reported.body() {
			continue
		}
		next := r.prev
		next.reported = r.prev.reported.next(r.text, t.bump(), at)
		e, err := t.derive(&r.device, r.prev, next)
		if err != nil {
			return nil, nil, fmt.Errorf("apply a report of %s: %w", r.device.ID, err)
		}
		edits, by = append(edits, e), append(by, r.by)
	}
	return edits, by, nil
}

// reportFirmware gives the registry the versions that are others now; Run does it when
// the registry cannot now.
func (t *Twins) reportFirmware(ctx context.Context, edits []edit) {
	var ids []muster.DeviceID
	for i := range edits {
		was, _ := firmwareOf(edits[i].prev.reported.body())
		is, _ := firmwareOf(edits[i].next.reported.body())
		if was != is {
			ids = append(ids, edits[i].id)
		}
	}
	for part := range slices.Chunk(ids, chunk) {
		if err := t.tellFirmware(ctx, part); err != nil {
			t.log.Warn("reported firmware versions are not in the registry yet", "devices", len(part), "err", err)
		}
	}
}

// VersionsOf returns what a report names versions of: the products, and "" for the firmware's own version, which
// ApplyReported puts into the registry. Nil for none.
func VersionsOf(patch []byte) (products []string) {
	text := canonical(patch)
	if _, ok := firmwareOf(text); ok {
		products = append(products, titleOf(text))
	}
	versions, ok := find(text, "versions")
	if !ok || versions[0] != '{' {
		return products
	}
	for i := 1; i < len(versions) && versions[i] == '"'; {
		colon := stringEnd(versions, i)
		products = append(products, unquote(versions[i:colon]))
		i = valueEnd(versions, colon+1) + 1
	}
	return products
}

// canonical returns the text of a patch that names versions in the form that lookup reads; empty for one
// that names none, which most are, and for none at all.
func canonical(patch []byte) string {
	if !bytes.Contains(patch, []byte("firmware")) && !bytes.Contains(patch, []byte("version")) {
		return ""
	}
	n, err := parse(string(patch), 0)
	if err != nil {
		return ""
	}
	return n.text()
}

// apply returns the document text with the report in it.
func (r *Report) apply(text string) (string, error) {
	patch := r.Patch
	if r.Version != "" {
		patch = versionPatch(text, r)
	}
	text, err := patched(text, patch)
	if err != nil || r.Version != "" {
		return text, err
	}
	// A version that was said by another name, or by another door, is not the newest any more.
	in := canonical(patch)
	said, ok := firmwareOf(in)
	if !ok {
		return text, nil
	}
	if title := titleOf(in); title != "" { // which image it is of: perhaps a bootloader beside the firmware
		if titleOf(text) != "" { // there is no other version
			return text, nil
		}
		return patched(text, versionPatch(text, &Report{Version: said, Product: title, Beside: true}))
	}
	if kept, _ := firmwareOf(text); said == kept {
		return text, nil
	}
	return patched(text, versionPatch(text, &Report{Version: said}))
}

// titleOf returns what the version of a document is of that ThingsBoard's devices have as fw_version: fw_title. Empty
// where the document does not say, or has the version of its firmware elsewhere too.
func titleOf(document string) string {
	title, ok := lookup(document, "fw_title")
	if !ok || title[0] != '"' {
		return ""
	}
	for _, path := range []string{"firmware", "firmware.version"} {
		if v, ok := lookup(document, path); ok && v[0] == '"' {
			return ""
		}
	}
	return unquote(title)
}

// versionPatch puts a version to where a document has it: to versions.PRODUCT when the product is there, or is
// beside the firmware; else to where firmwareOf finds it, or to firmware.version.
func versionPatch(text string, r *Report) []byte {
	version := appendQuoted(nil, r.Version)
	if r.Product != "" {
		if v, ok := lookupKeys(text, []string{"versions", r.Product}); r.Beside || ok && v[0] == '"' {
			return fmt.Appendf(nil, `{"versions":{%s:%s}}`, appendQuoted(nil, r.Product), version)
		}
	}
	title := titleOf(text)
	for _, path := range []string{"firmware", "firmware.version", "fw_version"} {
		if path == "fw_version" && r.Product != "" && title != "" && title != r.Product { // it is another image's
			break
		}
		if v, ok := lookup(text, path); ok && v[0] == '"' && path != "firmware.version" {
			return fmt.Appendf(nil, `{%q:%s}`, path, version)
		} else if ok && v[0] == '"' {
			break
		}
	}
	return fmt.Appendf(nil, `{"firmware":{"version":%s}}`, version)
}

// firmwareOf returns the firmware version that a document names.
func firmwareOf(reported string) (version string, ok bool) {
	for _, path := range []string{"firmware", "firmware.version", "fw_version"} {
		if v, ok := lookup(reported, path); ok && v[0] == '"' {
			return unquote(v), true
		}
	}
	return "", false
}
