// Drives MQTT.js clients by lines of JSON on standard input, each of which says which
// client and is answered by a line on standard output; what a client hears are lines of
// their own.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import mqtt from "mqtt";

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const clients = new Map();

// connect makes a client; it resolves when the client is connected. An error is said
// whenever it comes.
const connect = (n, o) =>
  new Promise((resolve) => {
    const client = mqtt.connect(o.url, {
      clientId: o.id,
      username: o.user,
      clean: !o.keep,
      protocolVersion: o.version,
      reconnectPeriod: 0,
      will: o.will,
      ca: o.ca ? [readFileSync(o.ca)] : undefined,
      properties: o.version === 5 && o.keep ? { sessionExpiryInterval: 3600 } : undefined,
    });
    clients.set(n, client);
    client.once("connect", () => resolve());
    client.on("error", (err) => say({ client: n, error: String(err) }));
    client.on("message", (topic, payload, packet) =>
      say({ client: n, heard: { topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain } }),
    );
  });

// lose closes the connection without DISCONNECT.
const lose = (client) =>
  new Promise((resolve) => {
    client.once("close", () => resolve());
    client.stream.destroy();
  });

const actions = {
  connect: (client, c) => connect(c.client, c.options),
  publish: async (client, c) => void (await client.publishAsync(c.topic, c.payload, { qos: c.qos, retain: c.retain })),
  subscribe: async (client, c) => (await client.subscribeAsync(c.topic, { qos: c.qos }))[0].qos,
  leave: async (client) => void (await client.endAsync()),
  lose,
};
const act = async (c) => {
  try {
    say({ client: c.client, done: true, granted: (await actions[c.do](clients.get(c.client), c)) ?? 0 });
  } catch (err) {
    say({ client: c.client, error: String(err) });
  }
};
for await (const line of createInterface({ input: process.stdin })) act(JSON.parse(line));
process.exit(0);
