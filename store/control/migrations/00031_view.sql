-- +goose Up
-- The lists of devices that users have saved.
CREATE TABLE saved_view (
    id      TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    account TEXT COLLATE "binary" NOT NULL REFERENCES account (id),
    name    TEXT COLLATE "binary" NOT NULL,
    query   TEXT NOT NULL,
    columns JSONB NOT NULL, -- array of names
    sort    TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE UNIQUE INDEX saved_view_name ON saved_view (account, name);
