// Conversations in a SQLite file: recording a turn, going on after a restart, and bytes on the disk.
// Needs --expose-gc.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MemoryStore, Model, Seam, SqliteStore } from "../dist/index.js";
import { conversation, freshText, TOOLS } from "./agent-text.mjs";
import { modelFolder, ratio, row, say } from "./sampling.mjs";

const SIZES = [
  { label: "28k", tokens: 28_000, conversations: 32, rounds: 20 },
  { label: "128k", tokens: 128_000, conversations: 8, rounds: 20 },
];
const OPTIONS = { shadow: { first: 0, share: 0 }, storeTimeoutMs: Number.POSITIVE_INFINITY };

/** Linux counts a thread's processor time in nanoseconds; the main thread has the id of its process. */
function processorMicroseconds() {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1000;
}

const answer = () => ({ message: { role: "assistant", content: freshText(700) } });
const append = () => [{ role: "user", content: freshText(1_300) }];

async function begun(seam, id, tokens) {
  const request = { model: "m", messages: conversation(tokens).slice(0, -1), tools: TOOLS, stream: true };
  const turn = await seam.prepare(request, { conversation: id });
  await turn.commit(answer());
}

/** Turns of several conversations, recorded in two stores in turn. */
async function commits(model, folder, { label, tokens, conversations, rounds }) {
  say(`commits, ${label}`);
  const stores = {
    SQLite: await SqliteStore.open(join(folder, `${label}.db`)),
    memory: new MemoryStore({ maxBytes: 2 ** 31 }),
  };
  const wall = { SQLite: [], memory: [] };
  const main = { SQLite: [], memory: [] };
  const seams = {};
  for (const [name, store] of Object.entries(stores)) {
    seams[name] = new Seam({ model, store, ...OPTIONS });
    await seams[name].warmUp();
    for (let at = 0; at < conversations; at++) await begun(seams[name], `c${at}`, tokens);
  }
  for (let round = -3; round < rounds; round++) {
    for (const [name, seam] of Object.entries(seams)) {
      const turns = [];
      for (let at = 0; at < conversations; at++)
        turns.push([await seam.prepare({ append: append() }, { conversation: `c${at}` }), answer()]);
      globalThis.gc();
      const before = processorMicroseconds();
      for (const [turn, said] of turns) {
        const start = performance.now();
        const { status } = await turn.commit(said);
        if (status !== "committed") throw new Error(status);
        if (round >= 0) wall[name].push(performance.now() - start);
      }
      if (round >= 0) main[name].push((processorMicroseconds() - before) / conversations);
    }
  }
  await stores.SQLite.close();
  const name = `commit (+700), ${label}, SQLite`;
  return [
    row(name, "ms", wall.SQLite, {
      baseline: "the store in memory",
      ratio: ratio(wall.SQLite, wall.memory),
    }),
    row(`${name}: main thread`, "µs", main.SQLite),
    row(`commit (+700), ${label}, memory: main thread`, "µs", main.memory),
  ];
}

/** Turns that nothing is known of in this process. */
async function restarts(model, folder, { label, conversations, rounds }) {
  say(`after a restart, ${label}`);
  const samples = [];
  const store = await SqliteStore.open(join(folder, `${label}.db`));
  for (let round = -2; round < rounds; round++) {
    const seam = new Seam({ model, store, cacheBytes: 0, ...OPTIONS });
    await seam.warmUp();
    await seam.prepare({ append: append() }, { conversation: "c0" });
    for (let at = 1; at < conversations; at++) {
      const next = append();
      const start = performance.now();
      const turn = await seam.prepare({ append: next }, { conversation: `c${at}` });
      if (round >= 0) samples.push(performance.now() - start);
      if (turn.outcome.kind !== "certified_suffix") throw new Error(JSON.stringify(turn.outcome));
    }
  }
  await store.close();
  return row(`next turn (+500) after a restart, ${label}: load, check and plan`, "ms", samples);
}

/** Bytes of the file for conversations that grew over thirty turns. */
async function disk(model, folder) {
  say("bytes on the disk");
  const samples = [];
  for (let round = 0; round < 3; round++) {
    const store = await SqliteStore.open(join(folder, `disk${round}.db`));
    const seam = new Seam({ model, store, ...OPTIONS });
    let tokens = 0;
    for (let at = 0; at < 10; at++) {
      const messages = conversation(28_000);
      const users = messages.flatMap(({ role }, index) => (role === "assistant" ? [] : [index]));
      const turns = 30;
      for (let turn = 1; turn <= turns; turn++) {
        const end = users[Math.min(users.length - 1, Math.floor((turn * users.length) / turns) - 1)] ?? 1;
        const request = { model: "m", messages: messages.slice(0, Math.max(2, end + 1)), tools: TOOLS };
        const prepared = await seam.prepare(request, { conversation: `c${at}` });
        const next = messages[end + 1];
        const message = next?.role === "assistant" ? next : { role: "assistant", content: "Yes." };
        await prepared.commit({ message });
        if (turn === turns) tokens += prepared.prompt.length;
      }
    }
    const { fileBytes } = await store.stats();
    samples.push(fileBytes / tokens);
    await store.close();
  }
  return row("bytes on disk for a token of a 30-turn conversation, messages included", "B", samples);
}

const folder = mkdtempSync(join(tmpdir(), "promptseam-bench-"));
try {
  const model = await Model.load(modelFolder("qwen3"), { maxModelLength: 200_000 });
  const rows = [await disk(model, folder)];
  for (const size of SIZES) {
    rows.push(...(await commits(model, folder, size)));
    rows.push(await restarts(model, folder, size));
  }
  model.close();
  process.stdout.write(JSON.stringify(rows));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
