package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const repository = "../.."

// testsOf returns the text of all tests.
func testsOf(t *testing.T) string {
	t.Helper()
	var tests strings.Builder
	err := filepath.WalkDir(repository, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		tests.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests.String()
}

// wantTests checks that each test that a page names is there, and returns the page.
func wantTests(t *testing.T, page string, least int) string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(repository, "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	tests := testsOf(t)
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(doc), -1)
	if len(named) < least {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, n := range named {
		if !strings.Contains(tests, "func "+n[1]+"(t *testing.T)") {
			t.Errorf("there is no %s", n[1])
		}
	}
	return string(doc)
}

func TestEveryTestThatSecurityNamesExists(t *testing.T) { wantTests(t, "security.md", 20) }

// A guarding line is named by its file and its function.
func TestEveryTestAndFunctionThatTheProofOfNotificationsNamesExists(t *testing.T) {
	wantGuards(t, wantTests(t, "notifications-proof.md", 60), 60)
}

func TestEveryTestAndFunctionThatTheProofOfFirmwareNamesExists(t *testing.T) {
	wantGuards(t, wantTests(t, "firmware-proof.md", 60), 20)
}

// wantGuards checks that each function that a page names as a guard is there.
func wantGuards(t *testing.T, doc string, least int) {
	t.Helper()
	guards := regexp.MustCompile("`([a-z0-9/_]+\\.go):([A-Za-z0-9_.]+)`").FindAllStringSubmatch(doc, -1)
	if len(guards) < least {
		t.Errorf("only %d guarding lines are named", len(guards))
	}
	functions := map[string]map[string]bool{}
	for _, g := range guards {
		file, name := g[1], g[2]
		if functions[file] == nil {
			functions[file] = functionsOf(t, file)
		}
		if !functions[file][name] {
			t.Errorf("there is no %s in %s", name, file)
		}
	}
}

// functionsOf returns the functions of a file, methods as "type.method".
func functionsOf(t *testing.T, path string) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(repository, path), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := fn.Name.Name
		if fn.Recv != nil {
			of := fn.Recv.List[0].Type
			if star, ok := of.(*ast.StarExpr); ok {
				of = star.X
			}
			if id, ok := of.(*ast.Ident); ok {
				name = id.Name + "." + name
			}
		}
		out[name] = true
	}
	return out
}
