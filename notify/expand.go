package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	"muster"
)

// maxExpanded is how much a template may make, in bytes.
const maxExpanded = 64 << 10

// errTooLong ends a template that makes too much.
var errTooLong = errors.New("the template makes more than is allowed")

// bounded is a buffer that ends who writes too much.
type bounded struct {
	bytes.Buffer
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.limit {
		return 0, errTooLong
	}
	return b.Buffer.Write(p)
}

// expand runs a template over data.
func expand(name, text string, data any) (string, error) {
	t, err := parseTemplate(name, text)
	if err != nil {
		return "", err
	}
	out := bounded{limit: maxExpanded}
	if err := t.Execute(&out, data); err != nil {
		return "", muster.Errorf(muster.Invalid, "the template %s does not work: %w", name, err)
	}
	return out.String(), nil
}

// parseTemplate takes templates that end soon whatever they are about: fields, conditions
// and a few functions. Loops, variables, printf and templates within templates could make
// a server busy, or full, for good.
func parseTemplate(name, text string) (*template.Template, error) {
	t, err := template.New(name).Option("missingkey=zero").Funcs(template.FuncMap{
		"json": toJSON, "upper": strings.ToUpper, "lower": strings.ToLower,
	}).Parse(text)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "the template %s is not understood: %w", name, err)
	}
	if len(t.Templates()) > 1 {
		return nil, muster.Errorf(muster.Invalid, "the template %s has templates within it", name)
	}
	if t.Tree == nil { // it is empty
		return t, nil
	}
	if err := checkNode(t.Root, 0); err != nil {
		return nil, muster.Errorf(muster.Invalid, "the template %s %w", name, err)
	}
	return t, nil
}

func toJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write JSON: %w", err)
	}
	return string(b), nil
}

const maxDepth = 50 // of conditions and parentheses within each other

// allowed are the functions that templates may call.
func allowed(name string) bool {
	return slices.Contains([]string{"and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "index", "len", "json", "upper", "lower"}, name)
}

// checkNode returns what of a template is not allowed.
func checkNode(node parse.Node, depth int) error {
	if depth > maxDepth {
		return errors.New("has too much within each other")
	}
	switch n := node.(type) {
	case *parse.ListNode:
		return checkList(n, depth)
	case *parse.ActionNode:
		return checkNode(n.Pipe, depth+1)
	case *parse.IfNode:
		return checkBranch(&n.BranchNode, depth)
	case *parse.WithNode:
		return checkBranch(&n.BranchNode, depth)
	case *parse.PipeNode:
		return checkPipe(n, depth)
	case *parse.IdentifierNode:
		if !allowed(n.Ident) {
			return fmt.Errorf("calls %.40q, which is not allowed", n.Ident)
		}
		return nil
	case *parse.ChainNode:
		return checkNode(n.Node, depth+1)
	case *parse.TextNode, *parse.CommentNode, *parse.FieldNode, *parse.DotNode, *parse.NilNode, *parse.StringNode, *parse.NumberNode, *parse.BoolNode:
		return nil
	}
	return fmt.Errorf("has %.40q, which is not allowed: only fields, if, with and functions are", node.String())
}

func checkList(n *parse.ListNode, depth int) error {
	if n == nil { // no else
		return nil
	}
	for _, c := range n.Nodes {
		if err := checkNode(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func checkBranch(n *parse.BranchNode, depth int) error {
	if err := checkNode(n.Pipe, depth+1); err != nil {
		return err
	}
	if err := checkList(n.List, depth); err != nil {
		return err
	}
	return checkList(n.ElseList, depth)
}

func checkPipe(n *parse.PipeNode, depth int) error {
	if len(n.Decl) > 0 {
		return errors.New("has variables, which are not allowed")
	}
	for _, c := range n.Cmds {
		for _, arg := range c.Args {
			if err := checkNode(arg, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
