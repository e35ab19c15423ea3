// `npm run bench [-- --json] [SUITE…]`: the benchmarks, each paired in one run, as a table and as
// bench/results/*.json. Exit code 1 if a target is missed.

import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { row } from "../bench/sampling.mjs";
import { TARGETS } from "../bench/targets.mjs";
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

function verdict({ name, median }) {
  const target = TARGETS[name];
  if (target === undefined) return { text: "", missed: false };
  const [met, words] =
    target.atMost !== undefined
      ? [median <= target.atMost, `at most ${target.atMost}`]
      : [median >= target.atLeast, `at least ${target.atLeast}`];
  return { text: `${met ? "ok" : "MISSED"}, ${words}`, missed: !met };
}

function table(machine, rows) {
  const figure = (value) => value.toPrecision(3).padStart(9);
  const lines = rows.map((entry) => {
    const times = entry.ratio === undefined ? "" : `${entry.ratio.toFixed(1)}x`;
    const said = [verdict(entry).text, entry.note].filter(Boolean).join(" ");
    return `${entry.name.padEnd(78)} ${figure(entry.median)} ${figure(entry.p95)} ${entry.unit.padEnd(4)} n=${String(entry.n).padEnd(7)} ${times.padStart(7)}  ${said}`.trimEnd();
  });
  const { cpu, cores, node } = machine;
  const head = `${cpu}, ${cores} cores, Node ${node}, load ${machine.load.toFixed(1)} at the start`;
  return `${head}\n\n${"".padEnd(78)}    median       p95\n${lines.join("\n")}\n`;
}

const { json, names } = options();
await setup();
const machine = {
  cpu: cpus()[0]?.model,
  cores: cpus().length,
  memoryGB: Math.round(totalmem() / 1e9),
  kernel: release(),
  node: process.version,
  load: loadavg()[0],
};
mkdirSync(join(ROOT, "bench/results"), { recursive: true });
const rows = [];
for (const name of names) {
  process.stderr.write(`${name}\n`);
  const own = SUITES[name]();
  rows.push(...own);
  const result = `${JSON.stringify({ machine, rows: own }, null, 2)}\n`;
  writeFileSync(join(ROOT, `bench/results/${name}.json`), result);
}
process.stdout.write(json ? `${JSON.stringify({ machine, rows })}\n` : table(machine, rows));
const measured = new Set(rows.map(({ name }) => name));
const absent = Object.keys(TARGETS).filter((name) => !measured.has(name));
if (names.length === Object.keys(SUITES).length && absent.length > 0) {
  throw new Error(`no row for the targets ${absent.join("; ")}`);
}
if (rows.some((entry) => verdict(entry).missed)) process.exitCode = 1;
