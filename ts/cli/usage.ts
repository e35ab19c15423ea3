/** Reading options, with a mistake told from a failure. */

import { parseArgs } from "node:util";

/** The command line is wrong. */
export class UsageError extends Error {}

/** What was given: a text or a flag for each option. */
export interface Given {
  text(name: string): string | undefined;
  flag(name: string): boolean;
}

/** The options of a command, from the names of those that take a text and of those that do not. @throws UsageError */
export function readOptions(
  args: readonly string[],
  texts: readonly string[],
  flags: readonly string[],
): Given {
  const options = Object.fromEntries([
    ...texts.map((name) => [name, { type: "string" as const }]),
    ...flags.map((name) => [name, { type: "boolean" as const }]),
  ]);
  try {
    const parsed = parseArgs({ args: [...args], options, allowPositionals: false });
    const values: Readonly<Record<string, unknown>> = parsed.values;
    return {
      text: (name) => {
        const value = values[name];
        return typeof value === "string" ? value : undefined;
      },
      flag: (name) => values[name] === true,
    };
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** A whole number in a range. @throws UsageError */
export function wholeNumber(text: string, name: string, lowest: number, highest: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < lowest || value > highest) {
    throw new UsageError(`--${name} takes a whole number from ${lowest} to ${highest}.`);
  }
  return value;
}
