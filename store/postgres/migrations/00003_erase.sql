-- +goose Up
CREATE TABLE erased_device (
    device_id int PRIMARY KEY,
    name      text COLLATE "C" NOT NULL,
    before    bigint
);
CREATE INDEX erased_device_name ON erased_device (name);
COMMENT ON TABLE erased_device IS 'Devices whose rows are being deleted: they are in telemetry_device no more, so that nothing finds the rows. Those from the time before on, in microseconds since 1970, are gone already.';
