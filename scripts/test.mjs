// `npm test`: builds what is missing, runs the Rust tests with short runs of the fuzzers, the TypeScript and the Python
// tests, and ends with one line that counts all of them.

import { spawn } from "node:child_process";
import { counted, printTotal, run, vitest } from "./results.mjs";
import { ROOT, setup } from "./setup.mjs";
import { pythonTests } from "./test-python.mjs";

/** Runs a command, showing its output as it comes; gives the exit code and standard output. */
function execute(command, args) {
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

async function rust() {
  const { code, output } = await execute("cargo", ["test", "--workspace", "--no-fail-fast", "--locked"]);
  return counted(code, sum(output, /(\d+) passed;/g), sum(output, /passed; (\d+) failed;/g));
}

run(async () => {
  // The profile that the Rust tests need anyway, for the commands that the tests run too. A release build will do as well.
  process.env.PROMPTSEAM_PROFILE ??= "dev";
  await setup();
  const results = [];
  for (const suite of [rust, () => vitest([]), pythonTests]) results.push(await suite());
  return printTotal(results);
});
