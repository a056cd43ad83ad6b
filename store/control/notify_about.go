package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"muster"
	"muster/notify"
)

// about keeps which events end what is new or was told again, and forgets it of what is over.
func (w *writing) about(ctx context.Context) error {
	for i := range w.w.About {
		a := &w.w.About[i]
		clears, err := json.Marshal(append([]string{}, a.Clears...))
		if err != nil {
			return fmt.Errorf("encode the types of events: %w", err)
		}
		_, err = exec(ctx, w.tx, `INSERT INTO notification_about (notification, topic, device, clears) VALUES ($1, $2, $3, $4)
			ON CONFLICT (notification) DO UPDATE SET clears = excluded.clears`, a.Notification, a.Topic, string(a.Device), string(clears))
		if err != nil {
			return err
		}
	}
	for i := range w.w.Updates {
		n := &w.w.Updates[i].Notification
		if n.State != notify.Resolved || n.Device == "" {
			continue
		}
		if _, err := exec(ctx, w.tx, `DELETE FROM notification_about WHERE notification = $1`, n.ID); err != nil {
			return err
		}
	}
	return nil
}

// OpenAbout implements notify.MessageStore.
func (c *Control) OpenAbout(ctx context.Context, device muster.DeviceID, after string, limit int) (out []notify.About, err error) {
	err = c.list(ctx, "find what is open about a device", `SELECT notification, topic, device, clears FROM notification_about
		WHERE device = $1 AND notification > $2 ORDER BY notification LIMIT $3`, []any{string(device), after, limit}, func(rows *sql.Rows) error {
		var a notify.About
		var clears []byte
		if err := rows.Scan(&a.Notification, &a.Topic, &a.Device, &clears); err != nil {
			return err
		}
		if err := json.Unmarshal(clears, &a.Clears); err != nil {
			return fmt.Errorf("what ends %s: %w", a.Notification, err)
		}
		out = append(out, a)
		return nil
	})
	return out, err
}
