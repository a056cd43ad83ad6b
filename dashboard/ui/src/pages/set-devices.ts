// The list of devices and the groups, in one script.

export { DevicesPage } from "./devices";
export { GroupPage } from "./group";
export { GroupsPage } from "./groups";
