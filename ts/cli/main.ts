/** The command line: finds the command, prints errors for people, gives the exit code. */

import { readFileSync } from "node:fs";
import { PromptseamError } from "../errors.ts";
import { demo } from "./demo.ts";
import { store } from "./store.ts";
import { UsageError } from "./usage.ts";

const COMMANDS: Readonly<Record<string, (args: readonly string[]) => Promise<number>>> = { demo, store };

const HELP = `Usage: promptseam <command> [options]

Commands:
  demo     play an agent session and show what each turn costs, beside the same session sent as plain messages
  store    look into a store of conversations, check it, and keep it small

Options:
  --help      show this, or with a command its options
  --version   print the version

Exit codes: 0 all went well, 1 something failed or a check did not hold, 2 the command line is wrong.
`;

/** Runs the command and gives the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  const [name, ...args] = argv;
  if (name === "--version") {
    const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
      version: string;
    };
    process.stdout.write(`${manifest.version}\n`);
    return 0;
  }
  if (name === undefined || name === "--help" || name === "-h") {
    (name === undefined ? process.stderr : process.stdout).write(HELP);
    return name === undefined ? 2 : 0;
  }
  const command = COMMANDS[name];
  try {
    if (command === undefined) throw new UsageError(`There is no command ${name}. Try: promptseam --help`);
    return await command(args);
  } catch (error) {
    if (error instanceof UsageError) {
      process.stderr.write(`promptseam: ${error.message}\n`);
      return 2;
    }
    if (!PromptseamError.isInstance(error)) throw error;
    process.stderr.write(`promptseam: ${error.message} (${error.code})\n`);
    return 1;
  }
}
