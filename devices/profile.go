package devices

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"muster"
	"muster/internal/precondition"
)

const (
	// DefaultProfile is the profile of a device that was given none. It always exists,
	// adds nothing and cannot be changed.
	DefaultProfile = "default"
	// MaxProfiles is the most profiles there may be, the default one included.
	MaxProfiles = 1000
	// MaxProfileName is the longest name of a profile, in bytes.
	MaxProfileName = MaxLabel
	// MaxMessageRate is the highest limit of a client's rate, in messages a second.
	MaxMessageRate = 1_000_000
	// MaxByteRate is the highest limit of a client's rate, in bytes a second.
	MaxByteRate = 1 << 40

	idPlaceholder = "{id}" // the device's own id, in a profile's filters
)

// Profile is what the devices that have it may do beside using their own topics,
// and how they are treated. In filters {id} stands for the device's own id.
type Profile struct {
	Name string // [A-Za-z0-9._-]{1,64}, not "." or ".."
	// Publish has further filters of topics that a device may publish to, at most 32.
	// Below devices/ they may reach nothing but the device's own.
	Publish []string
	// Subscribe has further filters that a device may subscribe to, at most 32.
	Subscribe []string
	// Level says when a message is acknowledged: received, durable or stored; empty for
	// the server's default.
	Level string
	// MessageRate is the most messages a second that a client may publish, 0 for the
	// server's default.
	MessageRate int64
	// ByteRate is the most bytes a second that a client may publish, 0 for the
	// server's default.
	ByteRate int64
	// CreateChildren lets a device make its children by publishing for them.
	CreateChildren bool
}

// profile is a Profile, whose lists never change in place, and how many devices
// have it. Both change under Registry.mu.
type profile struct {
	Profile
	uses int
}

func (p Profile) clone() Profile {
	p.Publish, p.Subscribe = slices.Clone(p.Publish), slices.Clone(p.Subscribe)
	return p
}

// check returns Invalid unless p may be a profile.
func (p Profile) check() error {
	if err := checkProfileName(p.Name); err != nil {
		return err
	}
	// What counts is the filter with the longest id in it.
	longest := strings.Repeat("x", muster.MaxDeviceID)
	if err := muster.CheckRights(withID(p.Publish, longest), withID(p.Subscribe, longest)); err != nil {
		return err
	}
	for i, f := range p.Publish {
		first, rest, _ := strings.Cut(f, "/")
		switch {
		case first == "+" || first == "#":
			return muster.InvalidAt("publish", "publish[%d]: begins with a wildcard and would reach other devices' topics", i)
		case first == "devices" && rest != idPlaceholder && !strings.HasPrefix(rest, idPlaceholder+"/"):
			return muster.InvalidAt("publish", "publish[%d]: below devices/ a device may publish under devices/%s/ only", i, idPlaceholder)
		}
	}
	for _, l := range []struct {
		name    string
		filters []string
	}{{"publish", p.Publish}, {"subscribe", p.Subscribe}} {
		for i, f := range l.filters {
			if strings.ContainsAny(strings.ReplaceAll(f, idPlaceholder, ""), "{}") {
				return muster.InvalidAt(l.name, "%s[%d]: the only placeholder is %s", l.name, i, idPlaceholder)
			}
		}
	}
	return p.checkLimits()
}

func (p Profile) checkLimits() error {
	switch p.Level {
	case "", "received", "durable", "stored":
	default:
		return muster.InvalidAt("level", "the level is none of received, durable and stored")
	}
	switch {
	case p.MessageRate < 0 || p.MessageRate > MaxMessageRate:
		return muster.InvalidAt("message_rate", "the message rate is not between 0 and %d", MaxMessageRate)
	case p.ByteRate < 0 || p.ByteRate > MaxByteRate:
		return muster.InvalidAt("byte_rate", "the byte rate is not between 0 and %d", int64(MaxByteRate))
	}
	return nil
}

func checkProfileName(s string) error {
	if !label(s) || s == "." || s == ".." {
		return muster.InvalidAt("profile", "a profile's name has 1 to %d letters, digits and . _ -, and is not . or ..", MaxProfileName)
	}
	return nil
}

// withID returns filters with id in the place of {id}: filters themselves when they
// do not have it, so that all devices of a profile share one list.
func withID(filters []string, id string) []string {
	has := func(f string) bool { return strings.Contains(f, idPlaceholder) }
	if !slices.ContainsFunc(filters, has) {
		return filters
	}
	out := make([]string, len(filters))
	for i, f := range filters {
		out[i] = strings.ReplaceAll(f, idPlaceholder, id)
	}
	return out
}

