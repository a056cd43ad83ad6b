package api

import (
	"muster"
	"muster/devices"
)

// Labels are what is written on a device beside its name, as they are shown.
type Labels struct {
	Tags     map[string]string `json:"tags"`
	Groups   []string          `json:"groups" nullable:"false" doc:"Static groups that list it"`
	Location *location         `json:"location,omitempty"`
	CheckInS int64             `json:"check_in_s" doc:"Seconds between two messages that are expected; 0 when its own rhythm is learned"`
	Notes    string            `json:"notes,omitempty"`
	Firmware string            `json:"firmware,omitempty" doc:"The version that it reports"`
}

type location struct {
	Lat   *float64 `json:"lat,omitempty" minimum:"-90" maximum:"90" nullable:"false" doc:"Degrees, WGS 84; absent together with lon"`
	Lon   *float64 `json:"lon,omitempty" minimum:"-180" maximum:"180" nullable:"false"`
	Label string   `json:"label,omitempty" maxLength:"200" doc:"For people"`
}

func labelsOf(d devices.Device) Labels {
	out := Labels{Tags: d.Tags.Map(), Groups: d.Groups.Names(), CheckInS: d.CheckIn, Notes: d.Notes, Firmware: d.Firmware}
	if d.Location == (devices.Location{}) {
		return out
	}
	out.Location = &location{Label: d.Location.Label}
	if d.Location.Set {
		lat, lon := d.Location.Lat, d.Location.Lon
		out.Location.Lat, out.Location.Lon = &lat, &lon
	}
	return out
}

func (l *location) place() (devices.Location, error) {
	if (l.Lat == nil) != (l.Lon == nil) {
		return devices.Location{}, muster.InvalidAt("location", "a location has both lat and lon, or neither")
	}
	out := devices.Location{Label: l.Label}
	if l.Lat != nil {
		out.Set, out.Lat, out.Lon = true, *l.Lat, *l.Lon
	}
	return out, nil
}

// DeviceLabels are the labels of a device to be made. It is exported because huma
// looks into exported embedded fields only.
type DeviceLabels struct {
	Tags     map[string]string `json:"tags,omitempty" doc:"At most 32; keys [A-Za-z0-9._-]{1,64}, values up to 256 bytes"`
	Groups   []string          `json:"groups,omitempty" maxItems:"32" nullable:"false" doc:"Static groups, which must exist"`
	Location *location         `json:"location,omitempty" nullable:"false"`
	CheckInS int64             `json:"check_in_s,omitempty" minimum:"0" maximum:"31622400" doc:"Seconds between two messages that are expected; its own rhythm is learned when absent"`
	Notes    string            `json:"notes,omitempty" maxLength:"4096"`
}

func (l *DeviceLabels) write(s *devices.Spec) (err error) {
	if s.Tags, err = devices.TagsOf(l.Tags); err != nil {
		return err
	}
	if s.Groups, err = devices.GroupsOf(l.Groups); err != nil {
		return err
	}
	if l.Location != nil {
		if s.Location, err = l.Location.place(); err != nil {
			return err
		}
	}
	s.CheckIn, s.Notes = l.CheckInS, l.Notes
	return nil
}

// ChangedLabels are the labels of a device to be changed. It is exported because huma
// looks into exported embedded fields only.
type ChangedLabels struct {
	Tags     map[string]*string `json:"tags,omitempty" nullable:"false" doc:"Tags to set; null takes one away, others stay"`
	Groups   *[]string          `json:"groups,omitempty" maxItems:"32" nullable:"false" doc:"All static groups that list it from now on"`
	Location *location          `json:"location,omitempty" nullable:"false" doc:"An empty object for nowhere"`
	CheckInS *int64             `json:"check_in_s,omitempty" minimum:"0" maximum:"31622400" nullable:"false"`
	Notes    *string            `json:"notes,omitempty" maxLength:"4096" nullable:"false"`
}

func (l *ChangedLabels) write(c *devices.Change) error {
	for k, v := range l.Tags {
		if v == nil {
			c.DropTags = append(c.DropTags, k)
			continue
		}
		if c.AddTags == nil {
			c.AddTags = map[string]string{}
		}
		c.AddTags[k] = *v
	}
	if l.Groups != nil {
		groups, err := devices.GroupsOf(*l.Groups)
		if err != nil {
			return err
		}
		c.Groups = &groups
	}
	if l.Location != nil {
		place, err := l.Location.place()
		if err != nil {
			return err
		}
		c.Location = &place
	}
	c.CheckIn, c.Notes = l.CheckInS, l.Notes
	return nil
}
