/** The returns of months as a table whose cells are coloured by their size. */

import { createMemo, For, type JSX, onMount } from "solid-js";
import { Definition } from "../components/definition";
import { change } from "../format/numbers";
import { largestMonth, MONTHLY_FORMULA, type YearOfReturns } from "./monthly";
import "./heat-map.css";

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Shows a year a row. */
export function HeatMap(props: { readonly years: readonly YearOfReturns[]; readonly testId: string }): JSX.Element {
  const largest = createMemo(() => largestMonth(props.years));
  return (
    <section class="panel heat-map" data-testid={props.testId} aria-label="Returns of months">
      <div class="panel-header chart-header">
        <h2>Returns of months</h2>
        <Definition term="Returns of months" mark>
          {MONTHLY_FORMULA}
        </Definition>
      </div>
      <div class="heat-map-scroll" role="group" aria-label="Table of the returns of months" tabindex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">Year</th>
              <For each={MONTHS}>{(month) => <th scope="col">{month}</th>}</For>
              <th scope="col">Year</th>
            </tr>
          </thead>
          <tbody>
            <For each={props.years}>
              {({ year, months, total }) => (
                <tr>
                  <th scope="row">{year}</th>
                  <For each={[...months]}>{(value) => <Cell value={value} largest={largest()} />}</For>
                  <td class={`total ${total > 0 ? "gain" : total < 0 ? "loss" : ""}`}>
                    {Number.isNaN(total) ? "" : change(total)}
                  </td>
                </tr>
              )}
            </For>
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Cell(props: { readonly value: number; readonly largest: number }): JSX.Element {
  let cell: HTMLTableCellElement | undefined;
  onMount(() => {
    const share = props.largest > 0 && Number.isFinite(props.value) ? Math.abs(props.value) / props.largest : 0;
    cell?.style.setProperty("--share", `${Math.round(100 * share)}%`);
  });
  return (
    <td ref={cell} class={props.value > 0 ? "positive" : props.value < 0 ? "negative" : ""}>
      {Number.isNaN(props.value) ? "" : change(props.value)}
    </td>
  );
}
