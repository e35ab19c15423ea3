// One thread of the fuzzer: loads its families, plays their sessions, tells what it saw.

import { parentPort, workerData } from "node:worker_threads";
import { MemoryStore, Model, Seam, SqliteStore } from "../../dist/index.js";
import { fuzz } from "./fuzz.mjs";
import { loadModels } from "./models.mjs";

const REPORT_MS = 1_000;

const { seed, families, first, step, sessions, endsAt } = workerData;
const models = await loadModels({ Model }, families);
let reported = performance.now();
let mismatch;
const tally = await fuzz({ Seam, MemoryStore, SqliteStore }, models, {
  seed,
  first,
  step,
  sessions,
  until: performance.now() + endsAt - Date.now(),
  onProgress: (sofar) => {
    if (performance.now() - reported < REPORT_MS) return;
    reported = performance.now();
    parentPort.postMessage({ tally: sofar.data() });
  },
  onMismatch: (failed) => {
    mismatch = failed;
    return false;
  },
});
parentPort.postMessage({ tally: tally.data(), mismatch });
for (const model of models.values()) model.close();
