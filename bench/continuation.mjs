// Turns through the Seam: a known conversation gone on from, beside the lower rungs and the usual way in JavaScript.
// Needs --expose-gc, to collect the texts that were made before what is measured.

import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { gunzipSync } from "node:zlib";
import { MemoryStore, Model, Seam } from "../dist/index.js";
import { bodyOf, conversation, freshText, TOOLS } from "./agent-text.mjs";
import { idsInJs, sameIds } from "./javascript-way.mjs";
import { modelFolder, paired, ratio, row, say } from "./sampling.mjs";

const SIZES = [
  { label: "28k", tokens: 28_000, conversations: 48, rounds: 40, pairs: 40 },
  { label: "128k", tokens: 128_000, conversations: 12, rounds: 60, pairs: 10 },
];
const NO_SHADOW = { first: 0, share: 0 };
const store = () => new MemoryStore({ maxBytes: 2 ** 31 });

let conversations = 0;

/** A conversation that a Seam knows, with what comes next in it. */
async function known(seam, tokens) {
  const id = `c${conversations++}`;
  const messages = conversation(tokens).slice(0, -1);
  const answer = { role: "assistant", content: freshText(200) };
  const request = { model: "m", messages, tools: TOOLS, stream: true };
  const first = await seam.prepare(request, { conversation: id });
  await first.commit({ message: answer });
  const append = [{ role: "user", content: freshText(1_300) }];
  const again = Buffer.from(JSON.stringify(request));
  return { id, append, again, body: bodyOf([...messages, answer, ...append]), previous: first.prompt };
}

function certified(turn) {
  if (turn.outcome.kind !== "certified_suffix") throw new Error(JSON.stringify(turn.outcome));
  return turn;
}

/** Linux counts a thread's processor time in nanoseconds; the main thread has the id of its process. */
function processorMicroseconds() {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1000;
}

/** Conversations in turn, so that none is in the processor's caches. */
async function steady(model, { label, tokens, conversations: count, rounds }) {
  say(`turns of ${count} conversations, ${label}`);
  const seam = new Seam({ model, shadow: NO_SHADOW, store: store() });
  await seam.warmUp();
  const all = [];
  for (let index = 0; index < count; index++) all.push(await known(seam, tokens));
  const ways = {
    "conversation known": ({ id }, append) => seam.prepare({ append }, { conversation: id }),
    "full history as bytes": ({ body }) => seam.prepare(body),
    "recognition: a history sent again": ({ again }) => seam.prepare(again),
  };
  const rows = [];
  for (const [way, prepare] of Object.entries(ways)) {
    const wall = [];
    const processor = [];
    const rates = [];
    for (let round = -5; round < rounds; round++) {
      const appends = all.map(() => [{ role: "user", content: freshText(1_300) }]);
      globalThis.gc();
      const before = processorMicroseconds();
      const began = performance.now();
      for (const [index, one] of all.entries()) {
        const start = performance.now();
        const turn = await prepare(one, appends[index]);
        if (round >= 0) wall.push(1000 * (performance.now() - start));
        certified(turn);
      }
      if (round < 0) continue;
      rates.push(count / ((performance.now() - began) / 1000));
      processor.push((processorMicroseconds() - before) / count);
    }
    const name = `prepare (+500), ${label}, ${way}`;
    rows.push(row(name, "µs", wall), row(`${name}: main thread`, "µs", processor));
    if (way === "conversation known") rows.push(row(`prepared turns, ${label}`, "1/s", rates));
  }
  return rows;
}

/** The rungs, on the same turn. */
async function rungs(model, { label, tokens, pairs }) {
  say(`the rungs side by side, ${label}`);
  const seam = new Seam({ model, shadow: NO_SHADOW, store: store() });
  await seam.warmUp();
  const samples = await paired(
    {
      certified: async ({ id, append }) =>
        certified(await seam.prepare({ append }, { conversation: id })).prompt,
      aligned: ({ body, previous }) => model.render(body, { previous }),
      full: ({ body }) => model.render(body),
      "jinja + npm tokenizers": ({ body }) => idsInJs(body),
    },
    {
      rounds: pairs,
      prepare: () => known(seam, tokens),
      check: ({ certified, aligned, full, "jinja + npm tokenizers": theirs }) => {
        if (!certified.equals(full) || !aligned.equals(full) || !sameIds(full, theirs))
          throw new Error("the ways gave different ids");
      },
    },
  );
  const name = `next turn (+500), ${label}: certified suffix`;
  return Object.entries(samples).map(([way, times]) =>
    way === "certified"
      ? row(name, "ms", times)
      : row(`next turn (+500), ${label}: ${way}`, "ms", times, {
          baseline: name,
          ratio: ratio(times, samples.certified),
        }),
  );
}

