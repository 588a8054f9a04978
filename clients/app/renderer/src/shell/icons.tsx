import type { JSX } from "solid-js";

/** The icons of the navigation, as paths of a 16 by 16 grid. */
const PATHS = {
  data: "M8 1.5c3.3 0 6 1 6 2.3S11.300 6 8 6 2 5.100 2 3.800s2.700-2.300 6-2.300ZM2 3.800v8.400c0 1.300 2.700 2.300 6 2.300s6-1 6-2.300V3.800M2 8c0 1.300 2.700 2.300 6 2.300s6-1 6-2.300",
  run: "M4 2.500v11l9-5.500Z",
  runs: "M2 3.500h12M2 8h12M2 12.500h8",
  sweeps: "M2 2h5v5H2ZM9 2h5v5H9ZM2 9h5v5H2ZM9 9h5v5H9ZM11.500 11.500h.01",
  compare: "M2 12.500 6 7l3 2.500 5-6.500M2 6l4 5 3.500-6L14 11",
  algorithms: "M5.500 3 2 8l3.500 5M10.500 3 14 8l-3.500 5",
  state: "M2 4h4v4H2ZM10 8h4v4h-4ZM6 6h4M8 6v4h2",
  topics:
    "M4 12a5.500 5.500 0 0 1 0-8M12 4a5.500 5.500 0 0 1 0 8M6 10a2.800 2.800 0 0 1 0-4M10 6a2.800 2.800 0 0 1 0 4M8 8h.01",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon(props: { readonly name: IconName }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
      <path
        d={PATHS[props.name]}
        fill="none"
        stroke="currentColor"
        stroke-width="1.4"
        stroke-linejoin="round"
        stroke-linecap="round"
      />
    </svg>
  );
}
