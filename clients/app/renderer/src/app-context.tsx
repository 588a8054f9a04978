/** The context of every screen: the host, the client, and the stores that outlive screens. */

import type { AlgorithmList, RemoteClient, SeriesInfo } from "@backtestr/client/page";
import { createContext, useContext } from "solid-js";
import type { Host } from "./host/host";
import type { Route } from "./routes";
import { type BacktestsStore, createBacktests } from "./stores/backtests";
import { type ConnectionStore, createConnection } from "./stores/connection";
import { createDrafts, type DraftsStore } from "./stores/drafts";
import { createListing, type Listing } from "./stores/listing";
import { createNotices, type NoticesStore } from "./stores/notices";
import { createPostponed, type Postponed } from "./stores/postponed";
import { sharedDrafts } from "./stores/shared-drafts";

export interface App {
  readonly host: Host;
  readonly client: RemoteClient;
  readonly connection: ConnectionStore;
  readonly catalogue: Listing<readonly SeriesInfo[]>;
  readonly algorithms: Listing<AlgorithmList>;
  readonly backtests: BacktestsStore;
  readonly drafts: DraftsStore;
  readonly notices: NoticesStore;
  readonly deletions: Postponed;
  /**
   * Reads lists again that another program may have changed: the broker tells nobody of imports and registrations. Without
   * a connection it does nothing, since all lists are read at the next one.
   */
  reread(...lists: readonly Pick<Listing<never>, "refresh">[]): void;
  /** Shows another screen. */
  go(route: Route): void;
}

const Context = createContext<App>();
export const AppProvider = Context.Provider;

/** Returns the app of the component that calls it. */
export function useApp(): App {
  const app = useContext(Context);
  if (app === undefined) throw new Error("useApp is called outside of the app");
  return app;
}

/** Makes the stores over the client of `host`. */
export function createApp(host: Host, go: (route: Route) => void): App {
  const client = host.connect();
  const connection = createConnection(host, client);
  const catalogue = createListing("the broker's list of series", async () => {
    const { series } = await client.request("ListMarketData", {});
    return series;
  });
  const algorithms = createListing("the broker's list of algorithms", () => client.request("ListAlgorithms", {}));
  const backtests = createBacktests(client);
  const drafts = createDrafts(sharedDrafts(client));
  const notices = createNotices();
  const deletions = createPostponed(notices);
  connection.onReady(() => {
    for (const one of [catalogue, algorithms, backtests]) void one.refresh();
    drafts.flush();
  });
  const reread = (...lists: readonly Pick<Listing<never>, "refresh">[]): void => {
    if (connection.status() === "ready") for (const one of lists) void one.refresh();
  };
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") reread(catalogue, algorithms, backtests);
  });
  window.addEventListener("pagehide", () => drafts.flush());
  return { host, client, connection, catalogue, algorithms, backtests, drafts, notices, deletions, reread, go };
}