/** Which rungs the turns of vLLM's golden conversations take. */
async function shares() {
  const path = new URL("../__test__/fixtures/golden/vllm-0.32-render.jsonl.gz", import.meta.url);
  const lines = gunzipSync(readFileSync(path)).toString("utf8").trimEnd().split("\n").map(JSON.parse);
  const rows = [];
  for (const [family, folder] of Object.entries(FAMILIES)) {
    const own = lines.filter((line) => line.family === family);
    const model = await Model.load(modelFolder(folder));
    const counts = { certified_suffix: 0, aligned_render: 0, full_render: 0, messages: 0 };
    let turns = 0;
    const seams = new Map();
    for (const { id, request, now } of own) {
      const key = id.slice(0, id.lastIndexOf("-"));
      const known = seams.get(key);
      const seam = known ?? new Seam({ model });
      seams.set(key, seam);
      const turn = await seam.prepare(request, { now: new Date(`${now}T12:00:00`) });
      await turn.commit({ message: { role: "assistant", content: "" } });
      if (known === undefined) continue;
      turns++;
      counts[turn.outcome.kind]++;
    }
    model.close();
    for (const [kind, count] of Object.entries(counts)) {
      if (count > 0)
        rows.push(row(`golden turns after the first, ${family}: ${kind}`, "%", [(100 * count) / turns]));
    }
  }
  return rows;
}

const FAMILIES = { qwen3: "qwen3", llama3: "llama3_2", deepseek: "deepseek_v3", mistral: "mistral_nemo" };

/** A conversation that grew to about 28k tokens over some turns. */
async function grown(seam, turns) {
  const id = `c${conversations++}`;
  const messages = conversation(28_000);
  for (let turn = 1; turn <= turns; turn++) {
    const user = messages.findLastIndex(
      ({ role }, index) => role === "user" && index < (turn * messages.length) / turns,
    );
    const request = { model: "m", messages: messages.slice(0, user + 1), tools: TOOLS, stream: true };
    const prepared = await seam.prepare(request, { conversation: id });
    await prepared.commit({ message: { role: "assistant", content: "Yes." } });
  }
}

/** The process's bytes, once what was let go of has been given back: the allocator does that a little later. */
async function resident() {
  globalThis.gc();
  await setTimeout(300);
  globalThis.gc();
  return process.memoryUsage.rss();
}

/** Native and JavaScript memory of conversations that nobody uses, by the growth of the process. */
async function memory(model, turns) {
  say(`memory of idle conversations of ${turns} turns`);
  const samples = [];
  const seam = new Seam({ model, shadow: NO_SHADOW, store: store() });
  const batch = 100;
  for (let round = -2; round < 5; round++) {
    const before = await resident();
    for (let index = 0; index < batch; index++) await grown(seam, turns);
    if (round >= 0) samples.push(((await resident()) - before) / batch / 1000);
  }
  const name = "an idle 28k conversation, messages included";
  return [row(turns === 1 ? name : `${name}: of ${turns} turns`, "kB", samples)];
}

const model = await Model.load(modelFolder("qwen3"), { maxModelLength: 200_000 });
const rows = [...(await memory(model, 1)), ...(await memory(model, 10))];
for (const size of SIZES) rows.push(...(await steady(model, size)));
const [short, long] = SIZES.map(({ label }) =>
  rows.find(({ name }) => name === `prepare (+500), ${label}, conversation known`),
);
rows.push(
  row("prepare (+500), conversation known: 128k over 28k", "x", [long.median / short.median], {
    baseline: short.name,
  }),
);
for (const size of SIZES) rows.push(...(await rungs(model, size)));
model.close();
rows.push(...(await shares()));
process.stdout.write(JSON.stringify(rows));
