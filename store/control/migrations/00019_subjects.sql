-- +goose Up
-- Who was deleted a short while ago: users, keys, and "device/" with the ids of devices. A
-- transaction that began before adds nothing of theirs.
CREATE TABLE subject_gone (
    id TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL
);
CREATE INDEX subject_gone_at ON subject_gone (at);

-- What inboxes are counted by.
CREATE INDEX receipt_unread ON receipt (subject) WHERE state < 3;
CREATE INDEX notification_asks ON notification (id) WHERE state = 'open' AND ack_policy <> 'none';
