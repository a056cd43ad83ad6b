// The empty inbox: how the first notification comes.

import { shellWord } from "../lib/copy";
import { may } from "../lib/session";
import { SYSTEM, topicName, topics } from "../lib/topics";
import { CopyLine } from "../parts/copyline";

const T = {
  title: "Nothing yet",
  how: "What is sent to a topic that you subscribe to comes here, while you are away too.",
  first: "Subscribe to a topic",
  make: "Make a topic and subscribe to it",
  see: "Topics",
  mine: (names: string) => `You are subscribed to ${names}.`,
  then: "Then send the first one from the topic's page, or with an API key that has the scope notify:send:",
  line: "The command that sends a notification",
};

export function FirstNotification() {
  const all = [...(topics.value?.values() ?? [])].filter((t) => t.id !== SYSTEM);
  const mine = all.filter((t) => t.subscription);
  const name = (mine[0] ?? all[0])?.name ?? "alerts";
  const line = `curl -sS ${shellWord(location.origin + "/api/v1/notifications")} -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d '${JSON.stringify({ topic: name, severity: "major", title: "Hello" })}'`;
  return (
    <div class="firstnote stack">
      <h2>{T.title}</h2>
      <p>{T.how}</p>
      {mine.length > 0
        ? <p>{T.mine(mine.map(topicName).join(", "))} <a class="link" href="/topics">{T.see}</a></p>
        : <p><a class="btn pri" href="/topics">{all.length > 0 || !may("topics:write") ? T.first : T.make}</a></p>}
      <p>{T.then}</p>
      <CopyLine text={line} label={T.line} />
    </div>
  );
}
