package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Check returns every breach of r in files as one line each, sorted, naming the
// file and the law.
func Check(files []File, r Rules) []string {
	found := slices.Concat(
		Floors(files, r),
		Homes(files, r),
		TestKit(files, r),
		PackageComments(files),
		Inits(files),
		Lengths(files, r),
	)
	slices.Sort(found)
	return slices.Compact(found)
}

// Floors reports packages on no floor, imports of the same or a higher floor, and
// imports that are closed to a floor. Tests may import what they like.
func Floors(files []File, r Rules) []string {
	var found []string
	for _, f := range files {
		from, ok := r.roomOf(f.Dir)
		if !ok {
			found = append(found, f.Dir+": this package is on no floor; give it one in internal/archtest/rules.go")
			continue
		}
		if f.Test {
			continue
		}
		for _, imp := range f.Imports {
			if why := r.breach(from, imp); why != "" {
				found = append(found, fmt.Sprintf("%s imports %s: %s", f.Path, imp, why))
			}
		}
	}
	return found
}

// breach returns why room from may not import imp, empty when it may.
func (r Rules) breach(from Room, imp string) string {
	dir, ours := strings.CutPrefix(imp+"/", Module+"/")
	if !ours {
		return r.closedTo(from, imp)
	}
	to, ok := r.roomOf(path.Clean(dir))
	switch {
	case !ok:
		return "that package is on no floor"
	case to == from || to.Floor < from.Floor:
		return ""
	case to.Floor > from.Floor:
		return fmt.Sprintf("%s is on floor %d, %s on floor %d; a room imports only lower floors", to.Dir, to.Floor, from.Dir, from.Floor)
	case slices.ContainsFunc(r.Beside, func(b Beside) bool { return b.From == from.Dir && b.To == to.Dir }):
		return ""
	default:
		return fmt.Sprintf("both are on floor %d, and no exception is listed", from.Floor)
	}
}

func (r Rules) closedTo(from Room, imp string) string {
	for _, c := range r.Closed {
		if c.Floor != from.Floor {
			continue
		}
		third := slices.Contains(c.Imports, "*") && !standard(imp)
		if third || slices.Contains(c.Imports, imp) {
			return fmt.Sprintf("closed to floor %d: %s", c.Floor, c.Reason)
		}
	}
	return ""
}

// standard says whether imp is the standard library's: the first element of any
// other import path has a dot.
func standard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}

func (r Rules) roomOf(dir string) (Room, bool) {
	best, ok := Room{}, false
	for _, room := range r.Rooms {
		if within(dir, room.Dir) && (!ok || len(room.Dir) > len(best.Dir)) {
			best, ok = room, true
		}
	}
	return best, ok
}

// within says whether the slash-separated path p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// Homes reports product code that imports a library outside its home.
func Homes(files []File, r Rules) []string {
	var found []string
	for _, f := range files {
		if f.Test || r.testOnly(f.Dir) {
			continue
		}
		for _, imp := range f.Imports {
			home, ok := r.homeOf(imp)
			if ok && !slices.ContainsFunc(home.Dirs, func(d string) bool { return within(f.Dir, d) }) {
				found = append(found, fmt.Sprintf("%s imports %s: its home is %s (%s)", f.Path, imp, strings.Join(home.Dirs, " and "), home.Reason))
			}
		}
	}
	return found
}

func (r Rules) homeOf(imp string) (Home, bool) {
	best, ok := Home{}, false
	for _, h := range r.Homes {
		if within(imp, h.Import) && (!ok || len(h.Import) > len(best.Import)) {
			best, ok = h, true
		}
	}
	return best, ok
}

// TestKit reports product code that imports test libraries, which would then be
// linked into the binary. Test kits, whose directory's name ends in "test", and
// what stands beside the product may.
func TestKit(files []File, r Rules) []string {
	var found []string
	for _, f := range files {
		if f.Test || r.testOnly(f.Dir) {
			continue
		}
		for _, imp := range f.Imports {
			if slices.ContainsFunc(r.TestKit, func(lib string) bool { return within(imp, lib) }) {
				found = append(found, fmt.Sprintf("%s imports %s: test libraries stay out of product code", f.Path, imp))
			}
		}
	}
	return found
}

// testOnly says whether dir holds nothing that is linked into the binary.
func (r Rules) testOnly(dir string) bool {
	room, ok := r.roomOf(dir)
	beside := ok && room.Floor == Top && room.Dir != "tools"
	return beside || strings.HasSuffix(path.Base(dir), "test")
}

// PackageComments reports packages without a package comment of the form
// "Package name ..." (any for main).
func PackageComments(files []File) []string {
	type state struct{ commented, product bool }
	dirs := map[string]state{}
	for _, f := range files {
		s := dirs[f.Dir]
		s.product = s.product || !f.Test
		name := strings.TrimSuffix(f.Package, "_test")
		if f.Doc != "" && (f.Package == "main" || strings.HasPrefix(f.Doc, "Package "+name+" ")) {
			s.commented = true
		}
		dirs[f.Dir] = s
	}
	var found []string
	for dir, s := range dirs {
		if s.product && !s.commented {
			found = append(found, dir+": no package comment; doc.go says what the package owns, who calls it and what it never does")
		}
	}
	slices.Sort(found)
	return found
}

// Inits reports init functions in product code: nothing happens before main.
func Inits(files []File) []string {
	var found []string
	for _, f := range files {
		for _, fn := range f.Funcs {
			if fn.Name == "init" && !f.Test && !f.Generated {
				found = append(found, f.Path+": has an init function; wire it in server or main")
			}
		}
	}
	return found
}

// Lengths reports files and functions over the limits that have no exception,
// and exceptions that nothing needs.
func Lengths(files []File, r Rules) []string {
	var found []string
	needed := map[string]bool{}
	over := func(name string, lines, limit int) {
		if lines <= limit {
			return
		}
		if slices.ContainsFunc(r.Long, func(e Exception) bool { return e.Name == name && e.Reason != "" }) {
			needed[name] = true
			return
		}
		found = append(found, fmt.Sprintf("%s: %d lines, at most %d are allowed", name, lines, limit))
	}
	for _, f := range files {
		if f.Generated {
			continue
		}
		limit := r.Sizes.TestFunc
		if !f.Test {
			limit = r.Sizes.Func
			over(f.Path, f.Lines, r.Sizes.File)
		}
		for _, fn := range f.Funcs {
			over(f.Path+" "+fn.Name, fn.Lines, limit)
		}
	}
	for _, e := range r.Long {
		if !needed[e.Name] {
			found = append(found, e.Name+": its exception from the length limits is not needed, or has no reason")
		}
	}
	return found
}
