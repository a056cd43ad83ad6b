// The two ways that a live connection goes: a WebSocket, and where a proxy lets none
// through a stream of server-sent events with POST for what the page says. What is said
// on both is the same; see docs/stream.md.

import { sendToStream } from "./schema.gen";

/** One connection, whichever way it goes. */
export interface Wire {
  send(command: Record<string, unknown>): void;
  /** Ends it; closed is called, soon or at once. */
  close(): void;
  readonly stream: boolean;
}

export interface Heard {
  /** The server answers; a command may be sent. */
  opened(): void;
  message(data: unknown): void;
  /** It is over; code is the WebSocket's, 0 of a stream. */
  closed(code: number): void;
}

export function openSocket(on: Heard): Wire {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const ws = new WebSocket(`${scheme}//${location.host}/api/v1/live`, "muster.v1");
  ws.binaryType = "arraybuffer";
  ws.onopen = () => on.opened();
  ws.onmessage = (e) => on.message(e.data);
  ws.onclose = (e) => on.closed(e.code);
  return {
    stream: false,
    send: (command) => {
      if (ws.readyState === WebSocket.OPEN) ws.send(JSON.stringify(command));
    },
    close: () => ws.close(),
  };
}

const AT_ONCE = 64; // commands in one request

export function openStream(on: Heard): Wire {
  const es = new EventSource("/api/v1/stream?channel=page");
  const stop = new AbortController();
  let sid = "";
  let said: Record<string, unknown>[] = [];
  let saying = false;
  const close = () => {
    if (stop.signal.aborted) return;
    stop.abort();
    es.close(); // or it would come again by itself
    on.closed(0);
  };
  const speak = async () => {
    saying = true;
    await Promise.resolve(); // what is said in one go is sent in one
    while (said.length > 0 && !stop.signal.aborted) {
      const now = said.slice(0, AT_ONCE);
      said = said.slice(AT_ONCE);
      await sendToStream(sid, now, stop.signal).catch(close); // another server has the stream, or none
    }
    saying = false;
  };
  es.onmessage = (e: MessageEvent<string>) => {
    if (!sid) sid = sidOf(e.data);
    on.message(e.data);
  };
  es.addEventListener("binary", (e: MessageEvent<string>) => on.message(Uint8Array.from(atob(e.data), (c) => c.charCodeAt(0)).buffer));
  es.onerror = close;
  return {
    stream: true,
    send: (command) => {
      if (!sid || stop.signal.aborted) return;
      said.push(command);
      if (!saying) void speak();
    },
    close,
  };
}

/** The stream's name, which the first frame has. */
function sidOf(data: string): string {
  try {
    return String((JSON.parse(data) as { sid?: unknown }).sid ?? "");
  } catch {
    return "";
  }
}
