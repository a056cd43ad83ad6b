package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"muster"
	"muster/client"
	"muster/firmware"
)

const (
	pieceBytes = 16 << 20         // of an image that one request carries
	pieceTime  = 10 * time.Minute // for one of them
	pieceTries = 5                // for an upload that goes no further
	pieceWait  = time.Second      // between two of them
)

type firmwareUploadCmd struct {
	remote
	File string `arg:"" type:"existingfile" help:"The image. An upload that broke off goes on where it was."`
	Name string `help:"What it is called there; the file's own name when absent." placeholder:"FILENAME"`
}

// Run uploads an image in pieces.
func (k *firmwareUploadCmd) Run(ctx context.Context, c *console) (err error) {
	api, err := k.openFor(pieceTime)
	if err != nil {
		return err
	}
	what, _, err := lookAt(k.File)
	if err != nil {
		return err
	}
	if k.Name != "" {
		what.Filename = k.Name
	}
	f, err := os.Open(k.File)
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	x, err := k.send(ctx, c, api, what, f)
	if err != nil {
		return err
	}
	return k.print(c, x, func(row func(...any)) {
		row("SHA256", x.Sha256)
		row("SIZE", x.Size)
		row("FORMAT", x.Image.Format)
		row("VERSION", x.Image.Version)
		row("DAMAGE", x.Image.Damage)
	})
}

// send begins an upload, or finds it again, and sends what is missing until all is there.
func (k *firmwareUploadCmd) send(ctx context.Context, c *console, api *client.Client, what firmware.File, f io.ReaderAt) (*client.FirmwareArtifact, error) {
	u, err := api.BeginUpload(ctx, &client.NewUpload{Sha256: what.SHA256, Size: what.Size, Filename: what.Filename}, nil)
	if err != nil {
		return nil, k.refused(err)
	}
	for tries := 0; u.Artifact == nil; {
		piece := io.NewSectionReader(f, u.Offset, min(pieceBytes, what.Size-u.Offset))
		next, err := api.AppendUpload(ctx, u.ID, "application/octet-stream", piece, &client.AppendUploadParams{UploadOffset: u.Offset})
		if err == nil {
			u, tries = next, 0
			c.tell("%d of %d bytes\n", u.Offset, what.Size)
			continue
		}
		if tries++; tries == pieceTries || !passes(err) {
			return nil, k.refused(err)
		}
		select {
		case <-ctx.Done():
			return nil, k.refused(err)
		case <-time.After(pieceWait):
		}
		// Where it goes on, or that it ended although nobody heard.
		if u, err = api.BeginUpload(ctx, &client.NewUpload{Sha256: what.SHA256, Size: what.Size, Filename: what.Filename}, nil); err != nil {
			return nil, k.refused(err)
		}
	}
	return u.Artifact, nil
}

type firmwareUploadsCmd struct {
	remote
	End string `name:"end" help:"End the upload with this SHA-256, and forget what came of it." placeholder:"SHA256"`
}

// Run lists the uploads that are open, the oldest first, or ends one.
func (k *firmwareUploadsCmd) Run(ctx context.Context, c *console) error {
	api, err := k.open()
	if err != nil {
		return err
	}
	if k.End != "" {
		return k.done(c, api.DeleteUpload(ctx, k.End, nil), "ended "+k.End)
	}
	found, err := api.ListUploads(ctx)
	if err != nil {
		return k.refused(err)
	}
	return k.print(c, found.Items, func(row func(...any)) {
		row("SHA256", "FILENAME", "OFFSET", "SIZE", "BY", "BEGAN")
		for i := range found.Items {
			u := &found.Items[i]
			row(u.Sha256, u.Filename, u.Offset, u.Size, u.CreatedBy, u.CreatedAt)
		}
	})
}

// passes says whether an upload that met err may go on: the line was cut, or the server asks
// to come again.
func passes(err error) bool {
	p, answered := errors.AsType[*client.Problem](err)
	if !answered {
		return true
	}
	switch p.Status {
	case http.StatusConflict, http.StatusNotFound, http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusRequestTimeout:
		return true
	}
	return false
}

type firmwareTrustCmd struct {
	remote
	File string `arg:"" type:"existingfile" help:"The public key, FILE.pub as keygen made it."`
	Name string `required:"" help:"Whose it is." placeholder:"NAME"`
}

