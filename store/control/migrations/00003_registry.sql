-- +goose Up
CREATE TABLE device_group (
    name        TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    description TEXT NOT NULL,
    query       TEXT NOT NULL -- empty for a static group
);

ALTER TABLE device ADD COLUMN tags JSONB NOT NULL DEFAULT '{}'; -- as in device_tag, to be read in one go
ALTER TABLE device ADD COLUMN location_lat DOUBLE PRECISION;
ALTER TABLE device ADD COLUMN location_lon DOUBLE PRECISION;
ALTER TABLE device ADD COLUMN location_label TEXT NOT NULL DEFAULT '';
ALTER TABLE device ADD COLUMN check_in BIGINT NOT NULL DEFAULT 0; -- seconds, 0 for the learned rhythm
ALTER TABLE device ADD COLUMN notes TEXT NOT NULL DEFAULT '';
ALTER TABLE device ADD COLUMN firmware TEXT COLLATE "binary" NOT NULL DEFAULT '';
CREATE INDEX device_firmware ON device (firmware) WHERE firmware <> '';

CREATE TABLE device_tag (
    device TEXT COLLATE "binary" NOT NULL REFERENCES device (id),
    key    TEXT COLLATE "binary" NOT NULL,
    value  TEXT COLLATE "binary" NOT NULL,
    PRIMARY KEY (device, key)
);
CREATE INDEX device_tag_value ON device_tag (key, value, device);

-- Members of static groups.
CREATE TABLE device_member (
    group_name TEXT COLLATE "binary" NOT NULL REFERENCES device_group (name),
    device     TEXT COLLATE "binary" NOT NULL REFERENCES device (id),
    PRIMARY KEY (group_name, device)
);
CREATE INDEX device_member_device ON device_member (device);

ALTER TABLE profile ADD COLUMN create_children BOOLEAN NOT NULL DEFAULT FALSE;
