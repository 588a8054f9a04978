/** The frames of a traceback as Python prints it. Pure. */

/** A line of a traceback. */
export interface TraceFrame {
  readonly file: string;
  readonly line: number;
  readonly name: string;
  /** The text of the line; empty where Python had none. */
  readonly code: string;
  /** True for the last line outside of libraries and of backtestr: where the user's own code failed. */
  readonly isOwn: boolean;
}

const PLACE = /^ {2}File "(.*)", line (\d+)(?:, in (.*))?$/;
const LIBRARY = /site-packages|dist-packages|\/lib\/python|backtestr_engine|^<frozen/;

/** Returns the frames, the outermost first. */
export function framesOf(text: string): readonly TraceFrame[] {
  const lines = text.split("\n");
  const frames: { file: string; line: number; name: string; code: string }[] = [];
  for (const [index, one] of lines.entries()) {
    const match = PLACE.exec(one);
    if (match === null) continue;
    const next = lines[index + 1] ?? "";
    const code = next.startsWith("    ") && !PLACE.test(next) ? next.trim() : "";
    frames.push({ file: match[1] as string, line: Number(match[2]), name: match[3] ?? "", code });
  }
  const own = frames.findLastIndex(({ file }) => !LIBRARY.test(file));
  return frames.map((frame, index) => ({ ...frame, isOwn: index === own }));
}
