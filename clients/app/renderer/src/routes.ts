/** The addresses of the screens: the part of the page's address after `#`. */

/** A screen with what it shows. */
export type Route =
  | { readonly screen: "data"; readonly symbol?: string; readonly timeframe?: string }
  | { readonly screen: "run"; readonly copyOf?: string }
  | { readonly screen: "runs" }
  | { readonly screen: "backtest"; readonly id: string; readonly view?: string }
  | { readonly screen: "sweep"; readonly copyOf?: string }
  | { readonly screen: "sweeps"; readonly id?: string }
  | { readonly screen: "compare"; readonly ids: readonly string[] }
  | { readonly screen: "algorithms"; readonly algorithm?: string }
  | { readonly screen: "state"; readonly key?: string }
  | { readonly screen: "topics"; readonly topic?: string }
  | { readonly screen: "unknown"; readonly address: string };

/** The name of a screen. */
export type Screen = Route["screen"];

/** Returns the route of a hash such as `#/runs/3f?view=trades`. An empty one is the data screen. */
export function parseRoute(hash: string): Route {
  const address = hash.replace(/^#?\/?/, "");
  const [path = "", search = ""] = split(address, "?");
  const query = new URLSearchParams(search);
  const parts = path.split("/").filter((one) => one !== "");
  const [head, first, second, ...rest] = parts.map(decoded);
  const unknown: Route = { screen: "unknown", address };
  if (rest.length > 0 || parts.map(decoded).includes(undefined)) return unknown;
  switch (head) {
    case undefined:
      return { screen: "data" };
    case "data":
      return { screen: "data", ...given("symbol", first), ...given("timeframe", second) };
    case "run":
    case "sweep":
      return first === undefined ? { screen: head, ...given("copyOf", query.get("copy")) } : unknown;
    case "sweeps":
      return second === undefined ? { screen: "sweeps", ...given("id", first) } : unknown;
    case "runs":
      if (second !== undefined) return unknown;
      return first === undefined
        ? { screen: "runs" }
        : { screen: "backtest", id: first, ...given("view", query.get("view")) };
    case "compare":
      if (first !== undefined) return unknown;
      return { screen: "compare", ids: (query.get("ids") ?? "").split(",").filter((one) => one !== "") };
    case "algorithms":
      return second === undefined ? { screen: "algorithms", ...given("algorithm", first) } : unknown;
    case "state":
      return second === undefined ? { screen: "state", ...given("key", first) } : unknown;
    case "topics":
      return second === undefined ? { screen: "topics", ...given("topic", first) } : unknown;
    default:
      return unknown;
  }
}

/** Returns the hash of a route, with the `#`. */
export function formatRoute(route: Route): string {
  switch (route.screen) {
    case "data":
      return joined("data", route.symbol, route.symbol === undefined ? undefined : route.timeframe);
    case "run":
    case "sweep":
      return joined(route.screen) + query({ copy: route.copyOf });
    case "sweeps":
      return joined("sweeps", route.id);
    case "runs":
      return joined("runs");
    case "backtest":
      return joined("runs", route.id) + query({ view: route.view });
    case "compare":
      return joined("compare") + query({ ids: route.ids.length === 0 ? undefined : route.ids.join(",") });
    case "algorithms":
      return joined("algorithms", route.algorithm);
    case "state":
      return joined("state", route.key);
    case "topics":
      return joined("topics", route.topic);
    case "unknown":
      return `#/${route.address}`;
  }
}

function split(text: string, mark: string): [string, string?] {
  const at = text.indexOf(mark);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

function decoded(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined; // a lone percent sign
  }
}

function given<Name extends string>(name: Name, value: string | null | undefined): { readonly [N in Name]?: string } {
  return value === undefined || value === null || value === "" ? {} : ({ [name]: value } as { [N in Name]?: string });
}

function joined(...parts: readonly (string | undefined)[]): string {
  return `#/${parts
    .filter((one) => one !== undefined && one !== "")
    .map((one) => encodeURIComponent(one as string))
    .join("/")}`;
}

function query(values: Readonly<Record<string, string | undefined>>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== undefined && value !== "") search.set(name, value);
  const text = search.toString();
  return text === "" ? "" : `?${text}`;
}
