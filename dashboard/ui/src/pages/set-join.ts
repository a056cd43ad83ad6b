// How devices come in and what is wanted of all of them: adoption, profiles and lists, in one script.

export { AdoptionPage } from "./adoption";
export { ImportPage } from "./import";
export { ProfilePage } from "./profile";
export { ProfilesPage } from "./profiles";
