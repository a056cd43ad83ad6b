package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"muster"
	"muster/firmware"
	"muster/firmware/image"
)

// maxFile bounds the files that are no images.
const maxFile = 256 << 10

// firmwareCmd is what is done to firmware: with secret keys without a server, for they never
// meet one, and the rest by the API.
type firmwareCmd struct {
	Keygen   firmwareKeygenCmd   `cmd:"" help:"Make a key that releases are signed with: FILE is the secret one, FILE.pub goes to the server."`
	Manifest firmwareManifestCmd `cmd:"" help:"Write the manifest of a release, unsigned."`
	Sign     firmwareSignCmd     `cmd:"" help:"Add a key's signature to a manifest."`
	Verify   firmwareVerifyCmd   `cmd:"" help:"Say whether a manifest has enough good signatures, and its images are the ones that it names."`
	Trust    firmwareTrustCmd    `cmd:"" help:"Have a server take releases that a public key signed."`
	Upload   firmwareUploadCmd   `cmd:"" help:"Upload an image to a server, or go on with an upload."`
	Uploads  firmwareUploadsCmd  `cmd:"" help:"List the uploads that are open on a server, or end one."`
	Release  firmwareReleaseCmd  `cmd:"" help:"Make a release of a manifest on a server, and print its id."`
	Publish  firmwarePublishCmd  `cmd:"" help:"Publish a release: it stays as it is from then on."`
	List     firmwareListCmd     `cmd:"" help:"List a server's releases, or its images."`
}

type firmwareKeygenCmd struct {
	File string `arg:"" help:"Where the secret key goes; it must not be there yet." placeholder:"FILE"`
}

// Run makes a key.
func (k *firmwareKeygenCmd) Run(c *console) error {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	private, err := firmware.PrivatePEM(key)
	if err != nil {
		return err
	}
	public, err := firmware.PublicPEM(pub)
	if err != nil {
		return err
	}
	if err := writeNew(k.File, private, 0o600); err != nil {
		return err
	}
	if err := writeNew(k.File+".pub", public, 0o644); err != nil {
		return err
	}
	c.printf("%s\n", firmware.KeyID(pub))
	c.tell("Keep %s where no server is. %s is for the server.\n", k.File, k.File+".pub")
	return nil
}

