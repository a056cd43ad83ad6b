// The shell: rail, top bar, live pill; and which page is in it.

import { useEffect } from "preact/hooks";
import { isLive, link } from "./lib/live";
import { route } from "./lib/route";
import { session } from "./lib/session";
import { ClaimPage } from "./pages/claim";
import { DevicePage } from "./pages/device";
import { DevicesPage } from "./pages/devices";
import { SignInPage } from "./pages/signin";
import { Rail } from "./parts/rail";
import { TopBar } from "./parts/topbar";

export function App() {
  if (session.value === "checking") return null;
  if (session.value === "out") return <SignInPage />;
  return <Shell />;
}

function Shell() {
  const r = route.value;
  const title = r.page === "device" ? r.id : r.page === "claim" ? "Claim a device" : "Devices";
  useEffect(() => {
    document.title = `${title} · Muster`;
  }, [title]);
  const connecting = link.value.kind === "connecting";
  return (
    <div class="shell" data-live={isLive() ? "yes" : connecting ? "soon" : "no"}>
      <a class="skip" href="#main">Skip to content</a>
      <Rail />
      <div class="body">
        <TopBar />
        <main id="main" tabIndex={-1}>
          {r.page === "device" && <DevicePage key={r.id} id={r.id} />}
          {r.page === "claim" && <ClaimPage code={r.code} />}
          {r.page === "devices" && <DevicesPage />}
        </main>
      </div>
    </div>
  );
}
