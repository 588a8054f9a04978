import type { BacktestProgress, BacktestStatus } from "@backtestr/client/page";
import { createRoot } from "solid-js";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { withProgress, withStatus } from "../../renderer/src/stores/backtests";
import { createDrafts, type DraftState } from "../../renderer/src/stores/drafts";
import { createListing } from "../../renderer/src/stores/listing";
import { createNotices } from "../../renderer/src/stores/notices";
import { createPostponed, UNDO_MS } from "../../renderer/src/stores/postponed";
import { keepReading } from "../../renderer/src/stores/reading";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** The shared state of a test: it fails while it is away. */
class State implements DraftState {
  readonly values = new Map<string, unknown>();
  readonly watchers = new Map<string, (value: unknown) => void>();
  away = false;
  writes = 0;

  async set(key: string, value: unknown): Promise<unknown> {
    if (this.away) throw new Error("no broker");
    this.writes += 1;
    this.tell(key, value);
    return value;
  }
  tell(key: string, value: unknown): void {
    this.values.set(key, value);
    this.watchers.get(key)?.(value);
  }
  subscribe(key: string, callback: (value: unknown) => void): () => void {
    this.watchers.set(key, callback);
    callback(this.values.get(key));
    return () => this.watchers.delete(key);
  }
}

const text = (kept: unknown): string | undefined => (typeof kept === "string" ? kept : undefined);

test("a draft is written once typing rests, and is there for the next page", async () => {
  const state = new State();
  await createRoot(async (dispose) => {
    const draft = createDrafts(state).open("run", "", text);
    for (const letter of "abc") draft.change((now) => now + letter);
    expect([draft.value(), draft.unsaved(), state.writes]).toEqual(["abc", true, 0]);
    await vi.advanceTimersByTimeAsync(500);
    expect([draft.unsaved(), state.writes, state.values.get("app.draft.run")]).toEqual([false, 1, "abc"]);
    expect(createDrafts(state).open("run", "", text).value()).toBe("abc");
    dispose();
  });
});

test("a draft typed while the broker is away is kept, and written when it is back", async () => {
  const state = new State();
  state.away = true;
  await createRoot(async (dispose) => {
    const drafts = createDrafts(state);
    const draft = drafts.open("run", "", text);
    draft.change(() => "typed");
    await vi.advanceTimersByTimeAsync(5_000);
    expect([draft.value(), draft.unsaved()]).toEqual(["typed", true]);
    state.tell("app.draft.run", "older"); // of another page, before this one's
    expect(draft.value()).toBe("typed");
    state.away = false;
    drafts.flush();
    await vi.advanceTimersByTimeAsync(0);
    expect([draft.unsaved(), state.values.get("app.draft.run")]).toEqual([false, "typed"]);
    dispose();
  });
});

test("a draft says once the broker has told what was kept, so that nothing is filled in over it", () => {
  const state = new State();
  const silent: DraftState = { ...state, set: state.set.bind(state), subscribe: () => () => undefined };
  createRoot((dispose) => {
    expect(createDrafts(silent).open("run", "", text).known()).toBe(false);
    expect(createDrafts(state).open("run", "", text).known()).toBe(true);
    dispose();
  });
});

test("what is typed before the broker has told what was kept is made to that", async () => {
  const state = new State();
  let tell = (_value: unknown): void => undefined;
  const late: DraftState = {
    set: (key, value) => state.set(key, value),
    subscribe: (_key, callback) => {
      tell = callback;
      return () => undefined;
    },
  };
  await createRoot(async (dispose) => {
    const check = (kept: unknown) => kept as { a: string; b: string } | undefined;
    const draft = createDrafts(late).open("run", { a: "", b: "" }, check);
    draft.change((now) => ({ ...now, b: "typed" }));
    await vi.advanceTimersByTimeAsync(1_000);
    expect([draft.value(), state.writes]).toEqual([{ a: "", b: "typed" }, 0]);
    tell({ a: "kept", b: "kept" });
    await vi.advanceTimersByTimeAsync(0);
    expect(draft.value()).toEqual({ a: "kept", b: "typed" });
    expect(state.values.get("app.draft.run")).toEqual({ a: "kept", b: "typed" });
    expect(draft.unsaved()).toBe(false);
    dispose();
  });
});

test("what another page types is taken, and what is no draft is not", () => {
  const state = new State();
  createRoot((dispose) => {
    const draft = createDrafts(state).open("run", "first", text);
    state.tell("app.draft.run", "theirs");
    expect(draft.value()).toBe("theirs");
    state.tell("app.draft.run", 5);
    expect(draft.value()).toBe("theirs");
    dispose();
  });
});

test("what another page types while a draft is written is taken once that is done", async () => {
  const state = new State();
  await createRoot(async (dispose) => {
    let stored = (): void => undefined;
    const slow: DraftState = {
      set: (key, value) =>
        new Promise((resolve) => {
          state.tell(key, value);
          stored = () => resolve(value);
        }),
      subscribe: (key, callback) => state.subscribe(key, callback),
    };
    const draft = createDrafts(slow).open("run", "", text);
    draft.change(() => "mine");
    state.tell("app.draft.run", "older");
    await vi.advanceTimersByTimeAsync(500);
    expect([draft.value(), draft.unsaved()]).toEqual(["mine", true]);
    state.tell("app.draft.run", "theirs");
    expect(draft.value()).toBe("mine");
    stored();
    await vi.advanceTimersByTimeAsync(0);
    expect([draft.value(), draft.unsaved()]).toEqual(["theirs", false]);
    dispose();
  });
});

