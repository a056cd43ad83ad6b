package main

import (
	"strings"

	"github.com/alecthomas/kong"
)

// environment has each flag that names no variable of its own be given by PREFIX_NAME: its name in
// capitals, with _ for -. Kong's own rule takes digits apart: --firmware-s3 would be MUSTER_FIRMWARE_S_3.
func environment(prefix string) kong.Option {
	name := strings.NewReplacer("-", "_", ".", "_")
	var each func(n *kong.Node)
	each = func(n *kong.Node) {
		for _, f := range n.Flags {
			switch {
			case len(f.Envs) == 1 && f.Envs[0] == "-": // it is given by none
				f.Envs, f.Tag.Envs = nil, nil
				continue
			case f.Name == "help" || len(f.Envs) > 0:
				continue
			}
			f.Envs = []string{prefix + "_" + strings.ToUpper(name.Replace(f.Name))}
			f.Tag.Envs = f.Envs
		}
		for _, c := range n.Children {
			each(c)
		}
	}
	return kong.PostBuild(func(k *kong.Kong) error {
		each(k.Model.Node)
		return nil
	})
}
