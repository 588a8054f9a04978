/** Errors: a class for each code, with what the broker said, and with the stack of whoever called. */

import { expect, test } from "vitest";
import * as errors from "../../src/core/errors.js";
import { errorFromWire } from "../../src/core/session.js";
import { ERRORS } from "../../src/generated/protocol.js";
import { failure } from "../support/signing.js";

test.each(Object.keys(ERRORS) as errors.ErrorCode[])("%s has a class of its own", (code) => {
  const error = errorFromWire(failure(code, { path: "$.x" }, ["wait"]));
  expect(error.code).toBe(code);
  expect(error).toBeInstanceOf(errors.BacktestrError);
  expect(error.constructor.name).toBe(error.name);
  expect(error.details).toEqual({ path: "$.x" });
  expect(error.severity).toBe("Error");
  expect(error.retriable).toBe(true);
  expect(error.recoveryActions.map((one) => one.action)).toEqual(["wait"]);
  const Kind = error.constructor as new (message: string) => errors.BacktestrError;
  const own = new Kind("mine");
  expect(own.severity).toBe(ERRORS[code].severity);
  expect(own.recoveryActions).toEqual(ERRORS[code].recoveryActions);
  expect(own.details).toBeNull();
});

test("a code of a later broker is a fault of the system", () => {
  const error = errorFromWire(failure("LATER"));
  expect(error).toBeInstanceOf(errors.SystemFault);
  expect(error.retriable).toBe(false);
});

test.each([null, {}, { ...failure("BUSY"), message: 5 }, { ...failure("BUSY"), severity: null }, { code: 1 }])(
  "%s is no error of the wire",
  (data) => {
    expect(() => errorFromWire(data)).toThrow(errors.ValidationError);
  },
);

test("an error has the stack of its caller, and everything else as it was", () => {
  const cause = new Error("first");
  const error = new errors.NotFound("no such thing", { kind: "backtest" }, { cause });
  function caller(): Error {
    return new Error("origin");
  }
  const told = error.at(caller());
  expect(told).not.toBe(error);
  expect(told).toBeInstanceOf(errors.NotFound);
  expect(told.message).toBe("no such thing");
  expect(told.details).toEqual({ kind: "backtest" });
  expect(told.cause).toBe(cause);
  expect(told.stack).toMatch(/^NotFound: no such thing\n\s+at caller /);
  const busy = errorFromWire(failure("BUSY", null, ["wait"])).at(new Error("o"));
  expect(busy.retriable).toBe(true);
  expect(busy.severity).toBe("Error");
  expect("cause" in busy).toBe(false);
  const without = new Error("o");
  Object.defineProperty(without, "stack", { value: undefined });
  expect(error.at(without).stack).toContain("NotFound: no such thing");
});

test("the client's own errors say what they are", () => {
  expect(new errors.Recovered("back").severity).toBe("Info");
  expect(new errors.Recovered("back").recoveryActions).toEqual([]);
  expect(new errors.CircuitOpen("open")).toBeInstanceOf(errors.NetworkError);
  expect(new errors.OfflineQueueFull("full").retriable).toBe(true);
  expect(new errors.MessagesLost("lost").severity).toBe("Warning");
  expect(new errors.ClosedError("closed").name).toBe("ClosedError");
  expect(new errors.ClosedError("closed")).not.toBeInstanceOf(errors.BacktestrError);
});

test("an error is written as a plain value", () => {
  const written = JSON.parse(JSON.stringify(new errors.Busy("full", { retryAfterMs: 5 })));
  expect(written).toMatchObject({ name: "Busy", code: "BUSY", message: "full", retriable: true, severity: "Warning" });
  expect(written.details).toEqual({ retryAfterMs: 5 });
});