test("what the broker has joined with another page's change is what the draft has then", async () => {
  const state = new State();
  await createRoot(async (dispose) => {
    const joining: DraftState = {
      set: async (_key, value) => `${value} and theirs`,
      subscribe: (key, callback) => state.subscribe(key, callback),
    };
    const draft = createDrafts(joining).open("run", "", text);
    draft.change(() => "mine");
    await vi.advanceTimersByTimeAsync(500);
    expect([draft.value(), draft.unsaved()]).toEqual(["mine and theirs", false]);
    dispose();
  });
});

test("a listing says what it waits for, what failed, and keeps what it had", async () => {
  const answers: (() => Promise<number>)[] = [
    () => Promise.reject(new Error("no broker")),
    async () => 1,
    () => Promise.reject(new Error("away again")),
    async () => 2,
  ];
  const listing = createListing("the numbers", () => (answers.shift() as () => Promise<number>)());
  expect(listing.state()).toMatchObject({ state: "waiting", what: "the numbers" });
  await listing.refresh();
  expect(listing.state()).toMatchObject({ state: "failed", what: "the numbers" });
  await listing.refresh();
  expect(listing.state()).toEqual({ state: "there", value: 1 });
  await listing.refresh();
  expect(listing.state()).toMatchObject({ state: "there", value: 1, error: new Error("away again") });
  await listing.refresh();
  expect(listing.state()).toEqual({ state: "there", value: 2 });
});

test("many refreshes during a read make one more", async () => {
  let reads = 0;
  let answer = (): void => undefined;
  const listing = createListing("x", () => {
    reads += 1;
    return new Promise<number>((resolve) => {
      answer = () => resolve(reads);
    });
  });
  const all = [listing.refresh(), listing.refresh(), listing.refresh()];
  answer();
  await vi.advanceTimersByTimeAsync(0);
  answer();
  await Promise.all(all);
  expect(reads).toBe(2);
  expect(listing.state()).toEqual({ state: "there", value: 2 });
});

test("a stream that fails is opened again, with pauses that grow, until it is ended", async () => {
  const taken: number[] = [];
  const opened: number[] = [];
  const began = Date.now();
  const end = keepReading(
    async function* () {
      opened.push(Date.now() - began);
      if (opened.length === 3) yield 7;
      throw new Error("lost");
    },
    (item) => taken.push(item),
  );
  await vi.advanceTimersByTimeAsync(1_600);
  expect([opened, taken]).toEqual([[0, 500, 1_500], [7]]);
  await vi.advanceTimersByTimeAsync(600);
  expect(opened.length).toBe(4); // after an item the pauses are short again
  end();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(opened.length).toBe(4);
});

test("notices go by themselves, errors stay, and the oldest gives way", () => {
  const notices = createNotices();
  notices.show("done");
  notices.show("failed", { kind: "error" });
  vi.advanceTimersByTime(7_000);
  expect(notices.shown().map((one) => one.text)).toEqual(["failed"]);
  for (let number = 0; number < 9; number += 1) notices.show(`error ${number}`, { kind: "error" });
  expect(notices.shown().length).toBe(5);
  notices.dismiss(notices.shown()[0]?.id ?? 0);
  expect(notices.shown().map((one) => one.text)).toEqual(["error 5", "error 6", "error 7", "error 8"]);
});

test("a deletion waits, is undone by its notice, and ends once it is done", async () => {
  const notices = createNotices();
  const deletions = createPostponed(notices);
  const done: string[] = [];
  const act = (name: string) => async () => {
    done.push(name);
  };
  deletions.start(["a"], "Series a", act("a"));
  deletions.start(["b", "c"], "2 series", act("b and c"));
  deletions.start(["a"], "Series a", act("a again")); // it is on its way
  expect([...deletions.pending()]).toEqual(["a", "b", "c"]);
  notices.shown()[0]?.action?.run();
  expect([...deletions.pending()]).toEqual(["b", "c"]);
  await vi.advanceTimersByTimeAsync(UNDO_MS);
  expect([done, deletions.pending().size]).toEqual([["b and c"], 0]);
});

const STATUS: BacktestStatus = {
  backtestId: "a",
  status: "running",
  algorithmId: "x@1",
  symbol: "S",
  progressPercent: 10,
  submitTime: 1,
};

test("a status replaces the one that is known, or comes first", () => {
  const known = withStatus([STATUS], { ...STATUS, backtestId: "b" });
  expect(known.map((one) => one.backtestId)).toEqual(["b", "a"]);
  expect(withStatus(known, { ...STATUS, status: "completed" })[1]?.status).toBe("completed");
});

test("progress goes forwards, and only of what runs", () => {
  const progress = (percent: number): BacktestProgress => ({ backtestId: "a", progressPercent: percent }) as never;
  expect(withProgress([STATUS], progress(50))[0]?.progressPercent).toBe(50);
  for (const [status, percent] of [
    ["running", 5],
    ["completed", 50],
  ] as const) {
    const known = [{ ...STATUS, status }];
    expect(withProgress(known, progress(percent))).toBe(known);
  }
});
