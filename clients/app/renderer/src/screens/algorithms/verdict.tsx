import type { LookAhead } from "@backtestr/client/page";
import { For, type JSX, Show } from "solid-js";
import { count } from "../../format/numbers";
import { placeIn } from "./python-source";
import { SourceView } from "./source-view";

/** A verdict in a few words, with its sense. */
export function verdictWords(verdict: LookAhead | undefined): {
  readonly sense: "good" | "bad" | "wait" | "none";
  readonly text: string;
} {
  if (verdict === undefined) return { sense: "none", text: "—" };
  if (verdict.passed) return { sense: "good", text: "Passed" };
  if (verdict.finding !== undefined) return { sense: "bad", text: "Looks ahead" };
  return { sense: "wait", text: "Check failed" };
}

const MARKS = { good: "●", bad: "▲", wait: "◐", none: "" } as const;

/** A verdict of the look-ahead check as a mark with its words. */
export function VerdictMark(props: { readonly verdict: LookAhead | undefined }): JSX.Element {
  const words = () => verdictWords(props.verdict);
  return (
    <span class={`verdict ${words().sense}`}>
      <Show when={MARKS[words().sense]}>
        {(mark) => (
          <span class="verdict-mark" aria-hidden="true">
            {mark()}
          </span>
        )}
      </Show>
      {words().text}
    </span>
  );
}

/** The verdict of the look-ahead check with its reason, and what was checked. */
export function Verdict(props: {
  readonly verdict: LookAhead;
  readonly name: string;
  readonly source: string | undefined;
}): JSX.Element {
  return (
    <div class="verdict-body">
      <p>
        <VerdictMark verdict={props.verdict} />
        <span class="muted">
          {" "}
          on {count(props.verdict.bars)} bars with {count(props.verdict.cuts)} cuts
        </span>
      </p>
      <Show when={props.verdict.finding}>
        {(finding) => (
          <p>
            <code>{finding().signal}</code> of bar {count(finding().bar)} changes when bars after bar{" "}
            {count(finding().cut)} become known
            <Show when={finding().sample}> ({finding().sample})</Show>. {finding().explanation}
          </p>
        )}
      </Show>
      <Show when={props.verdict.problem}>
        {(problem) => (
          <Show when={placeIn(problem(), props.name)} fallback={<p>{problem()}</p>}>
            {(place) => <SourceView source={props.source} place={place()} fileName={`${props.name}.py`} />}
          </Show>
        )}
      </Show>
      <Show when={(props.verdict.samples?.length ?? 0) > 0}>
        <details class="small">
          <summary>Samples of the check</summary>
          <table class="plain-table">
            <thead>
              <tr>
                <th scope="col">Sample</th>
                <th scope="col" class="end">
                  Bars
                </th>
                <th scope="col" class="end">
                  Cuts
                </th>
                <th scope="col">Problem</th>
              </tr>
            </thead>
            <tbody>
              <For each={props.verdict.samples}>
                {(sample) => (
                  <tr>
                    <td>{sample.name}</td>
                    <td class="end">{count(sample.bars)}</td>
                    <td class="end">{count(sample.cuts)}</td>
                    <td>{sample.problem?.split("\n")[0] ?? ""}</td>
                  </tr>
                )}
              </For>
            </tbody>
          </table>
        </details>
      </Show>
    </div>
  );
}
