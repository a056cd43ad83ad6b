// Drives one MQTT.js client by lines of JSON on standard input, each of which is
// answered by a line on standard output; what it hears are lines of their own.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import mqtt from "mqtt";

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const o = JSON.parse(process.env.MQTTJS_OPTIONS);
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
client.once("connect", () => say({ done: true }));
client.on("error", (err) => say({ error: String(err) }));
client.on("message", (topic, payload, packet) =>
  say({ heard: { topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain } }),
);

const actions = {
  publish: async (c) => void (await client.publishAsync(c.topic, c.payload, { qos: c.qos, retain: c.retain })),
  subscribe: async (c) => (await client.subscribeAsync(c.topic, { qos: c.qos }))[0].qos,
  leave: async () => void (await client.endAsync()),
};
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    say({ done: true, granted: (await actions[command.do](command)) ?? 0 });
  } catch (err) {
    say({ error: String(err) });
  }
}
await client.endAsync();
