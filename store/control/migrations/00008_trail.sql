-- +goose Up

-- An event that is sent again has the same key: mark is a hash of what it says.
CREATE TABLE device_event (
    device    TEXT COLLATE "binary" NOT NULL REFERENCES device (id),
    time      BIGINT NOT NULL,
    mark      BIGINT NOT NULL,
    arrival   BIGINT NOT NULL,
    type      TEXT COLLATE "binary" NOT NULL,
    publisher TEXT COLLATE "binary" NOT NULL, -- the gateway, empty for the device itself
    system    BOOLEAN NOT NULL,
    payload   TEXT NOT NULL, -- JSON, letter for letter
    PRIMARY KEY (device, time, mark)
);
CREATE INDEX device_event_time ON device_event (time);

-- One row holds the lines of a device that were stored together.
CREATE TABLE device_log (
    device  TEXT COLLATE "binary" NOT NULL REFERENCES device (id),
    arrival BIGINT NOT NULL, -- of the first line
    mark    BIGINT NOT NULL,
    top     BIGINT NOT NULL, -- the gravest level: 0 debug, 1 info, 2 warn, 3 error
    count   BIGINT NOT NULL,
    lines   TEXT NOT NULL,
    PRIMARY KEY (device, arrival, mark)
);
CREATE INDEX device_log_arrival ON device_log (arrival);
