-- +goose Up
ALTER TABLE presence ADD COLUMN rhythm BIGINT NOT NULL DEFAULT 0; -- learned seconds between messages, 0 for not known
ALTER TABLE presence ADD COLUMN link TEXT NOT NULL DEFAULT ''; -- connection, gateway, data; empty before the first time

-- The transitions of a day and the uptime of 30, as package devices writes them.
CREATE TABLE presence_history (
    device  TEXT COLLATE "binary" NOT NULL PRIMARY KEY REFERENCES device (id),
    history TEXT NOT NULL
);
