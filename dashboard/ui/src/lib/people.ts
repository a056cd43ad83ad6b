// What the users and keys are called of whom the API says only the id, as far as one may know that.

import { useAsked } from "./ask";
import { listAPIKeys, listUsers } from "./schema.gen";
import { isAdmin, me } from "./session";

const MOST = 1000; // users that are asked for

/** The name for each of some ids: one's own; and, for admins, that of every user and key there is. Another is said by its id. */
export function useNames(ids: readonly string[]): (id: string) => string {
  const own = me.value?.user;
  const strangers = ids.some((id) => id !== "" && id !== own?.id);
  const asked = useAsked(isAdmin() && strangers ? async (stop) => {
    const [keys, users] = await Promise.all([listAPIKeys(stop), listUsers({ limit: MOST }, stop)]);
    return new Map([...keys.items.map((k) => [k.id, k.name] as const), ...users.items.map((u) => [u.id, u.name || u.email] as const)]);
  } : null, "names");
  return (id) => (id === own?.id && (own.name || own.email)) || asked.answer?.get(id) || id;
}
