/** The host of a page: its requests, what they say of the server, and uploads, against a real server. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { HostError, type HostState } from "../../renderer/src/host/host";
import { type ClientWorker, PageHost } from "../../renderer/src/host/page-host";

interface Asked {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly body: string;
}

const SESSION = { version: "1", protocolVersion: 1, uploadLimitBytes: 5, brokerMayBeStarted: true };

let server: Server;
let asked: Asked[];
let answer: (request: IncomingMessage, response: ServerResponse) => void;
let realFetch: typeof fetch;

function say(response: ServerResponse, status: number, body?: unknown): void {
  response.writeHead(status, { "access-control-allow-origin": "*", "access-control-allow-methods": "*" });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}

beforeEach(async () => {
  asked = [];
  answer = (_request, response) => say(response, 200, SESSION);
  server = createServer((request, response) => {
    // jsdom takes the server for another origin, and asks before it sends.
    if (request.method === "OPTIONS") return say(response, 200);
    const parts: Buffer[] = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      asked.push({ method: request.method, url: request.url, body: Buffer.concat(parts).toString() });
      answer(request, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  // The page's own addresses have no origin: here they are those of the server.
  realFetch = globalThis.fetch;
  globalThis.fetch = (address, options) => realFetch(new URL(String(address), origin), options);
  const open = XMLHttpRequest.prototype.open;
  vi.spyOn(XMLHttpRequest.prototype, "open").mockImplementation(function (this: XMLHttpRequest, ...args: unknown[]) {
    const [method, address] = args as [string, string];
    return open.call(this, method, new URL(address, origin).href, true);
  });
});

afterEach(async () => {
  globalThis.fetch = realFetch;
  vi.restoreAllMocks();
  vi.useRealTimers();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

/** A worker that only listens, and can be told to speak. */
class SilentWorker extends EventTarget {
  readonly posted: unknown[] = [];
  postMessage(message: unknown): void {
    this.posted.push(message);
  }
  says(data: unknown): void {
    this.dispatchEvent(new MessageEvent("message", { data }));
  }
}

function opened(): [PageHost, SilentWorker, HostState[]] {
  const worker = new SilentWorker();
  const host = new PageHost(worker as unknown as ClientWorker);
  const states: HostState[] = [];
  host.onState((state) => states.push(state));
  return [host, worker, states];
}

it("gives its session, and asks the server only as long as the broker is not reached", async () => {
  const [host, worker, states] = opened();
  expect(await host.session()).toEqual(SESSION);
  worker.says({ type: "status", status: "ready", welcome: null });
  expect(host.connect()).toBe(host.connect());
  expect(host.connect().status).toBe("ready");
  expect(states).toEqual([{ kind: "reachable" }]);
  vi.useFakeTimers();
  const before = asked.length;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked.length - before).toBeLessThanOrEqual(1);
});

it("tells that the link is old, and when it is not any more", async () => {
  let isOld = true;
  answer = (_request, response) => (isOld ? say(response, 401, { error: {} }) : say(response, 200, SESSION));
  const [host, , states] = opened();
  await expect(host.session()).rejects.toMatchObject({ code: "SESSION_EXPIRED" });
  await vi.waitUntil(() => states.length === 2);
  expect(states[1]).toMatchObject({ kind: "expired" });
  expect(JSON.stringify(states[1])).toContain("run `backtestr ui` again and open the link it prints");
  isOld = false;
  await vi.waitUntil(() => states.length === 3, 10_000);
  expect(states[2]).toEqual({ kind: "reachable" });
});

it("tells that the server is gone", async () => {
  answer = (request) => request.socket.destroy();
  const [host, , states] = opened();
  await expect(host.session()).rejects.toMatchObject({ code: "HOST_UNREACHABLE" });
  await vi.waitUntil(() => states.length === 2);
  expect(states[1]).toMatchObject({ kind: "unreachable" });
});

it("states a refusal in the server's words, with what helps", async () => {
  const [host, , states] = opened();
  const action = { action: "install", description: "install it with: pip install 'backtestr[broker,engine]'" };
  const error = { code: "INVALID_CONFIGURATION", message: "the broker needs numba", recoveryActions: [action] };
  answer = (_request, response) => say(response, 409, { error });
  const refused = await host.startBroker().catch((found) => found);
  expect(refused).toBeInstanceOf(HostError);
  expect([refused.code, refused.message, refused.recoveryActions]).toEqual([error.code, error.message, [action]]);
  answer = (_request, response) => say(response, 500);
  await expect(host.startBroker()).rejects.toThrow("answered 500");
  expect(states).toEqual([{ kind: "reachable" }]);
});

it("uploads a file under its name with its progress, and has it removed", async () => {
  const [host] = opened();
  answer = (_request, response) => say(response, 201, { path: "/private/1/a b.csv", bytes: 5 });
  const shares: number[] = [];
  const file = new File(["12345"], "a b&c.csv");
  expect((await host.upload(file, (share) => shares.push(share))).path).toBe("/private/1/a b.csv");
  expect(shares[0]).toBe(0);
  expect(asked.find((one) => one.method === "POST")).toEqual({
    method: "POST",
    url: "/api/uploads?name=a+b%26c.csv",
    body: "12345",
  });
  answer = (_request, response) => say(response, 413, { error: { code: "MESSAGE_TOO_LARGE", message: "5 bytes" } });
  await expect(host.upload(file, () => undefined)).rejects.toMatchObject({ code: "MESSAGE_TOO_LARGE" });
  answer = (request) => request.socket.destroy();
  await expect(host.upload(file, () => undefined)).rejects.toMatchObject({ code: "HOST_UNREACHABLE" });
});

it("stops an upload", async () => {
  const [host] = opened();
  const file = new File(["12345"], "a.csv");
  const abort = new AbortController();
  answer = () => abort.abort();
  await expect(host.upload(file, () => undefined, abort.signal)).rejects.toMatchObject({ name: "AbortError" });
  await expect(host.upload(file, () => undefined, abort.signal)).rejects.toMatchObject({ name: "AbortError" });
});

it("removes an upload by its path", async () => {
  const [host] = opened();
  await host.session();
  answer = (_request, response) => {
    response.writeHead(200, { "access-control-allow-origin": "*" });
    response.end();
  };
  await host.discard("/private/1/a b.csv");
  expect(asked.at(-1)).toMatchObject({ method: "DELETE", url: "/api/uploads?path=%2Fprivate%2F1%2Fa+b.csv" });
});

it("gives up its client where the worker fails", async () => {
  const [host, worker] = opened();
  worker.dispatchEvent(new ErrorEvent("error", { message: "it is broken" }));
  await expect(host.connect().ready()).rejects.toThrow("it is broken");
  expect(host.connect().status).toBe("closed");
});
