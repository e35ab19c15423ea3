// `npm run bench [-- --json] [SUITE…]`: the benchmarks, each paired in one run, as a table and as
// bench/results/*.json. Exit code 1 if a target is missed.

import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { machine, table, verdict } from "../bench/report.mjs";
import { row } from "../bench/sampling.mjs";
import { ROOT, setup } from "./setup.mjs";

const CRITERION = join(ROOT, "target/criterion");

function run(command, args, env = {}) {
  const { status, stdout } = spawnSync(command, args, {
    cwd: ROOT,
    encoding: "utf8",
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1 << 26,
  });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed`);
  return stdout;
}

const script = (...args) => JSON.parse(run(process.execPath, args));

/** The core's own benches, out of what criterion leaves behind. */
function core() {
  rmSync(CRITERION, { recursive: true, force: true });
  run("cargo", ["bench", "--quiet", "--locked", "-p", "promptseam"], { CRITERION_HOME: CRITERION });
  const read = (folder, file) => JSON.parse(readFileSync(join(CRITERION, folder, file), "utf8"));
  return readdirSync(CRITERION, { recursive: true })
    .filter((path) => path.endsWith("new/benchmark.json"))
    .sort()
    .map((path) => {
      const folder = join(path, "..");
      const { group_id, function_id, value_str } = read(folder, "benchmark.json");
      const { iters, times } = read(folder, "sample.json");
      // Criterion's samples are nanoseconds of so many iterations.
      const [unit, nanoseconds] = group_id === "turn" ? ["ms", 1e6] : ["µs", 1e3];
      const samples = times.map((time, index) => time / iters[index] / nanoseconds);
      return row(`core: ${group_id}, ${function_id}, ${value_str}`, unit, samples);
    });
}

function load() {
  const runs = Array.from({ length: 5 }, () => script("bench/load.mjs"));
  return [
    row(
      "load Qwen3",
      "s",
      runs.map(({ seconds }) => seconds),
    ),
    row(
      "resident after it",
      "MB",
      runs.map(({ megabytes }) => megabytes),
    ),
  ];
}

const SUITES = {
  core,
  "to-ids": () => script("bench/to-ids.mjs"),
  prompts: () => script("bench/prompts.mjs"),
  continuation: () => script("--expose-gc", "bench/continuation.mjs"),
  store: () => script("--expose-gc", "bench/store.mjs"),
  "event-loop": () => script("--expose-gc", "bench/event-loop.mjs"),
  load,
};

function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { json: { type: "boolean", default: false } },
  });
  const unknown = positionals.find((name) => !Object.hasOwn(SUITES, name));
  if (unknown !== undefined) {
    throw new Error(`no suite ${unknown}; there are ${Object.keys(SUITES).join(", ")}`);
  }
  return { json: values.json, names: positionals.length > 0 ? positionals : Object.keys(SUITES) };
}

const { json, names } = options();
await setup();
const here = machine();
mkdirSync(join(ROOT, "bench/results"), { recursive: true });
const rows = [];
for (const name of names) {
  process.stderr.write(`${name}\n`);
  const own = SUITES[name]();
  rows.push(...own);
  const result = `${JSON.stringify({ machine: here, rows: own }, null, 2)}\n`;
  writeFileSync(join(ROOT, `bench/results/${name}.json`), result);
}
process.stdout.write(json ? `${JSON.stringify({ machine: here, rows })}\n` : table(here, rows));
if (rows.some((entry) => verdict(entry).missed)) process.exitCode = 1;