// Profiles returns every profile, by name.
func (r *Registry) Profiles() []Profile {
	r.mu.RLock()
	out := make([]Profile, 0, len(r.profiles))
	for _, p := range r.profiles {
		out = append(out, p.clone())
	}
	r.mu.RUnlock()
	slices.SortFunc(out, func(a, b Profile) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Profile returns the profile name, or NotFound.
func (r *Registry) Profile(name string) (Profile, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p, ok := r.profiles[name]
	if !ok {
		return Profile{}, errNoProfile()
	}
	return p.clone(), nil
}

// PutProfile makes a profile or replaces the one of that name, and reports the
// devices that have it to OnRights. Invalid when a rule of Profile is broken; the
// default profile and one more than MaxProfiles are a Conflict.
func (r *Registry) PutProfile(ctx context.Context, p Profile) error {
	if err := p.check(); err != nil {
		return err
	}
	if p.Name == DefaultProfile {
		return muster.Errorf(muster.Conflict, "the profile %s adds nothing and cannot be changed: make another", DefaultProfile)
	}
	p = p.clone()
	var used bool
	err := r.change(ctx, func(ctx context.Context) (err error) {
		used, err = r.putProfile(ctx, p)
		return err
	})
	if err == nil && used {
		r.onRights(func(id muster.DeviceID, _ string) bool { return r.hasProfile(id, p.Name) })
	}
	return err
}

func (r *Registry) putProfile(ctx context.Context, p Profile) (used bool, err error) {
	r.mu.RLock()
	have, n := r.profiles[p.Name], len(r.profiles)
	r.mu.RUnlock()
	var current any
	if have != nil {
		current = have.Profile
	}
	if err := precondition.Check(ctx, current); err != nil {
		return false, err
	}
	if have == nil && n >= MaxProfiles {
		return false, muster.Errorf(muster.Conflict, "there are %d profiles already: delete some first", n)
	}
	var was *Profile
	if have != nil {
		was = &have.Profile
	}
	noteProfile(ctx, "profile.put", was, &p)
	if err := r.store.PutProfile(ctx, p); err != nil {
		return false, fmt.Errorf("put profile: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if have == nil {
		r.profiles[p.Name] = &profile{Profile: p}
		r.names.Add(1)
		return false, nil
	}
	have.Profile = p
	return have.uses > 0, nil
}

func (r *Registry) hasProfile(id muster.DeviceID, name string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byID[id]
	return ok && e.Profile == name
}

// DeleteProfile deletes a profile that no device has (else Conflict), or returns
// NotFound. The default profile cannot be deleted: Conflict.
func (r *Registry) DeleteProfile(ctx context.Context, name string) error {
	return r.change(ctx, func(ctx context.Context) error {
		r.mu.RLock()
		p, ok := r.profiles[name]
		uses := 0
		if ok {
			uses = p.uses
		}
		r.mu.RUnlock()
		if !ok {
			return errNoProfile()
		}
		if err := precondition.Check(ctx, p.Profile); err != nil {
			return err
		}
		switch {
		case name == DefaultProfile:
			return muster.Errorf(muster.Conflict, "the profile %s cannot be deleted", DefaultProfile)
		case uses > 0:
			return muster.Errorf(muster.Conflict, "%d devices have this profile: give them another first", uses)
		}
		noteProfile(ctx, "profile.delete", &p.Profile, nil)
		if err := r.store.DeleteProfile(ctx, name); err != nil {
			return fmt.Errorf("delete profile: %w", err)
		}
		r.mu.Lock()
		delete(r.profiles, name)
		r.names.Add(1)
		r.mu.Unlock()
		r.noProfile(name)
		return nil
	})
}

func (r *Registry) loadProfile(p Profile) error {
	if err := p.check(); err != nil {
		return fmt.Errorf("stored profile: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.profiles[p.Name] = &profile{Profile: p}
	return nil
}

// useProfile counts e among the devices of its profile, with the lock held.
func (r *Registry) useProfile(e *entry) {
	p := r.profiles[e.Profile]
	e.Profile = p.Name // the same text for all
	p.uses++
}

func errNoProfile() error { return muster.Errorf(muster.NotFound, "there is no such profile") }
