// The pages of those who look after the server, in one script.

export { AuditPage } from "./audit";
export { SystemPage } from "./system";
export { TasksPage } from "./tasks";
