package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // quiet hours and windows need zones on hosts that have none

	"github.com/alecthomas/kong"

	"muster"
)

// version is set by the build: -ldflags "-X main.version=...".
var version = "dev"

// cli is every flag and verb. A flag beats its MUSTER_ variable.
type cli struct {
	Serve    serveCmd    `cmd:"" default:"withargs" help:"Run the platform (the default)."`
	Sim      simCmd      `cmd:"" help:"Run N virtual devices over real MQTT."`
	Doctor   doctorCmd   `cmd:"" help:"Look at a server's data, stopped or running: the audit log, the database, the directory; exit code 0 means all is well."`
	Device   deviceCmd   `cmd:"" help:"List, show, make and delete a server's devices, and send them commands."`
	Key      keyCmd      `cmd:"" help:"List, make and revoke a server's API keys."`
	User     userCmd     `cmd:"" help:"List, invite and change a server's users, look after their sessions, and let a locked-out admin in again."`
	Firmware firmwareCmd `cmd:"" help:"Make keys, write, sign and verify manifests of firmware without a server; upload images to one, and make and publish releases."`
	Rollout  rolloutCmd  `cmd:"" help:"Bring a release to devices: make, start, watch, pause, resume and abort rollouts, and ask why a device does not get it."`
	Health   healthCmd   `cmd:"" help:"Ask a running server whether it is ready; exit code 0 means yes."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// console is where a verb prints.
type console struct{ out, err io.Writer }

// printf prints for a person: there is nobody to tell when that fails.
func (c *console) printf(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format, args...) }

// tell prints beside the output, for a person only.
func (c *console) tell(format string, args ...any) { _, _ = fmt.Fprintf(c.err, format, args...) }

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(c *console) error {
	c.printf("%s\n", version)
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], &console{os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// run parses args and runs their verb. Every failure is one sentence and exit
// code 1.
func run(ctx context.Context, args []string, c *console) int {
	var flags cli
	helped := false
	parser, err := kong.New(&flags, kong.Name("muster"), kong.Writers(c.out, c.err),
		kong.Description("IoT telemetry and device fleets in one binary."),
		environment("MUSTER"), kong.Configuration(loadConfig), kong.Exit(func(int) { helped = true }),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(c))
	if err == nil {
		var kctx *kong.Context
		kctx, err = parser.Parse(args)
		if helped {
			return 0
		}
		if err == nil {
			err = kctx.Run()
		}
	}
	if err != nil {
		_, _ = fmt.Fprintf(c.err, "muster: %s\n", sentence(err))
		return 1
	}
	return 0
}

// sentence is what a person is told of err.
func sentence(err error) string {
	if e, ok := errors.AsType[*muster.Error](err); ok && e.Kind != muster.Internal {
		return e.Msg
	}
	return err.Error()
}
