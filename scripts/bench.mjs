// `npm run bench [-- --json]`: all benchmarks, paired in one run, as a table and as bench/results/*.json.

import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { join } from "node:path";
import { row } from "../bench/sampling.mjs";
import { ROOT, setup } from "./setup.mjs";

const json = process.argv.includes("--json");

function run(command, args) {
  const { status, stdout } = spawnSync(command, args, {
    cwd: ROOT,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1 << 26,
  });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed`);
  return stdout;
}

/** Rows of the core's own benches, out of their one JSON line. */
function core() {
  process.stderr.write("core\n");
  return JSON.parse(
    run("cargo", ["bench", "--quiet", "--locked", "-p", "promptseam"]).trim().split("\n").at(-1),
  );
}

function turns() {
  process.stderr.write("turns\n");
  return JSON.parse(run("node", ["bench/turns.mjs"]));
}

function load() {
  process.stderr.write("load\n");
  const runs = Array.from({ length: 5 }, () => JSON.parse(run("node", ["bench/load.mjs"])));
  return [
    row(
      "load Qwen3",
      "s",
      runs.map((one) => one.seconds),
      { limit: 1.5 },
    ),
    row(
      "resident after it",
      "MB",
      runs.map((one) => one.megabytes),
      { limit: 250 },
    ),
  ];
}

function verdict({ median, ratio, limit, atLeast }) {
  if (limit !== undefined) return median <= limit ? `ok, at most ${limit}` : `MISSED: at most ${limit}`;
  if (atLeast !== undefined)
    return ratio >= atLeast ? `ok, at least ${atLeast}x` : `MISSED: at least ${atLeast}x`;
  return "";
}

await setup();
const machine = {
  cpu: cpus()[0]?.model,
  cores: cpus().length,
  memoryGB: Math.round(totalmem() / 1e9),
  kernel: release(),
  node: process.version,
  load: loadavg()[0],
};
const suites = { core: core(), turns: turns(), load: load() };
mkdirSync(join(ROOT, "bench/results"), { recursive: true });
for (const [name, rows] of Object.entries(suites)) {
  writeFileSync(join(ROOT, `bench/results/${name}.json`), `${JSON.stringify({ machine, rows }, null, 2)}\n`);
}
const rows = Object.values(suites).flat();
if (json) process.stdout.write(`${JSON.stringify({ machine, rows })}\n`);
else {
  process.stdout.write(
    `${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, load ${machine.load.toFixed(1)} at the start\n\n`,
  );
  for (const entry of rows) {
    const figures = [entry.median, entry.p95].map((value) => value.toPrecision(3).padStart(9)).join(" ");
    const times = entry.ratio === undefined ? "" : `${entry.ratio.toFixed(1)}x`;
    process.stdout.write(
      `${entry.name.padEnd(58)} ${figures} ${entry.unit.padEnd(6)} n=${String(entry.n).padEnd(7)} ${times.padStart(7)}  ${verdict(entry)}\n`,
    );
  }
}
