// `npm run bench:ttft [-- --base-url URL --model FOLDER]`: times to first token on a real vLLM. Prints a table, and as its
// last line a JSON summary; writes bench/results/ttft.json and docs/ttft.svg. Exit code 1 where the engine saw other ids on
// one of the ways, or a target is missed.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ttftChart } from "../bench/chart.mjs";
import { machine, table, verdict } from "../bench/report.mjs";
import { ROOT, SetupError, setup } from "./setup.mjs";
import { modelFolder, startVllm } from "./vllm-server.mjs";

const { values } = parseArgs({ options: { "base-url": { type: "string" }, model: { type: "string" } } });

async function startServer() {
  if (values["base-url"] !== undefined) return { baseUrl: values["base-url"], stop: async () => {} };
  return startVllm("qwen3", {
    flags: ["--max-model-len", "131072"],
    env: { VLLM_PLUGINS: "promptseam_bench", PYTHONPATH: join(ROOT, "bench/vllm-plugin") },
  });
}

async function main() {
  await setup();
  const { timeToFirstToken } = await import("../bench/ttft.mjs");
  const server = await startServer();
  try {
    const { rows, sizes, slopes } = await timeToFirstToken(
      server.baseUrl,
      values.model ?? modelFolder("qwen3"),
    );
    const here = machine();
    mkdirSync(join(ROOT, "bench/results"), { recursive: true });
    writeFileSync(
      join(ROOT, "bench/results/ttft.json"),
      `${JSON.stringify({ machine: here, rows }, null, 2)}\n`,
    );
    writeFileSync(join(ROOT, "docs/ttft.svg"), ttftChart(sizes, `${here.cores} CPU cores`));
    process.stdout.write(table(here, rows));
    const missed = rows.filter((entry) => verdict(entry).missed).map(({ name }) => name);
    process.stdout.write(
      `${JSON.stringify({ machine: here, sizes, slopesPer10k: slopes, missed, idsEqual: true })}\n`,
    );
    return missed.length === 0 ? 0 : 1;
  } finally {
    await server.stop();
  }
}

process.exitCode = await main().catch((error) => {
  process.stderr.write(`promptseam: ${error instanceof SetupError ? error.message : error.stack}\n`);
  return 1;
});
