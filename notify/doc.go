// Package notify is notifications that people can rely on: topics that users make, who
// may publish to them and who is subscribed, what was sent, and the state each recipient
// has it in (sent, delivered, seen, read, acked), with escalation until somebody acked.
//
// The API, the live gateway, devices (through the server) and the feed of system events
// call Send and Mark. Everything that one call changes (notification, receipts,
// deliveries) is one transaction of the control store; package notify/outbox delivers what
// goes out, and Inbox tells connected people what was committed, in its order. It knows no
// HTTP, SQL, SMTP or MQTT, and never sends anything itself.
package notify
