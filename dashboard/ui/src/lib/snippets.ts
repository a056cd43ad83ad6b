// What sends a device's first value, in several tongues. Each is valid as it stands, once the
// credential is in it.

import { shellWord } from "./copy";
import { powershellWord, wordOf, type Shell } from "./quote";
import type { Issued } from "./schema.gen";

export type Tool = "mosquitto" | "curl" | "python" | "esp32" | "go";

export const TOOLS: readonly (readonly [Tool, string])[] = [["mosquitto", "mosquitto"], ["curl", "curl"], ["python", "Python"], ["esp32", "ESP32"], ["go", "Go"]];

export interface Place {
  host: string;
  port: number; // of MQTT
  origin: string; // of HTTP
}

const PAYLOAD = '{"temperature":21.5}';

/** Whether a tool is a command line, and has one for each shell. */
export function hasShells(tool: Tool): boolean {
  return tool === "mosquitto" || tool === "curl";
}

export function snippet(tool: Tool, shell: Shell, device: string, c: Issued | undefined, at: Place): string {
  const who = { user: c?.username || c?.token || "TOKEN", pass: c?.password ?? "", topic: `devices/${device}/telemetry`, device, ...at };
  switch (tool) {
    case "mosquitto":
      return mosquitto(shell, who);
    case "curl":
      return curl(shell, who);
    case "python":
      return python(who);
    case "esp32":
      return esp32(who);
    case "go":
      return golang(who);
  }
}

interface Who extends Place {
  user: string;
  pass: string;
  topic: string;
  device: string;
}

function mosquitto(shell: Shell, w: Who): string {
  const words = ["mosquitto_pub", "-h", w.host, "-p", String(w.port), "-u", w.user];
  if (w.pass) words.push("-P", w.pass);
  words.push("-q", "1", "-t", w.topic);
  // PowerShell 5 loses double quotes of arguments: there the payload comes by standard input.
  if (shell === "powershell") return `'${PAYLOAD}' | ` + [...words, "-s"].map(powershellWord).join(" ");
  return [...words, "-m", PAYLOAD].map(wordOf(shell)).join(" ");
}

function curl(shell: Shell, w: Who): string {
  const url = `${w.origin}/api/v1/telemetry?device=${encodeURIComponent(w.device)}`;
  if (shell === "powershell") {
    return `Invoke-RestMethod -Method Post -Uri '${url}' -Headers @{ Authorization = 'Bearer KEY' } -ContentType 'application/json' -Body '${PAYLOAD}'`;
  }
  const words = ["curl", "-f", "-X", "POST", "-H", "Authorization: Bearer KEY", "-H", "Content-Type: application/json", "-d", PAYLOAD, url];
  return words.map(shell === "sh" ? shellWord : wordOf(shell)).join(" ");
}

/** A string literal of Python, Go and C++ alike: all three read JSON's. */
const text = (s: string) => JSON.stringify(s);

function python(w: Who): string {
  return `# pip install paho-mqtt
import paho.mqtt.publish as publish

publish.single(
    ${text(w.topic)},
    payload='${PAYLOAD}',
    qos=1,
    hostname=${text(w.host)},
    port=${w.port},
    auth={"username": ${text(w.user)}, "password": ${w.pass ? text(w.pass) : "None"}},
)
`;
}

function esp32(w: Who): string {
  return `// Arduino, with the library PubSubClient
#include <WiFi.h>
#include <PubSubClient.h>

WiFiClient net;
PubSubClient mqtt(net);

void setup() {
  WiFi.begin("your network", "its password");
  while (WiFi.status() != WL_CONNECTED) delay(250);
  mqtt.setServer(${text(w.host)}, ${w.port});
}

void loop() {
  if (!mqtt.connected() && !mqtt.connect(${text(w.device)}, ${text(w.user)}, ${w.pass ? text(w.pass) : "nullptr"})) {
    delay(2000);
    return;
  }
  mqtt.loop();
  mqtt.publish(${text(w.topic)}, "{\\"temperature\\":21.5}");
  delay(10000);
}
`;
}

function golang(w: Who): string {
  return `package main

import (
	"log"
	"net"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

func main() {
	o := mqtt.NewClientOptions().AddBroker("tcp://" + net.JoinHostPort(${text(w.host)}, "${w.port}"))
	o.SetClientID(${text(w.device)}).SetUsername(${text(w.user)})${w.pass ? `.SetPassword(${text(w.pass)})` : ""}
	c := mqtt.NewClient(o)
	await("connect", c.Connect())
	await("publish", c.Publish(${text(w.topic)}, 1, false, \`${PAYLOAD}\`))
	c.Disconnect(250)
}

func await(what string, t mqtt.Token) {
	if !t.WaitTimeout(10 * time.Second) {
		log.Fatal(what, ": no answer within 10 s")
	}
	if t.Error() != nil {
		log.Fatal(what, ": ", t.Error())
	}
}
`;
}
