package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"muster"
	"muster/server"
)

// doctorTime bounds a look at everything: an audit log of years is long.
const doctorTime = time.Hour

type doctorCmd struct {
	Data     string `default:"./muster-data" help:"Directory of everything Muster keeps." placeholder:"DIR"`
	Database string `help:"postgres://... as the server has it; SQLite in the data directory when empty." placeholder:"URL"`
	JSON     bool   `name:"json" help:"One JSON object a line."`
}

// Run looks at the data of a server, stopped or running, and fails when something is
// wrong.
func (d *doctorCmd) Run(ctx context.Context, c *console) error {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	wrong := 0
	server.Doctor(ctx, d.Data, d.Database, time.Now(), func(check server.Check) {
		if !check.OK {
			wrong++
		}
		d.print(c, check)
	})
	if wrong > 0 {
		return muster.Errorf(muster.Conflict, "%d of these need a person", wrong)
	}
	return nil
}

func (d *doctorCmd) print(c *console, check server.Check) {
	if d.JSON {
		line, err := json.Marshal(check)
		if err != nil { // two strings and a bool
			panic(fmt.Errorf("write a check: %w", err))
		}
		c.printf("%s\n", line)
		return
	}
	mark := "ok   "
	if !check.OK {
		mark = "WRONG"
	}
	c.printf("%s  %-14s  %s\n", mark, check.Name, check.Detail)
}
