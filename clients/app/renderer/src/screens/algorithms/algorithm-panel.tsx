import type { AlgorithmInfo, ErrorData, ParameterInfo } from "@backtestr/client/page";
import { createMemo, createResource, For, type JSX, Show } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { ErrorPanel } from "../../components/error-panel";
import { count } from "../../format/numbers";
import { moment } from "../../format/times";
import { chooseAlgorithm } from "./choose-algorithm";
import { failedPlace } from "./python-source";
import { registrations } from "./registrations";
import { SourceView } from "./source-view";
import { Verdict } from "./verdict";

const ORIGINS = { "built-in": "Built in", folder: "The broker's folder", registered: "Registered" } as const;

/** How an origin is called. */
export function originWords(origin: AlgorithmInfo["origin"]): string {
  return origin === undefined ? "Unknown" : ORIGINS[origin];
}

/** All that is known of one algorithm. */
export function AlgorithmPanel(props: { readonly algorithm: AlgorithmInfo }): JSX.Element {
  const app = useApp();
  const ended = createMemo(() => {
    const state = app.backtests.state();
    const known = state.state === "there" ? state.value : [];
    return known.filter((one) => one.algorithmId === props.algorithm.algorithmId && one.endTime !== undefined).length;
  });
  // Its last error may be another one after each backtest of it.
  const [status] = createResource(
    () => ({ algorithmId: props.algorithm.algorithmId, ended: ended() }),
    ({ algorithmId }) => app.client.request("GetAlgorithmStatus", { algorithmId }),
  );
  const lastError = (): ErrorData | undefined => (status.error ? undefined : (status.latest?.lastError ?? undefined));
  return (
    <section class="panel" aria-label={props.algorithm.name}>
      <header class="panel-header">
        <h2>{props.algorithm.name}</h2>
        <div class="actions">
          <Button
            kind="primary"
            onClick={() => {
              chooseAlgorithm(app.drafts, props.algorithm.name);
              app.go({ screen: "run" });
            }}
          >
            Backtest it
          </Button>
        </div>
      </header>
      <div class="panel-body algorithm-body">
        <p>{props.algorithm.description || "Its author gives no description."}</p>
        <Show when={lastError()}>{(error) => <LastError algorithm={props.algorithm} error={error()} />}</Show>
        <div>
          <h3>Parameters</h3>
          <Parameters algorithm={props.algorithm} />
        </div>
        <div>
          <h3>Look-ahead check</h3>
          <Show
            when={props.algorithm.lookAhead}
            fallback={
              <p class="muted">
                {props.algorithm.origin === "built-in"
                  ? "It is built in; files are checked when they are registered."
                  : "Each of its backtests checks it, on its own bars."}
              </p>
            }
          >
            {(verdict) => (
              <Verdict
                verdict={verdict()}
                name={props.algorithm.name}
                source={registrations(app).sourceOf(props.algorithm.algorithmId)}
              />
            )}
          </Show>
        </div>
        <dl class="facts">
          <dt>Origin</dt>
          <dd>{originWords(props.algorithm.origin)}</dd>
          <dt>Version</dt>
          <dd>
            <code>{props.algorithm.version}</code>
          </dd>
          <Show when={props.algorithm.registeredTime}>
            {(time) => (
              <>
                <dt>Registered</dt>
                <dd>{moment(time())} UTC</dd>
              </>
            )}
          </Show>
          <dt>Trades</dt>
          <dd>{props.algorithm.across ? "Several symbols, which it compares" : "Each symbol by itself"}</dd>
          <dt>Warm-up</dt>
          <dd>{warmupWords(props.algorithm.warmup)}</dd>
          <dt>Running now</dt>
          <dd>{status.error ? "—" : count(status.latest?.activeBacktests)}</dd>
        </dl>
        <Versions algorithm={props.algorithm} />
      </div>
    </section>
  );
}

function warmupWords(warmup: number | undefined): string {
  if (warmup === undefined) return "Declares none";
  return warmup === 0 ? "Needs none" : `${count(warmup)} bars before the start, with its defaults`;
}

