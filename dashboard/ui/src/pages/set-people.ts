// The pages of people, their keys and the links in their mails, in one script.

export { AccountPage } from "./account";
export { ClaimPage } from "./claim";
export { ConfirmPage, ForgotPage, InvitePage, ResetPage } from "./links";
export { KeysPage } from "./keys";
export { ServicesPage } from "./services";
export { UsersPage } from "./users";
