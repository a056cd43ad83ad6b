package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"muster"
	"muster/server"
)

// doctorTime bounds a look at everything: an audit log of years is long, and images are many.
const doctorTime = 24 * time.Hour

type doctorCmd struct {
	Data     string `default:"./muster-data" help:"Directory of everything Muster keeps." placeholder:"DIR"`
	Database string `help:"postgres://... as the server has it; SQLite in the data directory when empty." placeholder:"URL"`
	JSON     bool   `name:"json" help:"One JSON object a line."`
	NoImages bool   `name:"no-images" help:"Do not read the images of firmware, which takes as long as reading all of them."`

	FWS3       string `name:"firmware-s3" help:"Object store of images, as the server has it." placeholder:"URL"`
	FWS3Access string `name:"firmware-s3-access-key" env:"MUSTER_FIRMWARE_S3_ACCESS_KEY" help:"Its access key. Better given by environment." placeholder:"KEY"`
	FWS3Secret string `name:"firmware-s3-secret-key" env:"MUSTER_FIRMWARE_S3_SECRET_KEY" help:"Its secret key. Better given by environment." placeholder:"KEY"`
	FWS3Keys   string `name:"firmware-s3-keys" help:"File with both, a line each, in the place of the environment." placeholder:"FILE"`
}

// Run looks at the data of a server, stopped or running, and fails when something is
// wrong.
func (d *doctorCmd) Run(ctx context.Context, c *console) error {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	wrong := 0
	look := server.Images{
		Skip: d.NoImages, S3: d.FWS3, S3Keys: server.S3Keys{Access: d.FWS3Access, Secret: d.FWS3Secret, File: d.FWS3Keys},
		Progress: func(read, all int64) { c.tell("images: %d of %d MiB\n", read>>20, all>>20) },
	}
	server.Doctor(ctx, d.Data, d.Database, time.Now(), look, func(check server.Check) {
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
