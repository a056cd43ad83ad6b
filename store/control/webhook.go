package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"muster"
	"muster/notify/hooks"
)

var _ hooks.Store = (*Control)(nil)

// webhookSecret is a sealed secret in its column; JSON has the bytes in base64.
type webhookSecret struct {
	Sealed  []byte        `json:"sealed"`
	Created muster.Micros `json:"created"`
	Ends    muster.Micros `json:"ends"`
}

// Webhooks implements hooks.Store.
func (c *Control) Webhooks(ctx context.Context) (out []hooks.Webhook, err error) {
	const query = `SELECT id, url, description, types, query, topics, secrets, disabled, reason, owner, owner_id, version, created, updated FROM webhook ORDER BY id`
	err = c.load(ctx, "load the webhooks", query, func(rows *sql.Rows) error {
		var h hooks.Webhook
		var types, topics, secrets []byte
		err := rows.Scan(&h.ID, &h.URL, &h.Description, &types, &h.Query, &topics, &secrets, &h.Disabled, &h.Reason, &h.Owner, &h.OwnerID, &h.Version, &h.Created, &h.Updated)
		if err != nil {
			return fmt.Errorf("read a row: %w", err)
		}
		if err := json.Unmarshal(types, &h.Types); err != nil {
			return fmt.Errorf("the types of %s: %w", h.ID, err)
		}
		if err := json.Unmarshal(topics, &h.Topics); err != nil {
			return fmt.Errorf("the topics of %s: %w", h.ID, err)
		}
		var sealed []webhookSecret
		if err := json.Unmarshal(secrets, &sealed); err != nil {
			return fmt.Errorf("the secrets of %s: %w", h.ID, err)
		}
		for _, s := range sealed {
			h.Secrets = append(h.Secrets, hooks.Secret(s))
		}
		out = append(out, h)
		return nil
	})
	return out, err
}

// PutWebhook implements hooks.Store.
func (c *Control) PutWebhook(ctx context.Context, h hooks.Webhook) error {
	types, err := json.Marshal(append([]string{}, h.Types...))
	if err != nil {
		return fmt.Errorf("encode the types: %w", err)
	}
	topics, err := json.Marshal(h.Topics) // null for all, so that it is read as it was
	if err != nil {
		return fmt.Errorf("encode the topics: %w", err)
	}
	sealed := make([]webhookSecret, len(h.Secrets))
	for i, s := range h.Secrets {
		sealed[i] = webhookSecret(s)
	}
	secrets, err := json.Marshal(sealed)
	if err != nil {
		return fmt.Errorf("encode the secrets: %w", err)
	}
	return c.change(ctx, "put a webhook", func(ctx context.Context, tx *sql.Tx) error {
		_, err := exec(ctx, tx, `INSERT INTO webhook (id, url, description, types, query, secrets, disabled, reason, owner, version, created, updated, topics, owner_id)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
			ON CONFLICT (id) DO UPDATE SET url = excluded.url, description = excluded.description, types = excluded.types, query = excluded.query, topics = excluded.topics,
			secrets = excluded.secrets, disabled = excluded.disabled, reason = excluded.reason, version = excluded.version, updated = excluded.updated`,
			h.ID, h.URL, h.Description, string(types), h.Query, string(secrets), h.Disabled, h.Reason, h.Owner, h.Version, int64(h.Created), int64(h.Updated), string(topics), h.OwnerID)
		return err
	})
}

// DeleteWebhook implements hooks.Store.
func (c *Control) DeleteWebhook(ctx context.Context, id string) error {
	return c.deleteOne(ctx, "delete a webhook", `DELETE FROM webhook WHERE id = $1`, id)
}