// Run has the server trust a public key.
func (k *firmwareTrustCmd) Run(ctx context.Context, c *console) error {
	api, err := k.open()
	if err != nil {
		return err
	}
	text, err := readFile(k.File)
	if err != nil {
		return err
	}
	if _, err := firmware.ParsePublic(text); err != nil { // a secret key is not to leave this machine
		return fmt.Errorf("%s: %w", k.File, err)
	}
	added, err := api.AddSigningKey(ctx, &client.NewFirmwareKey{Name: k.Name, Pem: string(text)}, nil)
	if err != nil {
		return k.refused(err)
	}
	return k.print(c, added, func(row func(...any)) { row(added.ID) })
}

type firmwareReleaseCmd struct {
	remote
	File    string `arg:"" type:"existingfile" help:"The manifest, signed or not yet."`
	Channel string `help:"Such as stable or beta." placeholder:"NAME"`
	Notes   string `help:"For people."`
	Publish bool   `help:"Publish it at once."`
}

// Run makes a release of a manifest. Its id alone goes to standard output, so that a script can
// take it.
func (k *firmwareReleaseCmd) Run(ctx context.Context, c *console) error {
	api, err := k.open()
	if err != nil {
		return err
	}
	signed, m, err := readSigned(k.File)
	if err != nil {
		return err
	}
	body := &client.NewRelease{Manifest: m, Channel: given(k.Channel), Notes: given(k.Notes)}
	for _, s := range signed.Signatures {
		body.Signatures = append(body.Signatures, client.FirmwareSignature(s))
	}
	made, err := api.CreateRelease(ctx, body, nil)
	if err != nil {
		return k.refused(err)
	}
	if k.Publish {
		id := made.ID
		if made, err = api.PublishRelease(ctx, id, nil); err != nil {
			return muster.Errorf(muster.Invalid, "the draft %s is made, and not published: %w", id, k.refused(err))
		}
	}
	return k.print(c, made, func(row func(...any)) { row(made.ID) })
}

type firmwarePublishCmd struct {
	remote
	ID string `arg:"" help:"The draft's id, rel_..."`
}

// Run publishes a draft.
func (k *firmwarePublishCmd) Run(ctx context.Context, c *console) error {
	api, err := k.open()
	if err != nil {
		return err
	}
	_, err = api.PublishRelease(ctx, k.ID, nil)
	return k.done(c, err, "published "+k.ID)
}

type firmwareListCmd struct {
	remote
	Product string `help:"Only releases of this product." placeholder:"NAME"`
	State   string `enum:",draft,published,deprecated,revoked" default:"" help:"Only those in this state." placeholder:"STATE"`
	Images  bool   `help:"List images instead."`
	Limit   int64  `default:"100" help:"The most, up to 100,000."`
}

// Run lists releases or images, the newest first.
func (k *firmwareListCmd) Run(ctx context.Context, c *console) error {
	api, err := k.open()
	if err != nil {
		return err
	}
	if k.Limit < 1 || k.Limit > maxListed {
		return muster.Errorf(muster.Invalid, "--limit is 1 to %d", maxListed)
	}
	if k.Images {
		return k.images(ctx, c, api)
	}
	q := client.ListReleasesParams{Product: k.Product, State: k.State}
	found, err := pages(k.Limit, func(limit int64, cursor string) ([]client.FirmwareRelease, *string, error) {
		q.Limit, q.Cursor = limit, cursor
		page, err := api.ListReleases(ctx, &q)
		if err != nil {
			return nil, nil, err
		}
		return page.Items, page.Next, nil
	})
	if err != nil {
		return k.refused(err)
	}
	return k.print(c, found, func(row func(...any)) {
		row("ID", "PRODUCT", "VERSION", "STATE", "CHANNEL", "SIGNED", "PROBLEM")
		for i := range found {
			r := &found[i]
			row(r.ID, r.Product, r.Version, r.State, r.Channel, len(r.Signatures), r.Problem)
		}
	})
}

func (k *firmwareListCmd) images(ctx context.Context, c *console, api *client.Client) error {
	q := client.ListArtifactsParams{}
	found, err := pages(k.Limit, func(limit int64, cursor string) ([]client.FirmwareArtifact, *string, error) {
		q.Limit, q.Cursor = limit, cursor
		page, err := api.ListArtifacts(ctx, &q)
		if err != nil {
			return nil, nil, err
		}
		return page.Items, page.Next, nil
	})
	if err != nil {
		return k.refused(err)
	}
	return k.print(c, found, func(row func(...any)) {
		row("SHA256", "FILENAME", "SIZE", "FORMAT", "VERSION")
		for i := range found {
			x := &found[i]
			row(x.Sha256, x.Filename, x.Size, x.Image.Format, x.Image.Version)
		}
	})
}
