/** The charts of a sweep: the heat map of two parameters, and parallel coordinates of all, which share their rows. */

import { createMemo, createSignal, type JSX, Show } from "solid-js";
import { FieldMap } from "../../charts/field-map";
import { ParallelChart } from "../../charts/parallel-chart";
import type { LineColumns } from "../../charts/parallel-lines";
import { domainOf, shareOf } from "../../charts/value-domain";
import { Button } from "../../components/button";
import { ErrorPanel } from "../../components/error-panel";
import { Select } from "../../components/field";
import { Waiting } from "../../components/states";
import { count } from "../../format/numbers";
import { type Axis, fieldLabel, fieldOf, fieldText, objectiveAxis } from "./axes";
import { admitted, type Brushes, withBrush } from "./brushes";
import { columnOf, MOST_CELLS } from "./cells";
import { fieldGrid, NOT_RUN } from "./field-grid";
import { labelOf, type SweepModel } from "./sweep-model";
import { figureText } from "./sweep-text";

export interface SweepChartsProps {
  readonly model: SweepModel;
  /** Changes with the cells. */
  readonly drawn: number;
  /** The number of a cell. */
  readonly chosen: number | undefined;
  onChoose(cell: number | undefined): void;
  onOpen(cell: number): void;
  readonly brushes: Brushes;
  onBrushes(brushes: Brushes, axes: readonly Axis[]): void;
}