function Parameters(props: { readonly algorithm: AlgorithmInfo }): JSX.Element {
  return (
    <Show when={props.algorithm.parameters.length > 0} fallback={<p class="muted">It has none.</p>}>
      <div class="table-scroller" tabindex={0} role="group" aria-label="Parameters">
        <table class="plain-table">
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">Type</th>
              <th scope="col" class="end">
                Default
              </th>
              <th scope="col" class="end">
                Bounds
              </th>
              <th scope="col">Meaning</th>
            </tr>
          </thead>
          <tbody>
            <For each={props.algorithm.parameters}>
              {(one) => (
                <tr>
                  <th scope="row">
                    <code>{one.name}</code>
                  </th>
                  <td>{TYPES[one.type]}</td>
                  <td class="end">{String(one.default)}</td>
                  <td class="end">{bounds(one)}</td>
                  <td class="wide">{one.description ?? ""}</td>
                </tr>
              )}
            </For>
          </tbody>
        </table>
      </div>
      <Show when={(props.algorithm.requires?.length ?? 0) > 0}>
        <p class="relations">
          Relations:{" "}
          <For each={props.algorithm.requires}>
            {(one, at) => (
              <>
                {at() === 0 ? "" : ", "}
                <code>{one}</code>
              </>
            )}
          </For>
        </p>
      </Show>
    </Show>
  );
}

const TYPES = { bool: "yes or no", float: "number", int: "whole number", str: "text" } as const;

function bounds({ low, high }: ParameterInfo): string {
  if (low === undefined && high === undefined) return "";
  if (high === undefined) return `${low} or more`;
  return low === undefined ? `up to ${high}` : `${low} … ${high}`;
}

function LastError(props: { readonly algorithm: AlgorithmInfo; readonly error: ErrorData }): JSX.Element {
  const app = useApp();
  return (
    <ErrorPanel error={new Error(props.error.message)} title={`Its last error, ${moment(props.error.timestamp)} UTC`}>
      <Show when={failedPlace(props.error, props.algorithm.name)}>
        {(place) => (
          <SourceView
            source={registrations(app).sourceOf(props.algorithm.algorithmId)}
            place={place()}
            fileName={`${props.algorithm.name}.py`}
          />
        )}
      </Show>
    </ErrorPanel>
  );
}

interface Version {
  readonly version: string;
  readonly algorithmId: string;
  readonly backtests: number;
  readonly latest: number;
}

/** The versions that backtests have used: results of an earlier one can be repeated by its id. */
function Versions(props: { readonly algorithm: AlgorithmInfo }): JSX.Element {
  const app = useApp();
  const versions = createMemo((): readonly Version[] => {
    const state = app.backtests.state();
    const found = new Map<string, Version>();
    for (const one of state.state === "there" ? state.value : []) {
      const [name, version = ""] = one.algorithmId.split("@");
      if (name !== props.algorithm.name) continue;
      const before = found.get(version);
      found.set(version, {
        version,
        algorithmId: one.algorithmId,
        backtests: (before?.backtests ?? 0) + 1,
        latest: Math.max(before?.latest ?? 0, one.submitTime),
      });
    }
    return [...found.values()].sort((one, other) => other.latest - one.latest);
  });
  return (
    <Show when={versions().length > 0}>
      <div>
        <h3>Versions in backtests</h3>
        <div class="table-scroller" tabindex={0} role="group" aria-label="Versions in backtests">
          <table class="plain-table">
            <thead>
              <tr>
                <th scope="col">Version</th>
                <th scope="col" class="end">
                  Backtests
                </th>
                <th scope="col">Latest</th>
                <th scope="col">
                  <span class="visually-hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              <For each={versions()}>
                {(one) => (
                  <tr>
                    <td>
                      <code>{one.version}</code>
                      <Show when={one.version === props.algorithm.version}>
                        <span class="muted"> present</span>
                      </Show>
                    </td>
                    <td class="end">{count(one.backtests)}</td>
                    <td>{moment(one.latest).slice(0, 16)}</td>
                    <td>
                      <Show when={one.version !== props.algorithm.version}>
                        <Button
                          kind="quiet"
                          onClick={() => {
                            chooseAlgorithm(app.drafts, one.algorithmId);
                            app.go({ screen: "run" });
                          }}
                        >
                          Backtest this version
                        </Button>
                      </Show>
                    </td>
                  </tr>
                )}
              </For>
            </tbody>
          </table>
        </div>
      </div>
    </Show>
  );
}
