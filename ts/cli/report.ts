/** What the demo prints for people: a line a turn, then both ways side by side with bars. */

/** The figures of one turn. Times in milliseconds, sizes in bytes, the rest in tokens. */
export interface TurnFigures {
  readonly way: "promptseam" | "messages";
  readonly turn: number;
  readonly promptTokens: number;
  /** Ids taken over from the turn before, and ids encoded anew; null where the server did that. */
  readonly kept: number | null;
  readonly encoded: number | null;
  readonly planMs: number | null;
  readonly bodyBytes: number;
  readonly cachedTokens: number | null;
  readonly ttftMs: number;
  readonly path: "full_render" | "aligned_render" | "messages";
}

/** Both ways of the same session. */
export interface Summary {
  readonly turns: number;
  readonly promptTokens: number;
  readonly idsEqual: boolean;
  /** Whether the server echoed the ids that it saw, and they were ours. */
  readonly echoEqual: boolean | null;
  readonly promptseam: WayFigures;
  readonly messages: WayFigures;
}

/** One way over all turns. */
export interface WayFigures {
  readonly ttftMedianMs: number;
  readonly planMedianMs: number | null;
  readonly encodedTokens: number;
  readonly bodyBytes: number;
  /** Cached prompt tokens of all prompt tokens. */
  readonly cachedShare: number | null;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}

/** The figures of one way. */
export function wayFigures(turns: readonly TurnFigures[]): WayFigures {
  const total = (value: (turn: TurnFigures) => number) => turns.reduce((sum, turn) => sum + value(turn), 0);
  const plans = turns.flatMap((turn) => turn.planMs ?? []);
  const known = turns.every((turn) => turn.cachedTokens !== null);
  return {
    ttftMedianMs: median(turns.map((turn) => turn.ttftMs)),
    planMedianMs: plans.length > 0 ? median(plans) : null,
    encodedTokens: total((turn) => turn.encoded ?? turn.promptTokens),
    bodyBytes: total((turn) => turn.bodyBytes),
    cachedShare: known ? total((turn) => turn.cachedTokens ?? 0) / total((turn) => turn.promptTokens) : null,
  };
}

const COLUMNS: readonly (readonly [string, number, (turn: TurnFigures) => string])[] = [
  ["turn", 4, (turn) => String(turn.turn)],
  ["prompt", 8, (turn) => count(turn.promptTokens)],
  ["kept", 8, (turn) => count(turn.kept)],
  ["encoded", 8, (turn) => count(turn.encoded)],
  ["plan ms", 8, (turn) => milliseconds(turn.planMs)],
  ["body kB", 8, (turn) => kilobytes(turn.bodyBytes)],
  ["cached", 8, (turn) => count(turn.cachedTokens)],
  ["TTFT ms", 8, (turn) => milliseconds(turn.ttftMs)],
];

/** The line over the turns. */
export function tableHead(): string {
  return `${COLUMNS.map(([name, width]) => name.padStart(width)).join("  ")}  path`;
}

/** One turn. */
export function tableLine(turn: TurnFigures): string {
  return `${COLUMNS.map(([, width, show]) => show(turn).padStart(width)).join("  ")}  ${turn.path}`;
}

/** Both ways side by side, a bar for each figure. */
export function comparison(summary: Summary, color: boolean): string {
  const { promptseam, messages } = summary;
  const rows: [string, number, number, (value: number) => string][] = [
    [
      "time to first token, median",
      promptseam.ttftMedianMs,
      messages.ttftMedianMs,
      (value) => `${milliseconds(value)} ms`,
    ],
    ["tokens encoded", promptseam.encodedTokens, messages.encodedTokens, count],
    ["request bodies", promptseam.bodyBytes, messages.bodyBytes, (value) => `${kilobytes(value)} kB`],
  ];
  const lines = rows.flatMap(([name, ours, theirs, show]) => {
    const most = Math.max(ours, theirs, Number.MIN_VALUE);
    return [
      `  ${name}`,
      `    promptseam  ${bar(ours / most, color ? "\u001b[32m" : "")} ${show(ours)}`,
      `    messages    ${bar(theirs / most, color ? "\u001b[33m" : "")} ${show(theirs)}`,
    ];
  });
  const share = (value: number | null) => (value === null ? "not reported" : `${(100 * value).toFixed(1)} %`);
  return [
    ...lines,
    `  prompt tokens found in the server's cache: promptseam ${share(promptseam.cachedShare)}, messages ${share(messages.cachedShare)}`,
    `  planning a turn, median: ${milliseconds(promptseam.planMedianMs)} ms`,
  ].join("\n");
}

const BAR_WIDTH = 40;

function bar(share: number, color: string): string {
  const eighths = Math.max(1, Math.round(share * BAR_WIDTH * 8));
  const full = "█".repeat(eighths >> 3);
  const rest = eighths & 7;
  const text = (full + (rest > 0 ? String.fromCodePoint(0x2590 - rest) : "")).padEnd(BAR_WIDTH);
  return color === "" ? text : `${color}${text}\u001b[0m`;
}

function count(value: number | null): string {
  return value === null ? "-" : value.toLocaleString("en-US");
}

function milliseconds(value: number | null): string {
  if (value === null) return "-";
  return value < 10 ? value.toFixed(2) : value.toFixed(1);
}

function kilobytes(value: number): string {
  return (value / 1000).toFixed(1);
}
