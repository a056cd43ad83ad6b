-- +goose Up
-- Devices whose rows are being deleted: they are in the table device no more, so that
-- nothing finds the rows, and their ids are not used again until the rows are gone.
CREATE TABLE erased_device (
  device_id INTEGER PRIMARY KEY,
  name      TEXT NOT NULL
);

CREATE INDEX erased_device_name ON erased_device (name);
