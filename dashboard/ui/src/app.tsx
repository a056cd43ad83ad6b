// The shell: rail, top bar, live pill; and which page is in it.

import { useEffect } from "preact/hooks";
import { called } from "./lib/called";
import { isLive, link, paused } from "./lib/live";
import { titleOf } from "./lib/pages";
import { route, type Route } from "./lib/route";
import { session } from "./lib/session";
import { NowherePage } from "./pages/nowhere";
import { OverviewPage } from "./pages/overview";
import { SetupPanel } from "./pages/setup";
import { SignInPage } from "./pages/signin";
import { Away } from "./parts/away";
import { Everywhere } from "./parts/everywhere";
import { lazy } from "./parts/lazy";
import { Rail } from "./parts/rail";
import { Toast } from "./parts/toast";
import { TopBar } from "./parts/topbar";
import { Undoing } from "./parts/undoing";

// What one need not have at once comes when it is opened; pages that share much come together.
const DevicesPage = lazy(() => import("./pages/set-devices").then((m) => m.DevicesPage));
const GroupsPage = lazy(() => import("./pages/set-devices").then((m) => m.GroupsPage));
const GroupPage = lazy(() => import("./pages/set-devices").then((m) => m.GroupPage));
const AdoptionPage = lazy(() => import("./pages/set-join").then((m) => m.AdoptionPage));
const ImportPage = lazy(() => import("./pages/set-join").then((m) => m.ImportPage));
const ProfilePage = lazy(() => import("./pages/set-join").then((m) => m.ProfilePage));
const ProfilesPage = lazy(() => import("./pages/set-join").then((m) => m.ProfilesPage));
const DevicePage = lazy(() => import("./pages/device").then((m) => m.DevicePage));
const InboxPage = lazy(() => import("./pages/set-notes").then((m) => m.InboxPage));
const TopicPage = lazy(() => import("./pages/set-notes").then((m) => m.TopicPage));
const TopicsPage = lazy(() => import("./pages/set-notes").then((m) => m.TopicsPage));
const WebhookPage = lazy(() => import("./pages/set-notes").then((m) => m.WebhookPage));
const WebhooksPage = lazy(() => import("./pages/set-notes").then((m) => m.WebhooksPage));
const AccountPage = lazy(() => import("./pages/set-people").then((m) => m.AccountPage));
const ClaimPage = lazy(() => import("./pages/set-people").then((m) => m.ClaimPage));
const ConfirmPage = lazy(() => import("./pages/set-people").then((m) => m.ConfirmPage));
const ForgotPage = lazy(() => import("./pages/set-people").then((m) => m.ForgotPage));
const InvitePage = lazy(() => import("./pages/set-people").then((m) => m.InvitePage));
const KeysPage = lazy(() => import("./pages/set-people").then((m) => m.KeysPage));
const ResetPage = lazy(() => import("./pages/set-people").then((m) => m.ResetPage));
const FirmwarePage = lazy(() => import("./pages/set-ship").then((m) => m.FirmwarePage));
const ReleasePage = lazy(() => import("./pages/set-ship").then((m) => m.ReleasePage));
const RolloutPage = lazy(() => import("./pages/set-ship").then((m) => m.RolloutPage));
const RolloutsPage = lazy(() => import("./pages/set-ship").then((m) => m.RolloutsPage));
const AuditPage = lazy(() => import("./pages/set-run").then((m) => m.AuditPage));
const SystemPage = lazy(() => import("./pages/set-run").then((m) => m.SystemPage));
const TasksPage = lazy(() => import("./pages/set-run").then((m) => m.TasksPage));
const ServicesPage = lazy(() => import("./pages/set-people").then((m) => m.ServicesPage));
const UsersPage = lazy(() => import("./pages/set-people").then((m) => m.UsersPage));

const CODE: Partial<Record<Route["page"], { preload(): void }>> = {
  devices: DevicesPage, groups: GroupsPage, group: GroupPage, device: DevicePage, inbox: InboxPage, topics: TopicsPage, topic: TopicPage, webhooks: WebhooksPage, webhook: WebhookPage,
  firmware: FirmwarePage, release: ReleasePage, rollouts: RolloutsPage, rollout: RolloutPage, dashboard: SystemPage, audit: AuditPage, tasks: TasksPage,
};

/** Asks for the code of the page that the address names, while it is not known yet who is signed in. */
export function preloadPage(): void {
  CODE[route.peek().page]?.preload();
}

export function App() {
  switch (route.value.page) {
    case "forgot":
      return <ForgotPage />;
    case "invite":
      return <InvitePage />;
    case "reset":
      return <ResetPage />;
    case "confirm":
      return <ConfirmPage />;
  }
  if (session.value === "checking") return null;
  if (session.value === "out") return <SignInPage />;
  return <Shell />;
}

function Shell() {
  const r = route.value;
  const id = "id" in r ? r.id : "";
  const title = titleOf(r.page, called.value.get(id) ?? "", id);
  useEffect(() => {
    document.title = `${title} · Muster`;
  }, [title]);
  const connecting = link.value.kind === "connecting";
  return (
    <div class="shell" data-live={isLive() && !paused.value ? "yes" : connecting ? "soon" : "no"}>
      <a class="skip" href="#main">Skip to content</a>
      <Rail />
      <div class="body">
        <TopBar />
        <main id="main" tabIndex={-1}>
          <SetupPanel />
          {r.page === "overview" && <OverviewPage />}
          {r.page === "account" && <AccountPage />}
          {r.page === "users" && <UsersPage />}
          {r.page === "keys" && <KeysPage />}
          {r.page === "inbox" && <InboxPage />}
          {r.page === "topics" && <TopicsPage />}
          {r.page === "topic" && <TopicPage key={r.id} id={r.id} />}
          {r.page === "webhooks" && <WebhooksPage />}
          {r.page === "webhook" && <WebhookPage key={r.id} id={r.id} />}
          {r.page === "firmware" && <FirmwarePage />}
          {r.page === "release" && <ReleasePage key={r.id} id={r.id} />}
          {r.page === "rollouts" && <RolloutsPage />}
          {r.page === "rollout" && <RolloutPage key={r.id} id={r.id} />}
          {r.page === "dashboard" && <SystemPage />}
          {r.page === "audit" && <AuditPage />}
          {r.page === "tasks" && <TasksPage />}
          {r.page === "device" && <DevicePage key={r.id} id={r.id} />}
          {r.page === "claim" && <ClaimPage code={r.code} />}
          {r.page === "groups" && <GroupsPage />}
          {r.page === "group" && <GroupPage key={r.id} id={r.id} />}
          {r.page === "profiles" && <ProfilesPage />}
          {r.page === "profile" && <ProfilePage key={r.id} id={r.id} />}
          {r.page === "adoption" && <AdoptionPage />}
          {r.page === "import" && <ImportPage />}
          {r.page === "service-accounts" && <ServicesPage />}
          {r.page === "devices" && <DevicesPage />}
          {r.page === "nowhere" && <NowherePage path={r.path} />}
        </main>
      </div>
      <Away />
      <Toast />
      <Undoing />
      <Everywhere />
    </div>
  );
}
