// What a 28k turn, given as bytes, costs the main thread. In a process without the peers: their heaps would be
// collected on its account. Needs --expose-gc, to collect the texts that were made before what is measured.

import { readFileSync } from "node:fs";
import { monitorEventLoopDelay, PerformanceObserver, performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { Model } from "../dist/index.js";
import { bodyOf, conversation } from "./agent-text.mjs";
import { modelFolder, row, say, WARM_UP } from "./sampling.mjs";

const TOKENS = 28_000;
const IN_FLIGHT = 64;
const PER_WINDOW = 384;
const WINDOWS = 7;

const makeBodies = (count) => {
  const bodies = Array.from({ length: count }, () => bodyOf(conversation(TOKENS)));
  globalThis.gc();
  return bodies;
};

/** Linux counts a thread's processor time in nanoseconds; the main thread has the id of its process. */
function processorMicroseconds() {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1000;
}

async function oneByOne(model) {
  say("main thread, one turn after the other");
  const called = [];
  const processor = [];
  const active = [];
  for (let batch = 0; batch < 20; batch++) {
    const bodies = makeBodies(20);
    const before = processorMicroseconds();
    const loop = performance.eventLoopUtilization();
    for (const body of bodies) {
      const start = performance.now();
      const pending = model.render(body);
      called.push(1000 * (performance.now() - start));
      await pending;
    }
    active.push((1000 * performance.eventLoopUtilization(loop).active) / bodies.length);
    processor.push((processorMicroseconds() - before) / bodies.length);
  }
  return [
    row("main thread, 28k turn: the call alone", "µs", called),
    row("main thread, 28k turn: processor time, settling and collection included", "µs", processor),
    row("main thread, 28k turn: event loop active", "µs", active),
  ];
}

/** The loop's delay at p99, in ms, while `work` runs. */
async function delay(work) {
  const monitor = monitorEventLoopDelay({ resolution: 1 });
  monitor.enable();
  await work();
  monitor.disable();
  return monitor.percentile(99) / 1e6;
}

/** The delay of an idle loop and of one with turns in flight, window by window. */
async function inFlight(model) {
  const idle = [];
  const above = [];
  const rates = [];
  const longest = [];
  for (let window = 0; window < WINDOWS; window++) {
    say(`event-loop delay with ${IN_FLIGHT} turns in flight, window ${window + 1} of ${WINDOWS}`);
    const bodies = makeBodies(PER_WINDOW);
    let pause = 0;
    const collections = new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) pause = Math.max(pause, duration);
    });
    const quiet = await delay(() => sleep(700));
    collections.observe({ entryTypes: ["gc"] });
    const start = performance.now();
    const busy = await delay(async () => {
      let next = 0;
      const client = async () => {
        while (next < bodies.length) await model.render(bodies[next++]);
      };
      await Promise.all(Array.from({ length: IN_FLIGHT }, client));
    });
    rates.push(bodies.length / ((performance.now() - start) / 1000));
    await sleep(1);
    collections.disconnect();
    idle.push(quiet);
    above.push(busy - quiet);
    longest.push(pause);
  }
  return [
    row("event-loop delay p99: idle", "ms", idle),
    row("event-loop delay p99: above idle, 64 turns in flight", "ms", above),
    row("longest garbage collection, 64 turns in flight", "ms", longest),
    row("28k turns with 64 in flight", "1/s", rates),
  ];
}

const model = await Model.load(modelFolder("qwen3"));
for (const body of makeBodies(WARM_UP)) await model.render(body);
const rows = [...(await oneByOne(model)), ...(await inFlight(model))];
model.close();
process.stdout.write(JSON.stringify(rows));
