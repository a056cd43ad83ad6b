-- +goose Up
-- What deliveries say. It is kept as long as one of them has it.
CREATE TABLE delivery_content (
    id   TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    body TEXT NOT NULL -- in base64
);

CREATE TABLE delivery (
    id           TEXT COLLATE "binary" NOT NULL PRIMARY KEY, -- ids sort by age
    channel      TEXT COLLATE "binary" NOT NULL,
    queue        TEXT COLLATE "binary" NOT NULL,
    target       TEXT COLLATE "binary" NOT NULL,
    notification TEXT COLLATE "binary" NOT NULL, -- empty for none
    content      TEXT COLLATE "binary" NOT NULL,
    lane         BIGINT NOT NULL,
    fold         TEXT COLLATE "binary" NOT NULL, -- empty for alone
    state        TEXT COLLATE "binary" NOT NULL,
    attempts     BIGINT NOT NULL,
    due          BIGINT NOT NULL, -- while it is sending, when the lease ends
    worker       TEXT COLLATE "binary" NOT NULL,
    expires      BIGINT NOT NULL,
    created      BIGINT NOT NULL,
    ended        BIGINT NOT NULL, -- 0 while it is open
    error        TEXT NOT NULL,
    reference    TEXT NOT NULL,
    tries        TEXT NOT NULL -- JSON, empty for none
);
-- A claim goes through one range of this one, from its beginning.
CREATE INDEX delivery_due ON delivery (queue, lane, due, id) WHERE state IN ('queued', 'sending');
CREATE INDEX delivery_fold ON delivery (queue, fold, id) WHERE state = 'queued' AND fold <> '';
CREATE INDEX delivery_ended ON delivery (ended) WHERE state IN ('sent', 'dropped');
CREATE INDEX delivery_dead ON delivery (ended) WHERE state = 'dead';
CREATE INDEX delivery_notification ON delivery (notification, id) WHERE notification <> '';
CREATE INDEX delivery_queue ON delivery (queue, id);
CREATE INDEX delivery_target ON delivery (target, state);
-- An expression, so that SQLite does not take this one for what is open.
CREATE INDEX delivery_state ON delivery ((state || ''), id);
CREATE INDEX delivery_content_used ON delivery (content);

CREATE TABLE topic (
    id          TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    name        TEXT COLLATE "binary" NOT NULL,
    title       TEXT NOT NULL,
    description TEXT NOT NULL,
    owner       TEXT COLLATE "binary" NOT NULL,
    visibility  TEXT NOT NULL,
    status      TEXT NOT NULL,
    retention   BIGINT NOT NULL, -- microseconds
    ack_policy  TEXT NOT NULL,
    escalation  JSONB NOT NULL,
    sources     JSONB NOT NULL, -- array
    devices     TEXT NOT NULL,
    template    JSONB NOT NULL,
    version     BIGINT NOT NULL,
    created     BIGINT NOT NULL,
    updated     BIGINT NOT NULL,
    subscribers BIGINT NOT NULL DEFAULT 0 -- how many subscriptions it has
);
CREATE UNIQUE INDEX topic_name ON topic (name);
-- What Muster itself tells people; 30 days.
INSERT INTO topic (id, name, title, description, owner, visibility, status, retention, ack_policy, escalation, sources, devices, template, version, created, updated)
VALUES ('top_system', 'system', 'Muster', 'What Muster itself has to tell', '', 'private', 'active', 2592000000000, 'none', '{}', '[]', '', '{}', 1, 0, 0);

CREATE TABLE topic_member (
    topic     TEXT COLLATE "binary" NOT NULL REFERENCES topic (id),
    principal TEXT COLLATE "binary" NOT NULL,
    role      TEXT NOT NULL,
    created   BIGINT NOT NULL,
    PRIMARY KEY (topic, principal)
);
CREATE INDEX topic_member_principal ON topic_member (principal);

CREATE TABLE subscription (
    topic    TEXT COLLATE "binary" NOT NULL REFERENCES topic (id),
    subject  TEXT COLLATE "binary" NOT NULL,
    channels JSONB NOT NULL, -- array
    muted    BIGINT NOT NULL,
    version  BIGINT NOT NULL,
    created  BIGINT NOT NULL,
    updated  BIGINT NOT NULL,
    PRIMARY KEY (topic, subject)
);
CREATE INDEX subscription_subject ON subscription (subject, topic);

-- A topic that is gone has its notifications until they are trimmed.
CREATE TABLE notification (
    id          TEXT COLLATE "binary" NOT NULL PRIMARY KEY, -- ids sort by age
    topic       TEXT COLLATE "binary" NOT NULL,
    sender_kind TEXT NOT NULL,
    sender      TEXT NOT NULL,
    sender_name TEXT NOT NULL,
    severity    BIGINT NOT NULL,
    lane        BIGINT NOT NULL,
    title       TEXT NOT NULL,
    body        TEXT NOT NULL,
    data        TEXT NOT NULL, -- JSON as it was sent, empty for none
    link        TEXT NOT NULL,
    actions     JSONB NOT NULL, -- array
    device      TEXT COLLATE "binary" NOT NULL, -- empty for none
    dedup_key   TEXT COLLATE "binary" NOT NULL, -- empty for none
    count       BIGINT NOT NULL,
    state       TEXT NOT NULL,
    ack_policy  TEXT NOT NULL,
    acked_by    TEXT NOT NULL,
    acked_at    BIGINT NOT NULL,
    ack_note    TEXT NOT NULL,
    resolved_at BIGINT NOT NULL,
    recipients  BIGINT NOT NULL,
    acks        BIGINT NOT NULL,
    step        BIGINT NOT NULL,
    escalate_at BIGINT NOT NULL, -- 0 for never
    created     BIGINT NOT NULL,
    updated     BIGINT NOT NULL,
    expires     BIGINT NOT NULL,
    version     BIGINT NOT NULL
);
CREATE INDEX notification_topic ON notification (topic, id);
CREATE INDEX notification_created ON notification (topic, created);
CREATE INDEX notification_device ON notification (device, id) WHERE device <> '';
CREATE INDEX notification_escalation ON notification (escalate_at, id) WHERE state = 'open' AND escalate_at > 0;
CREATE UNIQUE INDEX notification_key ON notification (topic, dedup_key) WHERE dedup_key <> '' AND state IN ('open', 'acked');

-- Numbers are those of the counter inbox.
CREATE TABLE receipt (
    notification TEXT COLLATE "binary" NOT NULL,
    subject      TEXT COLLATE "binary" NOT NULL,
    seq          BIGINT NOT NULL,
    state        BIGINT NOT NULL,
    delivered    BIGINT NOT NULL,
    seen         BIGINT NOT NULL,
    read         BIGINT NOT NULL,
    acked        BIGINT NOT NULL,
    note         TEXT NOT NULL,
    door         TEXT NOT NULL,
    step         BIGINT NOT NULL,
    PRIMARY KEY (notification, subject)
);
CREATE INDEX receipt_seq ON receipt (seq, subject);
-- The only index by subject: a notification to 10,000 writes to as many places of each.
CREATE INDEX receipt_inbox ON receipt (subject, notification);
INSERT INTO counter (name, value) VALUES ('inbox', 0);

-- How far those who read the feed have come.
CREATE TABLE notify_cursor (
    name  TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    epoch TEXT NOT NULL,
    seq   BIGINT NOT NULL
);

ALTER TABLE webhook ADD COLUMN topics JSONB NOT NULL DEFAULT 'null'; -- array of strings, null for all
ALTER TABLE webhook ADD COLUMN owner_id TEXT NOT NULL DEFAULT '';
