-- +goose Up
-- What all must ack, and some have: looked through for what only those have not who are gone.
CREATE INDEX notification_all ON notification (id) WHERE state = 'open' AND ack_policy = 'all' AND acks > 0;
