/** Finds the known name that somebody probably meant. */

// A name of more characters is compared with none: a long one would make that slow.
const MAX_NAME = 128;
// As similar as so: two of three characters, in order.
const LEAST = 0.6;

/** Returns `; did you mean "fast"?` if a known name is similar to `name`, else the empty text. */
export function didYouMean(name: string, known: Iterable<string>): string {
  if (name.length > MAX_NAME) return "";
  let best: string | undefined;
  let most = LEAST;
  for (const one of known) {
    const alike = similarity(name.toLowerCase(), one.toLowerCase());
    if (alike >= most) [best, most] = [one, alike];
  }
  return best === undefined ? "" : `; did you mean ${JSON.stringify(best)}?`;
}

/** The share of characters of both texts that stand in one order in both (longest common subsequence). */
function similarity(one: string, other: string): number {
  let row = new Array<number>(other.length + 1).fill(0);
  for (const character of one) {
    const next = [0];
    for (let index = 0; index < other.length; index += 1) {
      const kept = Math.max(next[index] as number, row[index + 1] as number);
      next.push(character === other[index] ? (row[index] as number) + 1 : kept);
    }
    row = next;
  }
  const longest = row.at(-1) as number;
  return (2 * longest) / Math.max(1, one.length + other.length);
}
