package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"muster"
	"muster/devices"
	"muster/devices/twin"
	"muster/notify"
)

// LoadGroups implements devices.Store, in bytewise order of name.
func (c *Control) LoadGroups(ctx context.Context, each func(devices.Group) error) error {
	const doing = "load the groups"
	return c.each(ctx, doing, `SELECT name, description, query FROM device_group ORDER BY name`, func(rows *sql.Rows) error {
		var g devices.Group
		if err := rows.Scan(&g.Name, &g.Description, &g.Query); err != nil {
			return failed(doing, err)
		}
		return each(g)
	})
}

// PutGroup implements devices.Store.
func (c *Control) PutGroup(ctx context.Context, g devices.Group) error {
	return c.change(ctx, "put a group", func(ctx context.Context, tx *sql.Tx) error {
		_, err := exec(ctx, tx, `INSERT INTO device_group (name, description, query) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET description = excluded.description, query = excluded.query`,
			g.Name, g.Description, g.Query)
		return err
	})
}

// DeleteGroup implements devices.Store.
func (c *Control) DeleteGroup(ctx context.Context, name string) error {
	return c.change(ctx, "delete a group", func(ctx context.Context, tx *sql.Tx) error {
		if _, err := exec(ctx, tx, `DELETE FROM device_member WHERE group_name = $1`, name); err != nil {
			return err
		}
		if err := deleteTwinLevel(ctx, tx, twin.Group(name)); err != nil {
			return err
		}
		n, err := exec(ctx, tx, `DELETE FROM device_group WHERE name = $1`, name)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "there is no group %q", name)
		}
		return err
	})
}

// LoadDevices implements devices.Store, in bytewise order of id. An error of each
// ends it and is returned as it is.
func (c *Control) LoadDevices(ctx context.Context, each func(devices.Device) error) error {
	const doing = "load the devices"
	members, err := c.members(ctx)
	if err != nil {
		return err
	}
	return c.each(ctx, doing, `SELECT id, name, created, profile, parent, tags, location_lat, location_lon, location_label,
		check_in, notes, firmware FROM device ORDER BY id`, func(rows *sql.Rows) error {
		var d devices.Device
		var tags []byte
		var lat, lon sql.NullFloat64
		err := rows.Scan(&d.ID, &d.Name, &d.Created, &d.Profile, &d.Parent, &tags, &lat, &lon, &d.Location.Label,
			&d.CheckIn, &d.Notes, &d.Firmware)
		if err == nil && len(tags) > len("{}") {
			d.Tags, err = parseTags(tags)
		}
		if err == nil {
			d.Groups, err = devices.GroupsOf(members[d.ID])
		}
		if err != nil {
			return failed(doing, err)
		}
		d.Location.Set, d.Location.Lat, d.Location.Lon = lat.Valid && lon.Valid, lat.Float64, lon.Float64
		return each(d)
	})
}

func parseTags(text []byte) (devices.Tags, error) {
	var m map[string]string
	if err := json.Unmarshal(text, &m); err != nil {
		return devices.Tags{}, fmt.Errorf("tags: %w", err)
	}
	return devices.TagsOf(m)
}

// members returns the static groups of every device that is in one.
func (c *Control) members(ctx context.Context) (map[muster.DeviceID][]string, error) {
	const doing = "load the members of groups"
	out := make(map[muster.DeviceID][]string)
	names := make(map[string]string) // each name once in memory
	err := c.each(ctx, doing, `SELECT device, group_name FROM device_member`, func(rows *sql.Rows) error {
		var id muster.DeviceID
		var name string
		if err := rows.Scan(&id, &name); err != nil {
			return failed(doing, err)
		}
		if _, ok := names[name]; !ok {
			names[name] = name
		}
		out[id] = append(out[id], names[name])
		return nil
	})
	return out, err
}

const deviceColumns = "id, name, created, profile, parent, tags, location_lat, location_lon, location_label, check_in, notes, firmware"

const deviceWidth = 12

// deviceRows are rows for the tables device, device_tag and device_member.
type deviceRows struct {
	devices, tags, members, ids [][]any
}

func rowsOf(ds []devices.Device) (deviceRows, error) {
	var out deviceRows
	for _, d := range ds {
		tags, err := json.Marshal(d.Tags)
		if err != nil {
			return out, fmt.Errorf("encode the tags of a device: %w", err)
		}
		var lat, lon any
		if d.Location.Set {
			lat, lon = d.Location.Lat, d.Location.Lon
		}
		id := string(d.ID)
		out.ids = append(out.ids, []any{id})
		out.devices = append(out.devices, []any{
			id, d.Name, int64(d.Created), d.Profile, string(d.Parent), string(tags), lat, lon, d.Location.Label,
			d.CheckIn, d.Notes, d.Firmware,
		})
		for k, v := range d.Tags.All() {
			out.tags = append(out.tags, []any{id, k, v})
		}
		for g := range d.Groups.All() {
			out.members = append(out.members, []any{g, id})
		}
	}
	return out, nil
}

func (r *deviceRows) insertLabels(ctx context.Context, tx *sql.Tx) error {
	if err := insertAll(ctx, tx, "device_tag", "device, key, value", 3, r.tags); err != nil {
		return err
	}
	return insertAll(ctx, tx, "device_member", "group_name, device", 2, r.members)
}

