package archtest

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Module is the module path that makes an import one of ours.
const Module = "muster"

// File is one Go source file.
type File struct {
	Path      string // slash-separated, from the repository's root
	Dir       string // "." for the root
	Package   string // as its package clause says
	Doc       string // the package comment, if this file has it
	Test      bool   // the name ends in _test.go
	Generated bool   // marked as generated, as the go command understands it
	Lines     int
	Imports   []string
	Funcs     []Func
}

// Func is one function or method declaration.
type Func struct {
	Name  string // "Type.Method" for methods
	Lines int    // from func to the closing brace
}

// Load parses every Go file under fsys. Directories that the go command skips
// (testdata, vendor, and those that begin with . or _) are left out.
func Load(fsys fs.FS) ([]File, error) {
	var files []File
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && errors.Is(err, fs.ErrNotExist) && p != ".":
			return nil // another process removed a file meanwhile
		case err != nil:
			return err
		case d.IsDir() && p != "." && skipDir(d.Name()):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(p, ".go"):
			return nil
		}
		f, err := parse(fsys, p)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the source tree: %w", err)
	}
	return files, nil
}

func skipDir(name string) bool {
	switch name {
	case "testdata", "vendor", "node_modules":
		return true
	}
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
}

func parse(fsys fs.FS, p string) (File, error) {
	src, err := fs.ReadFile(fsys, p)
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", p, err)
	}
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, p, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return File{}, fmt.Errorf("parse %s: %w", p, err)
	}
	f := File{
		Path: p, Dir: path.Dir(p), Package: tree.Name.Name, Doc: tree.Doc.Text(),
		Test: strings.HasSuffix(p, "_test.go"), Generated: ast.IsGenerated(tree),
		Lines: set.File(tree.Pos()).LineCount(),
	}
	for _, i := range tree.Imports {
		to, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return File{}, fmt.Errorf("parse %s: import %s: %w", p, i.Path.Value, err)
		}
		f.Imports = append(f.Imports, to)
	}
	for _, d := range tree.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			lines := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line + 1
			f.Funcs = append(f.Funcs, Func{Name: funcName(fn), Lines: lines})
		}
	}
	return f, nil
}

func funcName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	t := fn.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name + "." + fn.Name.Name
		default:
			return fn.Name.Name
		}
	}
}
