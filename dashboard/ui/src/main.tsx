// The page's start: theme, clock, address bar, then who is signed in.

import { effect } from "@preact/signals";
import { render } from "preact";
import { App, preloadPage } from "./app";
import { startClock } from "./lib/clock";
import { startFleet } from "./lib/fleet";
import { startInbox } from "./lib/inbox";
import { startKeys } from "./lib/keymap";
import { startLive } from "./lib/live";
import { startRouter } from "./lib/route";
import { getMe } from "./lib/schema.gen";
import { me, session } from "./lib/session";
import { startTheme } from "./lib/theme";
import { startToast } from "./parts/toast";

startTheme();
startClock();
startRouter();
startKeys();
startToast();
startInbox();
preloadPage();

let started = false;
effect(() => {
  if (session.value !== "in") return;
  if (started) return;
  started = true;
  startFleet();
  startLive();
});

getMe()
  .then((m) => {
    me.value = m;
    session.value = "in";
  })
  .catch(() => {
    // The live connection says what is wrong and tries again; 401 has been taken.
    if (session.value === "checking") session.value = "in";
  });

render(<App />, document.getElementById("app")!);
