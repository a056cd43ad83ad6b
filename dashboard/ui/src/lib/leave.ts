// Leaving and muting a topic, which can be taken back for a short time.

import { deleteSubscription, putSubscription, type Subscription, type Topic, type WantedSubscription } from "./schema.gen";
import { topicName } from "./topics";
import { offer } from "./undo";

const T = {
  left: (topic: string) => `You are not subscribed to ${topic} any more.`,
  back: (topic: string) => `${topic}: your subscription is as it was.`,
};

/** What makes a subscription as it is. */
export function wantedOf(s: Subscription): WantedSubscription {
  return { ...(s.channels && { channels: s.channels }), ...(s.muted_until && { muted_until: s.muted_until }) };
}

/** Offers to make one's own subscription again what it was. */
export function undoable(topic: Topic, was: WantedSubscription, words: string, onChange: () => void): void {
  offer({ words, run: () => putSubscription(topic.id, "me", was).then(() => (onChange(), T.back(topicName(topic)))) });
}

/** Ends one's own subscription. */
export async function unsubscribe(topic: Topic, onChange: () => void): Promise<void> {
  await deleteSubscription(topic.id, "me");
  undoable(topic, topic.subscription ? wantedOf(topic.subscription) : {}, T.left(topicName(topic)), onChange);
}
