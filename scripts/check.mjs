// `npm run check`: formatting, linters, types, and what would be published. Changes nothing.

import { spawnSync } from "node:child_process";
import { ROOT, SetupError, setup } from "./setup.mjs";

const CHECKS = [
  ["cargo", "fmt", "--check"],
  ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
  ["npx", "biome", "ci", "."],
  ["npx", "tsc", "-p", "tsconfig.json"],
  ["npx", "publint", "--strict"],
];

try {
  await setup();
  for (const [command, ...args] of CHECKS) {
    process.stdout.write(`> ${command} ${args.join(" ")}\n`);
    if (spawnSync(command, args, { cwd: ROOT, stdio: "inherit" }).status !== 0) process.exitCode = 1;
  }
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  process.stderr.write(`promptseam: ${error.message}\n`);
  process.exitCode = 1;
}
