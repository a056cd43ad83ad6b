-- +goose Up
-- What a delivery needs when its subscription changes or its notification rises: of which topic and how severe it is, also when
-- the notification is not kept any more; whether it waits for hours or a digest, which no state says; how many attempts surely told
-- nobody; and before when it must not go out, whatever hours end.
ALTER TABLE delivery ADD COLUMN topic TEXT COLLATE "binary" NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN severity BIGINT NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN refused BIGINT NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN held BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE delivery ADD COLUMN earliest BIGINT NOT NULL DEFAULT 0;
UPDATE delivery SET held = (state = 'queued' AND error = '' AND due > created),
	topic = (SELECT n.topic FROM notification n WHERE n.id = delivery.notification),
	severity = (SELECT n.severity FROM notification n WHERE n.id = delivery.notification)
	WHERE channel <> 'webhook' AND state IN ('queued', 'sending', 'dead') AND EXISTS (SELECT 1 FROM notification n WHERE n.id = delivery.notification);
