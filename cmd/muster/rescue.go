package main

import (
	"context"
	"os/user"
	"time"

	"muster/server"
)

// rescueTime bounds the rescue: it reads all accounts and writes one.
const rescueTime = 2 * time.Minute

// userRescue is muster user rescue.
type userRescue struct {
	Email             string `arg:"" help:"E-mail of the user; he is made when there is none."`
	Data              string `default:"./muster-data" help:"Directory of everything the server keeps." placeholder:"DIR"`
	Database          string `help:"postgres://... as the server has it; SQLite in the data directory when empty." placeholder:"URL"`
	PublicURL         string `name:"public-url" default:"http://localhost:8080" help:"How browsers reach the dashboard, for the link." placeholder:"URL"`
	ClearSecondFactor bool   `help:"Ask no code of him from now on, when the device with it is lost."`
}

// Run lets somebody in again. The link alone goes to standard output.
func (u *userRescue) Run(ctx context.Context, c *console) error {
	ctx, cancel := context.WithTimeout(ctx, rescueTime)
	defer cancel()
	got, err := server.Rescue(ctx, server.RescueConfig{
		DataDir: u.Data, DatabaseURL: u.Database, PublicURL: u.PublicURL, Email: u.Email, DropSecondFactor: u.ClearSecondFactor,
		By: "muster user rescue" + by(), Now: time.Now,
	})
	if err != nil {
		return err //nolint:wrapcheck // it is a sentence
	}
	did := "is an enabled admin now"
	if got.Made {
		did = "was made, an admin"
	}
	c.tell("%s %s. Start the server and open this link before %s:\n", got.User.Email, did, got.Expires.Time().UTC().Format(time.RFC3339))
	if got.User.SecondFactor {
		c.tell("(A code of his second factor will be asked for; --clear-second-factor removes it.)\n")
	}
	c.printf("%s\n", got.Link)
	return nil
}

// by is the account of the machine that runs the command, as far as it is known.
func by() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return " by " + u.Username
}
