package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"
)

const (
	ddiTenant   = "default"
	pollMost    = 5 * time.Second // between two polls: a fleet that is watched is to show life
	ddiTime     = 30 * time.Second
	maxDDI      = 1 << 20 // bytes of an answer that is no image
	mostOwed    = 16      // feedbacks that a server which is away did not take
	ddiFinished = "closed"
)

// errRefused is an answer that the same request would get again.
var errRefused = errors.New("the server refuses it")

// ddiDevice is the part of a virtual device that installs firmware as hawkBit's clients do: it
// polls, fetches by HTTP, and says what becomes of it. Its one goroutine owns everything in it.
type ddiDevice struct {
	fleet   *fleet
	index   int
	fates   *rand.Rand // asked once for each update, so that the seed alone decides
	version string     // that it runs
	done    string     // the action that it has dealt with last
	owed    []feedback // what it has still to say
	tells   bool       // its attributes, unasked: it has restarted
}

// feedback is what a device says of an action.
type feedback struct {
	path   string
	closed bool
	failed bool
	detail string
}

type ddiLink struct {
	Href string `json:"href"`
}

// ddiBase is what of the answer to a poll a virtual device looks at.
type ddiBase struct {
	Config struct {
		Polling struct {
			Sleep string `json:"sleep"`
		} `json:"polling"`
	} `json:"config"`
	Links map[string]ddiLink `json:"_links"`
}

// ddiDeployment is what of a deployment a virtual device looks at.
type ddiDeployment struct {
	ID         string `json:"id"`
	Deployment struct {
		Download string `json:"download"`
		Update   string `json:"update"`
		Chunks   []struct {
			Version   string `json:"version"`
			Artifacts []struct {
				Size   int64 `json:"size"`
				Hashes struct {
					SHA256 string `json:"sha256"`
				} `json:"hashes"`
				Links map[string]ddiLink `json:"_links"`
			} `json:"artifacts"`
		} `json:"chunks"`
	} `json:"deployment"`
}

func newDDIDevice(f *fleet, i int) *ddiDevice {
	return &ddiDevice{fleet: f, index: i, fates: rand.New(rand.NewPCG(f.cfg.Seed, ^uint64(i))), version: firstVersion}
}

// run polls until ctx ends.
func (d *ddiDevice) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		wait, err := d.poll(ctx)
		switch {
		case ctx.Err() != nil: // a poll that was cut off has no wait
			return
		case err != nil:
			d.fleet.counters.failed(d.index, err)
			wait = min(backoffFirst<<min(failures, 10), pollMost)
		default:
			failures = 0
		}
		if !sleepUntil(ctx, time.Now().Add(wait/2+rand.N(wait))) {
			return
		}
	}
}

// poll says what is owed, asks what there is to do, and does it.
func (d *ddiDevice) poll(ctx context.Context) (wait time.Duration, err error) {
	if err := d.settle(ctx); err != nil {
		return 0, err
	}
	var base ddiBase
	if err := d.get(ctx, d.root(), &base); err != nil {
		return 0, err
	}
	if l, ok := base.Links["configData"]; ok || d.tells {
		if !ok {
			l.Href = d.root() + "/configData"
		}
		if err := d.send(ctx, http.MethodPut, l.Href, map[string]any{"mode": "merge", "data": map[string]string{"fw": d.version}}); err != nil {
			return 0, err
		}
		d.tells = false
	}
	if l, ok := base.Links["cancelAction"]; ok {
		d.owe(feedback{path: l.Href + "/feedback", closed: true, detail: "left it"})
	}
	if l, ok := base.Links["deploymentBase"]; ok {
		if err := d.deploy(ctx, l.Href); err != nil {
			return 0, err
		}
	}
	return sleepOf(base.Config.Polling.Sleep), d.settle(ctx)
}

// sleepOf reads HH:MM:SS.
func sleepOf(text string) time.Duration {
	var h, m, s int
	if n, err := fmt.Sscanf(text, "%d:%d:%d", &h, &m, &s); n != 3 || err != nil {
		return pollMost
	}
	return max(100*time.Millisecond, min(pollMost, time.Duration(h*3600+m*60+s)*time.Second))
}

