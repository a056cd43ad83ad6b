package main

import (
	"context"
	"encoding/json"
	"time"

	"muster"
	"muster/client"
)

// deviceCmd is muster device.
type deviceCmd struct {
	List   deviceList   `cmd:"" help:"List devices that match a query."`
	Get    deviceGet    `cmd:"" help:"Show a device."`
	Create deviceCreate `cmd:"" help:"Make a device and print its credential, this once."`
	Delete deviceDelete `cmd:"" help:"Delete a device."`
	Send   deviceSend   `cmd:"" help:"Send a device a command."`
}

type deviceList struct {
	remote
	Query string `arg:"" optional:"" help:"Such as group:cold-chain status!=online v.battery<15; all when absent."`
	Sort  string `help:"id, name, seen, v.KEY and others, with a - for the largest first." placeholder:"BY"`
	Limit int64  `default:"100" help:"The most devices, up to 100,000."`
}

// maxListed is the most devices that one verb lists.
const maxListed = 100_000

// Run lists devices, page by page.
func (d *deviceList) Run(ctx context.Context, c *console) error {
	api, err := d.open()
	if err != nil {
		return err
	}
	if d.Limit < 1 || d.Limit > maxListed {
		return muster.Errorf(muster.Invalid, "--limit is 1 to %d", maxListed)
	}
	q := client.ListDevicesParams{Q: d.Query, Sort: d.Sort}
	found, err := pages(d.Limit, func(limit int64, cursor string) ([]client.Device, *string, error) {
		q.Limit, q.Cursor = limit, cursor
		page, err := api.ListDevices(ctx, &q)
		if err != nil {
			return nil, nil, err
		}
		return page.Items, page.Next, nil
	})
	if err != nil {
		return d.refused(err)
	}
	return d.print(c, found, func(row func(...any)) {
		row("ID", "NAME", "STATE", "LAST SEEN", "PROFILE")
		for i := range found {
			row(found[i].ID, found[i].Name, found[i].Presence.State, found[i].Presence.LastSeen, found[i].Profile)
		}
	})
}

type deviceGet struct {
	remote
	ID string `arg:"" help:"The device's id."`
}

// Run shows a device.
func (d *deviceGet) Run(ctx context.Context, c *console) error {
	api, err := d.open()
	if err != nil {
		return err
	}
	x, err := api.GetDevice(ctx, d.ID)
	if err != nil {
		return d.refused(err)
	}
	return d.print(c, x, func(row func(...any)) {
		row("ID", x.ID)
		row("NAME", x.Name)
		row("PROFILE", x.Profile)
		row("PARENT", x.Parent)
		row("GROUPS", x.Groups)
		row("STATE", x.Presence.State)
		row("LAST SEEN", x.Presence.LastSeen)
		row("CREATED", x.CreatedAt)
	})
}

type deviceCreate struct {
	remote
	ID      string            `arg:"" help:"Its id: letters, digits and . _ : -, at most 128."`
	Name    string            `help:"For people."`
	Profile string            `help:"Name of a profile that exists."`
	Parent  string            `help:"Id of the gateway it belongs to."`
	Tags    map[string]string `help:"Such as site=berlin;hall=3." placeholder:"KEY=VALUE;..."`
}

// Run makes a device.
func (d *deviceCreate) Run(ctx context.Context, c *console) error {
	api, err := d.open()
	if err != nil {
		return err
	}
	made, err := api.CreateDevice(ctx, &client.NewDevice{ID: d.ID, Name: given(d.Name), Profile: given(d.Profile), Parent: given(d.Parent), Tags: d.Tags}, nil)
	if err != nil {
		return d.refused(err)
	}
	return d.print(c, made, func(row func(...any)) {
		row("ID", made.Device.ID)
		row("TOKEN", tokenOf(made.Credential))
	})
}

type deviceDelete struct {
	remote
	ID   string `arg:"" help:"The device's id."`
	Data string `enum:"keep,delete" required:"" help:"What becomes of its telemetry: keep or delete."`
}

// Run deletes a device.
func (d *deviceDelete) Run(ctx context.Context, c *console) error {
	api, err := d.open()
	if err != nil {
		return err
	}
	_, err = api.DeleteDevice(ctx, d.ID, &client.DeleteDeviceParams{Data: d.Data})
	return d.done(c, err, "deleted "+d.ID)
}

type deviceSend struct {
	remote
	ID     string        `arg:"" help:"The device's id."`
	Method string        `arg:"" help:"What to do, as the device calls it."`
	Params string        `arg:"" optional:"" help:"JSON."`
	TTL    time.Duration `name:"ttl" help:"How long it waits for the device; a day when absent." placeholder:"DURATION"`
	Wait   time.Duration `help:"How long to wait for the end, at most 60s." placeholder:"DURATION"`
}

// Run sends a command. It fails when the command has ended and did not succeed.
func (d *deviceSend) Run(ctx context.Context, c *console) error {
	api, err := d.open()
	if err != nil {
		return err
	}
	body := &client.NewCommand{Method: d.Method}
	if d.Params != "" {
		if !json.Valid([]byte(d.Params)) {
			return muster.Errorf(muster.Invalid, "the params are not JSON")
		}
		var params any = json.RawMessage(d.Params)
		body.Params = params
	}
	if d.TTL > 0 {
		s := int64(d.TTL / time.Second)
		body.TTLS = &s
	}
	p := client.SendCommandParams{}
	if d.Wait > 0 {
		p.Wait = d.Wait.String()
	}
	sent, err := api.SendCommand(ctx, d.ID, body, &p)
	if err != nil {
		return d.refused(err)
	}
	if err := d.print(c, sent, func(row func(...any)) {
		row("ID", sent.ID)
		row("STATE", sent.State)
	}); err != nil {
		return err
	}
	switch sent.State {
	case "failed", "expired", "cancelled":
		return muster.Errorf(muster.Conflict, "the command is %s", sent.State)
	default:
		return nil
	}
}
