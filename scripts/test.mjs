// `npm test`: builds what is missing, runs the Rust and the TypeScript tests and the fuzzers' short runs,
// and ends with one line that counts all of them.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT, SetupError, setup } from "./setup.mjs";

/** Runs a command, showing its output as it comes; gives the exit code and standard output. */
function run(command, args) {
  return new Promise((resolve, reject) => {
    process.stdout.write(`\n> ${command} ${args.join(" ")}\n`);
    const child = spawn(command, args, { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      output += text;
      process.stdout.write(text);
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, output }));
  });
}

function sum(output, pattern) {
  return [...output.matchAll(pattern)].reduce((total, match) => total + Number(match[1]), 0);
}

/** A suite that fails without counting a failed test, by not compiling for example, counts as one. */
function counted(code, passed, failed) {
  return { passed, failed: code !== 0 && failed === 0 ? 1 : failed };
}

async function rust() {
  const { code, output } = await run("cargo", ["test", "--workspace", "--no-fail-fast", "--locked"]);
  return counted(code, sum(output, /(\d+) passed;/g), sum(output, /passed; (\d+) failed;/g));
}

async function typescript() {
  const folder = mkdtempSync(join(tmpdir(), "promptseam-test-"));
  try {
    const report = join(folder, "report.json");
    const { code } = await run("npx", [
      "vitest",
      "run",
      "--reporter=default",
      "--reporter=json",
      `--outputFile=${report}`,
    ]);
    const { numPassedTests, numFailedTests } = JSON.parse(readFileSync(report, "utf8"));
    return counted(code, numPassedTests, numFailedTests);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function fuzz() {
  const { code } = await run("npm", ["run", "--silent", "fuzz:tokenizer", "--", "--seconds", "10"]);
  return counted(code, code === 0 ? 1 : 0, 0);
}

async function main() {
  await setup();
  const results = [];
  for (const suite of [rust, typescript, fuzz]) results.push(await suite());
  const total = (key) => results.reduce((count, result) => count + result[key], 0);
  process.stdout.write(`\n${total("passed")} passed, ${total("failed")} failed\n`);
  return total("failed") === 0 ? 0 : 1;
}

process.exitCode = await main().catch((error) => {
  if (!(error instanceof SetupError)) throw error;
  process.stderr.write(`promptseam: ${error.message}\n`);
  return 1;
});