// deploy installs what it has not dealt with yet.
func (d *ddiDevice) deploy(ctx context.Context, href string) error {
	var dep ddiDeployment
	if err := d.get(ctx, href, &dep); err != nil {
		return err
	}
	p := &dep.Deployment
	if dep.ID == d.done || p.Download == "skip" || p.Update == "skip" {
		return nil
	}
	if len(p.Chunks) == 0 || len(p.Chunks[0].Artifacts) == 0 {
		return fmt.Errorf("a deployment without images: %w", errProtocol)
	}
	path := d.root() + "/deploymentBase/" + dep.ID + "/feedback"
	a := &p.Chunks[0].Artifacts[0]
	if p.Chunks[0].Version != d.version {
		sum, err := d.fetch(ctx, a.Links["download-http"].Href, a.Size)
		if err != nil {
			return err
		}
		if sum != a.Hashes.SHA256 {
			d.done = dep.ID
			d.owe(feedback{path: path, closed: true, failed: true, detail: "the image is not the one that was offered"})
			return nil
		}
	}
	d.done = dep.ID
	return d.install(ctx, path, p.Chunks[0].Version)
}

// install does with the image what the dice say.
func (d *ddiDevice) install(ctx context.Context, path, version string) error {
	d.owe(feedback{path: path, detail: "installing"})
	if err := d.settle(ctx); err != nil && !errors.Is(err, errAway) {
		return err
	}
	end := fine
	if version != d.version {
		end = drawFate(d.fates, d.fleet.cfg.FirmwareFailures)
	}
	switch end {
	case says:
		d.owe(feedback{path: path, closed: true, failed: true, detail: "the flash cannot be written"})
		return nil
	case dies:
		return nil
	case fine:
		d.version = version
	case returns:
	}
	d.tells = true
	d.owe(feedback{path: path, closed: true, detail: "installed"})
	sleepUntil(ctx, time.Now().Add(restartTime))
	return nil
}

func (d *ddiDevice) owe(f feedback) {
	if len(d.owed) < mostOwed {
		d.owed = append(d.owed, f)
	}
}

// settle says what is owed, in its order. What the server refuses is about something else by now.
func (d *ddiDevice) settle(ctx context.Context) error {
	for len(d.owed) > 0 {
		f := d.owed[0]
		execution, finished := "proceeding", "none"
		if f.closed {
			execution, finished = ddiFinished, "success"
		}
		if f.failed {
			finished = "failure"
		}
		err := d.send(ctx, http.MethodPost, f.path, map[string]any{
			"status": map[string]any{"execution": execution, "result": map[string]string{"finished": finished}, "details": []string{f.detail}},
		})
		if err != nil && !errors.Is(err, errRefused) {
			return err
		}
		d.owed = d.owed[1:]
	}
	return nil
}

func (d *ddiDevice) root() string {
	return d.fleet.cfg.FirmwareHTTP + "/" + ddiTenant + "/controller/v1/" + string(d.fleet.cfg.ID(d.index))
}

// errAway is a server that cannot be asked, or cannot answer, now.
var errAway = errors.New("the server does not answer")

// do sends a request; its answer is a success, and is to be closed.
func (d *ddiDevice) do(ctx context.Context, method, href string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, href, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	user, _ := d.fleet.cfg.Credentials(d.index)
	req.Header.Set("Authorization", "TargetToken "+user)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := d.fleet.web.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s by DDI: %w: %w", method, errAway, err)
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	_ = res.Body.Close() // its status says it
	if res.StatusCode/100 == 4 && res.StatusCode != http.StatusTooManyRequests {
		return nil, fmt.Errorf("%s by DDI: %s: %w", method, res.Status, errRefused)
	}
	return nil, fmt.Errorf("%s by DDI: %s: %w", method, res.Status, errAway)
}

func (d *ddiDevice) get(ctx context.Context, href string, to any) error {
	ctx, cancel := context.WithTimeout(ctx, ddiTime)
	defer cancel()
	res, err := d.do(ctx, http.MethodGet, href, nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	if err := json.NewDecoder(io.LimitReader(res.Body, maxDDI)).Decode(to); err != nil {
		return fmt.Errorf("read an answer by DDI: %w", err)
	}
	return nil
}

func (d *ddiDevice) send(ctx context.Context, method, href string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, ddiTime)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode for DDI: %w", err)
	}
	res, err := d.do(ctx, method, href, text)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxDDI)) // so that the connection is used again
	return errors.Join(err, res.Body.Close())
}

// fetch returns the digest of an image.
func (d *ddiDevice) fetch(ctx context.Context, href string, size int64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	res, err := d.do(ctx, http.MethodGet, href, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(res.Body, size+1))
	if err != nil || n < size {
		return "", fmt.Errorf("read an image: %d of %d bytes: %w", n, size, errors.Join(errAway, err))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
