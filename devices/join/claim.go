package join

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"
	"time"

	"muster"
	"muster/audit"
	"muster/devices"
)

const (
	// MaxClaimCodes is the most claim codes at once. With so many, 20 wrong tries in each
	// minute by everybody together hit one in ten years (10,000 of 2^40).
	MaxClaimCodes = 10_000
	// MaxClaimTime is how long a claim code may be good.
	MaxClaimTime = 366 * 24 * time.Hour
	// OwnerTag is the tag that has the name of who claimed a device.
	OwnerTag = "owner"

	codeLength = 8 // characters of codeAlphabet, 5 bits each
	// codeAlphabet has no I, O, 0 and 1, which are taken for one another.
	codeAlphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
	// How many bytes a secret has that a device offers itself to be claimed by. Guesses
	// are limited as those of codes are, and the device must be named with them.
	minOffered, maxOffered = 4, 256
)

// NewClaimCode makes the code by which device can be claimed once, within the time
// that is given; the one before is worth nothing then. NotFound when there is no such
// device, Conflict when there are MaxClaimCodes.
func (j *Join) NewClaimCode(ctx context.Context, device muster.DeviceID, within time.Duration) (code string, expires time.Time, err error) {
	b := make([]byte, codeLength)
	_, _ = rand.Read(b) // it never fails
	for i := range b {
		b[i] = codeAlphabet[b[i]%byte(len(codeAlphabet))] // 256 is a multiple of 32
	}
	expires, err = j.offer(ctx, device, string(b), within)
	if err != nil {
		return "", time.Time{}, err
	}
	return string(b), expires, nil
}

// Offer has device claimed by whoever knows the secret that it made itself: see
// NewClaimCode. Who claims it so names it too; several devices may offer the same.
func (j *Join) Offer(ctx context.Context, device muster.DeviceID, secret string, within time.Duration) error {
	if len(secret) < minOffered || len(secret) > maxOffered {
		return muster.InvalidAt("secret", "a claiming secret has %d to %d bytes", minOffered, maxOffered)
	}
	_, err := j.offer(ctx, device, offered(device, secret), within)
	return err
}

// offered is the text that stands for a secret of a device: it is found with the device
// only, and is no other's.
func offered(device muster.DeviceID, secret string) string {
	return "\x00" + string(device) + "\x00" + secret
}

func (j *Join) offer(ctx context.Context, device muster.DeviceID, code string, within time.Duration) (time.Time, error) {
	if within < time.Second || within > MaxClaimTime {
		return time.Time{}, muster.InvalidAt("expires_s", "a claim code is good for 1 to %d seconds", int(MaxClaimTime.Seconds()))
	}
	now := j.now()
	c := ClaimCode{Device: device, Hash: sha256.Sum256([]byte(code)), Created: muster.MicrosOf(now), Expires: muster.MicrosOf(now.Add(within))}
	err := j.change(ctx, func(ctx context.Context) error {
		if _, err := j.registry.Get(device); err != nil {
			return err
		}
		j.mu.RLock()
		n, clash := len(j.claims), j.byCode[c.Hash]
		_, had := j.claims[device]
		j.mu.RUnlock()
		if n >= MaxClaimCodes && !had || clash != "" && clash != device {
			return muster.Errorf(muster.Conflict, "there are too many claim codes: try again when some have expired")
		}
		audit.Note(ctx, "claim_code.create", "devices/"+string(device)+"/claim-code", nil, claimView{c.Device, c.Expires})
		if err := j.store.PutClaimCode(ctx, c); err != nil {
			return fmt.Errorf("put claim code: %w", err)
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		j.dropClaim(device)
		j.putClaim(c)
		return nil
	})
	return c.Expires.Time(), err
}

// putClaim and dropClaim are called with the lock held.
func (j *Join) putClaim(c ClaimCode) { j.claims[c.Device], j.byCode[c.Hash] = c, c.Device }

func (j *Join) dropClaim(device muster.DeviceID) {
	if c, ok := j.claims[device]; ok {
		delete(j.byCode, c.Hash)
		delete(j.claims, device)
	}
}

// Claimer is who claims a device.
type Claimer struct {
	ID   string // of the user, over all sessions, or of the API key: for the limits
	Name string // becomes the device's owner
	Peer string // host:port
}

// Claim gives the device that code belongs to a new owner: the tag OwnerTag is the
// claimer's name then. device is empty for a code made here, which is read without
// regard to case, spaces and hyphens; with a device, code is what that device offered, or
// its code. NotFound when there is no such code, it has expired or was used; Busy when
// too many were tried in vain: 5 a minute by one principal or from one address, 20 of all.
func (j *Join) Claim(ctx context.Context, who Claimer, device muster.DeviceID, code string) (devices.Device, error) {
	var d devices.Device
	err := j.change(ctx, func(ctx context.Context) (err error) {
		id, ok := j.claimed(device, code)
		err = j.limits.claims.judge(ok, limited{"all", guessesAll},
			limited{"principal " + who.ID, guessesOne}, limited{"address " + address(who.Peer), guessesOne})
		if err != nil {
			return err
		}
		if !ok {
			return muster.Errorf(muster.NotFound, "there is no such claim code, or it was used or has expired")
		}
		if d, err = j.registry.Update(ctx, id, devices.Change{AddTags: map[string]string{OwnerTag: who.Name}}); err != nil {
			return err
		}
		audit.Note(ctx, "claim_code.use", "devices/"+string(id)+"/claim-code", nil, nil)
		if err := j.store.DeleteClaimCodes(ctx, []muster.DeviceID{id}); err != nil {
			return fmt.Errorf("delete claim code: %w", err)
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		j.dropClaim(id)
		return nil
	})
	return d, err
}

// claimed returns the device that can be claimed by code now.
func (j *Join) claimed(device muster.DeviceID, code string) (muster.DeviceID, bool) {
	plain := sha256.Sum256([]byte(normal(code)))
	own := sha256.Sum256([]byte(offered(device, code)))
	at := muster.MicrosOf(j.now())
	j.mu.RLock()
	defer j.mu.RUnlock()
	id := device
	if id == "" {
		id, own = j.byCode[plain], plain
	}
	c := j.claims[id] // of an unknown one: the zero hash, compared all the same
	same := subtle.ConstantTimeCompare(c.Hash[:], plain[:]) | subtle.ConstantTimeCompare(c.Hash[:], own[:])
	return id, same == 1 && at < c.Expires
}

// normal is a code as it was made, however a person types it.
func normal(code string) string {
	return strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(code))
}

// tidyClaims clears expired codes away.
func (j *Join) tidyClaims(ctx context.Context) error {
	return j.change(ctx, func(ctx context.Context) error {
		at := muster.MicrosOf(j.now())
		var over []muster.DeviceID
		j.mu.RLock()
		for id, c := range j.claims {
			if at >= c.Expires {
				over = append(over, id)
			}
		}
		j.mu.RUnlock()
		if len(over) == 0 {
			return nil
		}
		if err := j.store.DeleteClaimCodes(ctx, over); err != nil {
			return fmt.Errorf("delete %d claim codes: %w", len(over), err)
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		for _, id := range over {
			j.dropClaim(id)
		}
		return nil
	})
}