/** Shows both charts, and the cell that is chosen in either. */
export function SweepCharts(props: SweepChartsProps): JSX.Element {
  const { model } = props;
  const { objective, direction } = model.status;
  const { cells } = model;
  const isLessBetter = direction === "minimize";
  const label = labelOf(objective);
  const format = (value: number): string => figureText(objective, value);
  const [across, setAcross] = createSignal(model.axes[0]?.name ?? "");
  const [up, setUp] = createSignal(model.axes[1]?.name ?? "");

  const known = createMemo(() => {
    void props.drawn;
    return cells.count;
  });
  const failure = (): unknown => {
    void props.drawn;
    return model.error;
  };
  const domain = createMemo(() => {
    void props.drawn;
    return domainOf(cells.values, isLessBetter);
  });
  const values = createMemo(() => objectiveAxis(objective, domain() ?? { worst: 0, best: 1 }, format));
  const axes = createMemo(() => [...model.axes, values()]);
  const axisOf = (name: string): Axis => axes().find((one) => one.name === name) ?? values();
  const x = createMemo(() => axisOf(across()));
  const y = createMemo(() => axisOf(up()));
  const admits = createMemo(() => {
    void props.drawn;
    return admitted(props.brushes, axes(), cells);
  });
  const grid = createMemo(() => {
    void props.drawn;
    return fieldGrid({ cells, x: x(), y: y(), isLessBetter, admits: admits() });
  });
  const within = createMemo(() => {
    void props.drawn;
    const test = admits();
    let sum = 0;
    for (let place = 0; place < cells.count; place += 1) if (test(place)) sum += 1;
    return sum;
  });
  const lines = createMemo((): LineColumns => {
    void props.drawn;
    const range = domain();
    return {
      shares: axes().map((axis) => columnOf(cells, axis.name).map((value) => clamped(axis.share(value)))),
      quality: cells.values.map((value) => (range === undefined ? Number.NaN : shareOf(value, range))),
      admits: admits(),
    };
  });
  const place = createMemo(() => {
    void props.drawn;
    return props.chosen === undefined ? undefined : cells.placeOf(props.chosen);
  });
  const marked = createMemo(() => {
    const at = place();
    if (at === undefined) return undefined;
    const [column, row] = [x(), y()].map((axis) => fieldOf(axis, columnOf(cells, axis.name)[at] as number));
    return (row as number) * x().fields + (column as number);
  });
  function cellAt(field: number): number | undefined {
    const at = grid().best[field];
    return at === undefined || at === NOT_RUN ? undefined : cells.cells[at];
  }
  function words(field: number): string {
    const { best, counts } = grid();
    const column = `${x().name} ${fieldText(x(), field % x().fields)}`;
    // The objective as a side says what follows anyway.
    const isBoth = y() !== values();
    const names = isBoth ? `${column}, ${y().name} ${fieldText(y(), Math.floor(field / x().fields))}` : column;
    const at = best[field] as number;
    if (at === NOT_RUN) return `${names}: no row`;
    const value = cells.values[at] as number;
    const figure = Number.isNaN(value) ? `${label} has no value` : `${label} ${format(value)}`;
    return `${names}: ${figure}${(counts[field] as number) > 1 ? `, the best of ${count(counts[field])} cells` : ""}`;
  }
  const summary = (): string => {
    const range = domain();
    const so =
      range === undefined ? "none has a value yet" : `${label} from ${format(range.worst)} to ${format(range.best)}`;
    return `${count(known())} cells, ${so}.`;
  };
  const note = (): string => {
    const part =
      model.stride > 1 ? ` Every ${count(model.stride)}th cell of ${count(model.status.cells)} is drawn.` : "";
    return `${summary()}${part}`;
  };
  const side = (axis: Axis) => ({
    name: axis.name === objective ? label : axis.name,
    fields: axis.fields,
    text: (field: number) => fieldLabel(axis, field),
  });
  const chosenWords = (): string => {
    const of = within() === known() ? "" : `${count(within())} of `;
    return `${of}${count(known())} rows; drag along an axis to choose`;
  };
  const choices = (): { value: string; label: string }[] =>
    model.axes.map((axis) => ({ value: axis.name, label: axis.name }));

  return (
    <Show
      when={model.axes.length > 0}
      fallback={<p class="muted">Each parameter of this sweep has one value, so there is nothing to draw.</p>}
    >
      <Show when={failure()}>
        {(error) => (
          <ErrorPanel
            error={error()}
            title="The cells that were finished before could not be read"
            actions={[{ label: "Try again", run: () => void model.read() }]}
            mild
          />
        )}
      </Show>
      <Show when={known() > 0} fallback={<Waiting what="the first finished block" />}>
        <div class="sweep-charts">
          <FieldMap
            title={`${label} by ${model.axes.length > 1 ? "two parameters" : x().name}`}
            definition={
              <p>
                Each field has the colour of its best cell: of several cells that share the two values, the best one is
                shown. Hatched fields have no value, since the objective is undefined there or the cell has failed;
                empty ones have not been run, or are left out by the constraint. Where a few values lie far off, colours
                stand for the 98 % between.
              </p>
            }
            controls={
              <Show when={model.axes.length > 2}>
                <div class="actions">
                  <Select label="Across" hideLabel value={across()} choices={choices()} onChange={setAcross} />
                  <Select label="Up" hideLabel value={up()} choices={choices()} onChange={setUp} />
                </div>
              </Show>
            }
            x={side(x())}
            y={side(y())}
            valueAt={(field) => {
              const at = grid().best[field] as number;
              return at === NOT_RUN ? undefined : (cells.values[at] as number);
            }}
            domain={domain()}
            format={format}
            words={words}
            marked={marked()}
            onChoose={(field) => props.onChoose(cellAt(field))}
            onOpen={(field) => {
              const cell = cellAt(field);
              if (cell !== undefined) props.onOpen(cell);
            }}
            summary={summary()}
            note={note()}
            testId="sweep-map"
          />
          <ParallelChart
            title="All parameters"
            definition={
              <p>
                Each line is a row: it goes through its value on every axis, and ends at the objective, the best above.
                A range of an axis leaves only rows that lie in it, here, in the heat map and in the table.
              </p>
            }
            axes={axes().map((axis) => ({
              name: axis.name === objective ? label : axis.name,
              steps: Math.min(axis.count, 50),
              text: (share: number) => axis.text(axis.valueAt(share)),
            }))}
            lines={lines()}
            ranges={named(props.brushes, objective, label)}
            onRange={(name, range) =>
              props.onBrushes(withBrush(props.brushes, name === label ? objective : name, range), axes())
            }
            marked={place()}
            summary={summary()}
            chosen={chosenWords()}
            testId="sweep-parallel"
          />
        </div>
        <Show when={place() !== undefined}>
          <p class="panel sweep-chosen" role="status" data-testid="sweep-chosen">
            <span>
              Chosen: <strong>{words(marked() as number)}</strong>
            </span>
            <Button kind="primary" onClick={() => props.onOpen(props.chosen as number)}>
              Open as a backtest
            </Button>
            <Button kind="quiet" onClick={() => props.onChoose(undefined)}>
              Let it go
            </Button>
          </p>
        </Show>
        <Show when={known() >= MOST_CELLS && model.status.done > known()}>
          <p class="small muted">The charts have {count(MOST_CELLS)} cells at most; the table below has all rows.</p>
        </Show>
      </Show>
    </Show>
  );
}

function named(brushes: Brushes, objective: string, label: string): Brushes {
  const { [objective]: own, ...others } = brushes;
  return own === undefined ? others : { ...others, [label]: own };
}

function clamped(share: number): number {
  return Math.max(0, Math.min(1, share)); // NaN stays NaN
}
