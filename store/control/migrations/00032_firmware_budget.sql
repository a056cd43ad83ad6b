-- +goose Up

-- Bytes of images that were reserved for a device's action: at least as many as were sent, by whatever door.
CREATE TABLE firmware_budget (
    device   TEXT COLLATE "binary" NOT NULL REFERENCES device (id),
    action   BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    PRIMARY KEY (device, action)
);
