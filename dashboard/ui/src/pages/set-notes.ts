// The pages of notifications, in one script.

export { InboxPage } from "./inbox";
export { TopicPage } from "./topic";
export { TopicsPage } from "./topics";
export { WebhookPage } from "./webhook";
export { WebhooksPage } from "./webhooks";
