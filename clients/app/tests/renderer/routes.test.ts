import fc from "fast-check";
import { expect, test } from "vitest";
import { formatRoute, parseRoute, type Route } from "../../renderer/src/routes";

const text = fc.string({ minLength: 1, maxLength: 40, unit: "grapheme" });
const id = fc.uuid();

const routes: fc.Arbitrary<Route> = fc.oneof(
  fc.record({ screen: fc.constant("data" as const), symbol: text, timeframe: text }),
  fc.constant<Route>({ screen: "data" }),
  fc.record({ screen: fc.constant("run" as const), copyOf: id }),
  fc.constant<Route>({ screen: "runs" }),
  fc.record({ screen: fc.constant("backtest" as const), id: text, view: text }),
  fc.record({ screen: fc.constant("sweep" as const), copyOf: id }),
  fc.record({ screen: fc.constant("sweeps" as const), id: text }),
  fc.constant<Route>({ screen: "sweeps" }),
  fc.record({ screen: fc.constant("compare" as const), ids: fc.array(id, { maxLength: 8 }) }),
  fc.record({ screen: fc.constant("algorithms" as const), algorithm: text }),
  fc.record({ screen: fc.constant("state" as const), key: text }),
  fc.record({ screen: fc.constant("topics" as const), topic: text }),
);

test("every route comes back from its address", () => {
  fc.assert(
    fc.property(routes, (route) => {
      expect(parseRoute(formatRoute(route))).toEqual(route);
    }),
  );
});

test("any address is a route, and those that are none say so", () => {
  fc.assert(
    fc.property(fc.string(), (address) => {
      expect(typeof parseRoute(`#/${address}`).screen).toBe("string");
    }),
  );
  expect(parseRoute("#/nowhere")).toEqual({ screen: "unknown", address: "nowhere" });
  expect(parseRoute("#/runs/a/b")).toEqual({ screen: "unknown", address: "runs/a/b" });
  expect(parseRoute("#/data/%zz")).toEqual({ screen: "unknown", address: "data/%zz" });
});

test("an empty address is the data screen", () => {
  for (const empty of ["", "#", "#/"]) expect(parseRoute(empty)).toEqual({ screen: "data" });
});
