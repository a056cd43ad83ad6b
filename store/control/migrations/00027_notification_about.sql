-- +goose Up
-- Which notifications that sources made are open about a device, and which events end them: the
-- sources of their topics may be others by then.
CREATE TABLE notification_about (
    notification TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    topic        TEXT COLLATE "binary" NOT NULL,
    device       TEXT COLLATE "binary" NOT NULL,
    clears       JSONB NOT NULL -- array of types of events
);
CREATE INDEX notification_about_device ON notification_about (device, notification);
