// What is said of rows: the machine they were measured on, and what their medians are held to.

import { cpus, loadavg, release, totalmem } from "node:os";

/** By the name of the row. */
const TARGETS = {
  "core: turn, body to ids, 28k": { atMost: 2 },
  "core: turn, aligned next turn (+500), 28k": { atMost: 1 },
  "core: prompt, diff, 28k": { atMost: 2 },
  "core: prompt, diff, 128k": { atMost: 10 },
  "body to ids, Qwen3, 28k: times faster than the best exact way in JavaScript": { atLeast: 25 },
  "body to ids, o200k, 28k: times faster than the best exact way in JavaScript": { atLeast: 10 },
  "next turn (+500), 28k": { atMost: 1 },
  "prepare (+500), 28k, conversation known": { atMost: 150 },
  "prepare (+500), 28k, conversation known: main thread": { atMost: 60 },
  "prepare (+500), conversation known: 128k over 28k": { atMost: 1.25 },
  "prepare (+500), 28k, recognition: a history sent again": { atMost: 400 },
  "block hashes, 28k +500, xxhash_cbor": { atMost: 60 },
  "block hashes, 28k +500, sha256_cbor": { atMost: 250 },
  "prepared turns, 28k": { atLeast: 4_000 },
  "an idle 28k conversation, messages included": { atMost: 250 },
  "commit (+700), 28k, SQLite": { atMost: 1 },
  "commit (+700), 28k, SQLite: main thread": { atMost: 80 },
  "next turn (+500) after a restart, 28k: load, check and plan": { atMost: 2 },
  "next turn (+500) after a restart, 128k: load, check and plan": { atMost: 6 },
  "bytes on disk for a token of a 30-turn conversation, messages included": { atMost: 5 },
  "main thread, 28k turn: processor time, settling and collection included": { atMost: 100 },
  "event-loop delay p99: above idle, 64 turns in flight": { atMost: 2 },
  "load Qwen3": { atMost: 1.5 },
  "resident after it": { atMost: 250 },
  "a prompt's bytes for a token that it does not share": { atMost: 6 },
  "removable time removed, 30k: chat ids": { atLeast: 0.75 },
  "removable time removed, 30k: generate ids": { atLeast: 0.8 },
  "removable time removed, 30k: handle": { atLeast: 0.95 },
  "time to first token, 30k: messages over generate ids": { atLeast: 1.8 },
  "time to first token, 30k: messages over handle": { atLeast: 2 },
  "streamed turn of 16 tokens, 28k: client over undici": { atMost: 1.05 },
  "main thread before the first byte, 28k: client over undici": { atMost: 150 },
};

export function machine() {
  return {
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    memoryGB: Math.round(totalmem() / 1e9),
    kernel: release(),
    node: process.version,
    load: loadavg()[0],
  };
}

/** Whether a row's median meets its target, if it has one. */
export function verdict({ name, median }) {
  const target = TARGETS[name];
  if (target === undefined) return { text: "", missed: false };
  const [met, words] =
    target.atMost !== undefined
      ? [median <= target.atMost, `at most ${target.atMost}`]
      : [median >= target.atLeast, `at least ${target.atLeast}`];
  return { text: `${met ? "ok" : "MISSED"}, ${words}`, missed: !met };
}

export function table({ cpu, cores, node, load }, rows) {
  const figure = (value) => value.toPrecision(3).padStart(9);
  const lines = rows.map((entry) => {
    const times = entry.ratio === undefined ? "" : `${entry.ratio.toFixed(1)}x`;
    const said = [verdict(entry).text, entry.note].filter(Boolean).join(" ");
    return `${entry.name.padEnd(78)} ${figure(entry.median)} ${figure(entry.p95)} ${entry.unit.padEnd(4)} n=${String(entry.n).padEnd(7)} ${times.padStart(7)}  ${said}`.trimEnd();
  });
  const head = `${cpu}, ${cores} cores, Node ${node}, load ${load.toFixed(1)} at the start`;
  return `${head}\n\n${"".padEnd(78)}    median       p95\n${lines.join("\n")}\n`;
}
