// A page whose code is loaded when it is opened first.

import { signal } from "@preact/signals";
import type { ComponentType } from "preact";

const T = {
  loading: "Loading",
  failed: "The code of this page could not be loaded. The server may have been updated or may be away.",
  reload: "Reload the page",
};

/** A component whose code may be asked for before it is shown. */
export type Lazy<P extends object> = ComponentType<P> & { preload(): void };

/** Returns a component that loads its code once it is shown, or before by preload, by load.
 * While that takes, the page is empty; when it fails, the reader is offered a reload: after an
 * update of the server the old page's files are gone. */
export function lazy<P extends object>(load: () => Promise<ComponentType<P>>): Lazy<P> {
  const code = signal<{ page?: ComponentType<P>; failed?: boolean } | null>(null);
  let asked = false;
  const preload = () => {
    if (asked) return;
    asked = true;
    load().then(
      (page) => (code.value = { page }),
      () => (code.value = { failed: true }),
    );
  };
  const Shown = (props: P) => {
    preload();
    const c = code.value;
    if (c?.page) {
      const Page = c.page;
      return <Page {...props} />;
    }
    if (c?.failed) {
      return (
        <p class="quiet-note" role="alert">
          {T.failed} <button type="button" class="btn" onClick={() => location.reload()}>{T.reload}</button>
        </p>
      );
    }
    return <p class="vh" role="status">{T.loading}</p>;
  };
  return Object.assign(Shown, { preload });
}
