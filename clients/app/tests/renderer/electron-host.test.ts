/** The host of a window of the Electron app, over a preload that is made here. */

import { expect, it } from "vitest";
import { CLIENT_PORT, type ElectronBridge } from "../../renderer/src/host/electron-bridge";
import { ElectronHost } from "../../renderer/src/host/electron-host";

const SESSION = { version: "1", protocolVersion: 1, uploadLimitBytes: null, brokerMayBeStarted: true };

function opened(bridge: Partial<ElectronBridge> = {}) {
  const posted: { message: unknown; port: MessagePort }[] = [];
  const routes: string[] = [];
  let choose: (route: string) => void = () => undefined;
  const host = new ElectronHost(
    {
      session: async () => ({ value: SESSION }),
      startBroker: async () => ({ value: null }),
      pathOf: (file) => `/home/me/${file.name}`,
      save: async () => ({ value: true }),
      onRoute: (listener) => {
        choose = listener;
      },
      ...bridge,
    },
    (message, port) => posted.push({ message, port }),
    (route) => routes.push(route),
  );
  return { host, posted, routes, choose: (route: string) => choose(route) };
}

it("gives the preload one end of a channel, at whose other end its client is", async () => {
  const { host, posted } = opened();
  expect(posted.map((one) => one.message)).toEqual([CLIENT_PORT]);
  const heard = new Promise((resolve) => {
    posted[0]!.port.onmessage = ({ data }) => resolve(data);
  });
  const pinged = host.connect().request("Ping", {});
  expect(await heard).toMatchObject({ type: "call", call: "request" });
  posted[0]!.port.postMessage({ type: "status", status: "ready", welcome: null });
  await new Promise<void>((resolve) => host.connect().onStatus(() => resolve()));
  expect(host.connect().status).toBe("ready");
  posted[0]!.port.close();
  await expect(pinged).rejects.toThrow("its port was closed");
});

it("imports the user's own file where it is, and leaves it there", async () => {
  const { host } = opened();
  const shares: number[] = [];
  const upload = await host.upload(new File(["1"], "a.csv"), (share) => shares.push(share));
  expect([upload.path, shares]).toEqual(["/home/me/a.csv", [1]]);
  await host.discard(upload.path);
  const { host: other } = opened({ pathOf: () => "" });
  await expect(other.upload(new File(["1"], "a.csv"), () => undefined)).rejects.toMatchObject({ code: "NO_SUCH_FILE" });
  const stopped = AbortSignal.abort();
  await expect(host.upload(new File(["1"], "a.csv"), () => undefined, stopped)).rejects.toThrow();
});

it("passes on the answers and errors of the main process", async () => {
  const saved: unknown[] = [];
  const { host, routes, choose } = opened({
    startBroker: async () => ({ error: { code: "BROKER_NOT_FOUND", message: "install backtestr" } }),
    save: async (name, bytes) => {
      saved.push([name, new TextDecoder().decode(bytes)]);
      return { value: false };
    },
  });
  expect(await host.session()).toEqual(SESSION);
  await expect(host.startBroker()).rejects.toMatchObject({ code: "BROKER_NOT_FOUND", message: "install backtestr" });
  const blob = { arrayBuffer: async () => new TextEncoder().encode("a,b").buffer } as Blob;
  await host.save("trades.csv", blob);
  expect(saved).toEqual([["trades.csv", "a,b"]]);
  choose("#/data");
  expect(routes).toEqual(["#/data"]);
  const states: unknown[] = [];
  host.onState((state) => states.push(state));
  expect(states).toEqual([{ kind: "reachable" }]);
});
