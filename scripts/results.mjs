// What the test commands share: vitest's counts, the line that ends a run, and how a problem of the user's is told.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT, SetupError } from "./setup.mjs";

/** A suite that fails without counting a failed test, by not compiling for example, counts as one. */
export function counted(code, passed, failed) {
  return { passed, failed: code !== 0 && failed === 0 ? 1 : failed };
}

/** Runs vitest, showing its output; gives the numbers of tests that passed and failed. */
export async function vitest(args, env = {}) {
  const folder = mkdtempSync(join(tmpdir(), "promptseam-test-"));
  try {
    const report = join(folder, "report.json");
    const all = ["vitest", "run", "--reporter=default", "--reporter=json", `--outputFile=${report}`, ...args];
    process.stdout.write(`\n> npx ${all.join(" ")}\n`);
    const code = await new Promise((resolve, reject) => {
      spawn("npx", all, {
        cwd: ROOT,
        env: { ...process.env, ...env },
        stdio: ["ignore", "inherit", "inherit"],
      })
        .on("error", reject)
        .on("close", resolve);
    });
    const { numPassedTests, numFailedTests } = JSON.parse(readFileSync(report, "utf8"));
    return counted(code, numPassedTests, numFailedTests);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Ends a run with one line that counts all of it; gives the exit code. */
export function printTotal(results) {
  const total = (key) => results.reduce((count, result) => count + result[key], 0);
  process.stdout.write(`\n${total("passed")} passed, ${total("failed")} failed\n`);
  return total("failed") === 0 ? 0 : 1;
}

/** Runs a command's `main`, which gives the exit code; what the user must solve is shown without a stack. */
export async function run(main) {
  process.exitCode = await main().catch((error) => {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`promptseam: ${error.message}\n`);
    return 1;
  });
}