// writeNew writes a file that is not there yet, and makes it last.
func writeNew(path string, text []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if errors.Is(err, os.ErrExist) {
		return muster.Errorf(muster.Conflict, "%s is there already", path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

type firmwareManifestCmd struct {
	Product  string        `required:"" help:"Whose firmware it is: releases of one product replace each other." placeholder:"NAME"`
	Release  string        `name:"release-name" help:"A name for people." placeholder:"NAME"`
	Version  string        `name:"release-version" required:"" help:"Semantic version, such as 1.4.0." placeholder:"VERSION"`
	Security uint64        `name:"security-version" help:"Never below what a device has: what undoes a security fix is refused." placeholder:"N"`
	Type     string        `default:"app" help:"app, os, bootloader, model, ..." placeholder:"TYPE"`
	Hardware []string      `sep:"none" help:"Board, or board:revision,revision. Several times for several; all hardware when absent." placeholder:"BOARD"`
	MinFrom  string        `name:"min-from" help:"The least version that it replaces." placeholder:"VERSION"`
	Expires  time.Duration `help:"After which it is not offered any more; never when absent." placeholder:"8760h"`
	Raw      bool          `help:"An image that looks like one of a format and is damaged is raw data in truth; it is refused otherwise."`
	Out      string        `help:"Where the manifest goes; standard output when absent." placeholder:"FILE"`
	Images   []string      `arg:"" type:"existingfile" help:"The images of the release."`
}

// Run writes a manifest.
func (k *firmwareManifestCmd) Run(c *console) error {
	m := &firmware.Manifest{
		Schema: firmware.Schema, Product: k.Product, Release: k.Release, Version: k.Version, Security: k.Security, Type: k.Type,
		MinFrom: k.MinFrom, Created: time.Now().UTC().Truncate(time.Second),
	}
	if k.Expires > 0 {
		m.Expires = m.Created.Add(k.Expires).Truncate(time.Second)
	}
	for _, h := range k.Hardware {
		board, revisions, ok := strings.Cut(h, ":")
		hw := firmware.Hardware{Board: board}
		if ok {
			hw.Revisions = strings.Split(revisions, ",")
		}
		m.Hardware = append(m.Hardware, hw)
	}
	for _, path := range k.Images {
		f, err := k.lookAt(path)
		if err != nil {
			return err
		}
		m.Files = append(m.Files, f)
	}
	if err := m.Check(); err != nil {
		return err
	}
	text, err := new(firmware.Signed).Text(m)
	if err != nil {
		return err
	}
	if k.Out == "" {
		c.printf("%s", text)
		return nil
	}
	return writeNew(k.Out, text, 0o644)
}

// lookAt says what a manifest has of an image. One that is damaged is raw data, or an error.
func (k *firmwareManifestCmd) lookAt(path string) (firmware.File, error) {
	out, damage, err := lookAt(path)
	if err != nil || damage == "" {
		return out, err
	}
	if !k.Raw {
		return out, fmt.Errorf("%s is damaged: it is %s by its bytes, and %s; with --raw it is taken as raw data", path, out.Format, damage)
	}
	out.Format = image.Raw
	return out, nil
}

// lookAt says what a manifest has of an image, and what of the image does not hold.
func lookAt(path string) (out firmware.File, damage string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return out, "", fmt.Errorf("read the image: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return out, "", fmt.Errorf("read the image: %w", err)
	}
	info, err := image.Of(f, size)
	if err != nil {
		return out, "", fmt.Errorf("read the image: %w", err)
	}
	return firmware.File{Filename: filepath.Base(path), SHA256: hex.EncodeToString(h.Sum(nil)), Size: size, Format: info.Format}, info.Damage, nil
}

type firmwareSignCmd struct {
	Key  string `required:"" env:"-" type:"existingfile" help:"The secret key, as keygen made it." placeholder:"FILE"`
	File string `arg:"" type:"existingfile" help:"The manifest, to which the signature is added."`
}

// Run adds a signature.
func (k *firmwareSignCmd) Run(c *console) error {
	raw, err := readFile(k.Key)
	if err != nil {
		return err
	}
	key, err := firmware.ParsePrivate(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", k.Key, err)
	}
	signed, m, err := readSigned(k.File)
	if err != nil {
		return err
	}
	sig, err := firmware.Sign(key, m)
	if err != nil {
		return err
	}
	signed.Add(sig)
	text, err := signed.Text(m)
	if err != nil {
		return err
	}
	tmp := k.File + ".new"
	if err := writeNew(tmp, text, 0o644); err != nil {
		return err
	}
	if err := os.Rename(tmp, k.File); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", k.File, err), os.Remove(tmp))
	}
	c.printf("%s signed by %s: %d signatures\n", m.Version, sig.Key, len(signed.Signatures))
	return nil
}

func readSigned(path string) (*firmware.Signed, *firmware.Manifest, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	signed, m, err := firmware.ParseSigned(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return signed, m, nil
}

// readFile reads a small file.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read a file: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return text, nil
}

type firmwareVerifyCmd struct {
	Key       []string `required:"" env:"-" type:"existingfile" help:"Public keys that count." placeholder:"FILE"`
	Threshold int      `default:"1" help:"How many of them must have signed." placeholder:"N"`
	File      string   `arg:"" type:"existingfile" help:"The manifest."`
	Images    []string `arg:"" optional:"" type:"existingfile" help:"Images that must be ones that it names."`
}

// Run verifies a manifest, and images.
func (k *firmwareVerifyCmd) Run(c *console) error {
	signed, m, err := readSigned(k.File)
	if err != nil {
		return err
	}
	var keys []firmware.TrustedKey
	for _, path := range k.Key {
		raw, err := readFile(path)
		if err != nil {
			return err
		}
		pub, err := firmware.ParsePublic(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		keys = append(keys, firmware.TrustedKey{ID: firmware.KeyID(pub), Key: pub})
	}
	if err := firmware.Verify(m, signed.Signatures, keys, k.Threshold, time.Now()); err != nil {
		return fmt.Errorf("%s: %w", k.File, err)
	}
	for _, path := range k.Images {
		f, _, err := lookAt(path)
		if err != nil {
			return err
		}
		if !names(m, f) {
			return muster.Errorf(muster.Invalid, "%s is none of the manifest's images", path)
		}
	}
	c.printf("%s %s is signed, and its %d images are right\n", m.Product, m.Version, len(k.Images))
	return nil
}

func names(m *firmware.Manifest, f firmware.File) bool {
	for _, known := range m.Files {
		if known.SHA256 == f.SHA256 && known.Size == f.Size {
			return true
		}
	}
	return false
}