// InsertDevices implements devices.Store. A credential of a device that is not in ds
// is Invalid.
func (c *Control) InsertDevices(ctx context.Context, ds []devices.Device, cs []devices.Credential) error {
	known := make(map[muster.DeviceID]bool, len(ds))
	for _, d := range ds {
		known[d.ID] = true
	}
	credentialRows := make([][]any, len(cs))
	for i, cr := range cs {
		if !known[cr.Device] {
			return muster.Errorf(muster.Invalid, "a credential is for device %q, which is not among those to insert", cr.Device)
		}
		credentialRows[i] = credentialRow(cr)
	}
	rows, err := rowsOf(ds)
	if err != nil {
		return err
	}
	return c.changeBeside(ctx, "insert devices", func(ctx context.Context, tx *sql.Tx) error {
		if err := insertAll(ctx, tx, "device", deviceColumns, deviceWidth, rows.devices); err != nil {
			return err
		}
		if err := back(ctx, tx, rows.ids); err != nil {
			return err
		}
		if err := rows.insertLabels(ctx, tx); err != nil {
			return err
		}
		return insertAll(ctx, tx, "credential", credentialColumns, credentialWidth, credentialRows)
	})
}

// UpdateDevices implements devices.Store. It answers NotFound when one of ds is not
// there.
func (c *Control) UpdateDevices(ctx context.Context, ds []devices.Device) error {
	rows, err := rowsOf(ds)
	if err != nil {
		return err
	}
	return c.change(ctx, "update devices", func(ctx context.Context, tx *sql.Tx) error {
		if err := lockDevices(ctx, tx, rows.ids); err != nil {
			return err
		}
		err := inChunks(deviceWidth, rows.devices, func(args []any, n int) error {
			_, err := exec(ctx, tx, `INSERT INTO device (`+deviceColumns+`) VALUES `+tuples(n, deviceWidth)+`
				ON CONFLICT (id) DO UPDATE SET name = excluded.name, profile = excluded.profile, parent = excluded.parent,
				tags = excluded.tags, location_lat = excluded.location_lat, location_lon = excluded.location_lon,
				location_label = excluded.location_label, check_in = excluded.check_in, notes = excluded.notes,
				firmware = excluded.firmware`, args...)
			return err
		})
		if err != nil {
			return err
		}
		for _, table := range []string{"device_tag", "device_member"} {
			if err := deleteOf(ctx, tx, table, "device", rows.ids); err != nil {
				return err
			}
		}
		return rows.insertLabels(ctx, tx)
	})
}

// DeleteDevices implements devices.Store. All that is kept in a device's name goes
// with it.
func (c *Control) DeleteDevices(ctx context.Context, ids []muster.DeviceID) error {
	return c.changeOfDevices(ctx, "delete devices", func(ctx context.Context, tx *sql.Tx) error {
		return deleteDevices(ctx, tx, ids)
	})
}

func deleteDevices(ctx context.Context, tx *sql.Tx, ids []muster.DeviceID) error {
	rows := idRows(ids)
	if err := lockDevices(ctx, tx, rows); err != nil {
		return err
	}
	for _, table := range ownTables {
		if err := deleteOf(ctx, tx, table, "device", rows); err != nil {
			return err
		}
	}
	if err := closeActions(ctx, tx, rows); err != nil {
		return err
	}
	subjects := make([][]any, len(ids))
	for i, id := range ids {
		subjects[i] = []any{string(notify.DeviceSubject(id))}
	}
	if err := forgetSubjects(ctx, tx, subjects); err != nil {
		return err
	}
	if err := dropForDevices(ctx, tx, rows); err != nil {
		return err
	}
	err := inChunks(1, rows, func(args []any, n int) error { // the second condition is the index's
		_, err := exec(ctx, tx, `UPDATE device SET parent = '' WHERE parent IN (`+places(n)+`) AND parent <> ''`, args...)
		return err
	})
	if err != nil {
		return err
	}
	return deleteOf(ctx, tx, "device", "id", rows)
}

func idRows(ids []muster.DeviceID) [][]any {
	rows := make([][]any, len(ids))
	for i, id := range ids {
		rows[i] = []any{string(id)}
	}
	return rows
}

// ownTables have rows that belong to a device, in a column of that name.
var ownTables = [...]string{
	"credential",
	"presence",
	"presence_history",
	"device_tag",
	"device_member",
	"device_event",
	"device_log",
	"claim_code",
	"twin",
	"command",
	"firmware_consent",
	"firmware_budget",
}

// closeActions notes that devices know of the end of all that they were offered: what is made again
// with an id is not told to leave what another device was told to install.
func closeActions(ctx context.Context, tx *sql.Tx, rows [][]any) error {
	return inChunks(1, rows, func(args []any, n int) error {
		_, err := exec(ctx, tx, `INSERT INTO firmware_closed (device, action) SELECT device, MAX(action) FROM rollout_device
			WHERE device IN (`+places(n)+`) AND action > 0 GROUP BY device
			ON CONFLICT (device) DO UPDATE SET action = excluded.action WHERE excluded.action > firmware_closed.action`, args...)
		return err
	})
}

func deleteOf(ctx context.Context, tx *sql.Tx, table, column string, rows [][]any) error {
	return inChunks(1, rows, func(args []any, n int) error {
		_, err := exec(ctx, tx, `DELETE FROM `+table+` WHERE `+column+` IN (`+places(n)+`)`, args...)
		return err
	})
}

// lockDevices is lockDevice for many.
func lockDevices(ctx context.Context, tx *sql.Tx, rows [][]any) error {
	return inChunks(1, rows, func(args []any, n int) error {
		found, err := exec(ctx, tx, `UPDATE device SET id = id WHERE id IN (`+places(n)+`)`, args...)
		if err == nil && found != int64(n) {
			err = muster.Errorf(muster.NotFound, "a device is not there any more")
		}
		return err
	})
}
