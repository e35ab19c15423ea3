// Prompts through the addon: the next turn beside the full render, comparisons, block hashes, and what a prompt costs.

import { Bench } from "tinybench";
import { Model, Prompt } from "../dist/index.js";
import { bodyOf, conversation, nextTurn } from "./agent-text.mjs";
import { modelFolder, paired, ratio, row, say, taskRow } from "./sampling.mjs";

const SIZES = [
  { label: "28k", tokens: 28_000, rounds: 60 },
  { label: "128k", tokens: 128_000, rounds: 10 },
];

async function nextTurns(model, { label, tokens, rounds }) {
  say(`next turn, ${label}`);
  const { aligned, full } = await paired(
    {
      aligned: ({ body, previous }) => model.render(body, { previous }),
      full: ({ body }) => model.render(body),
    },
    {
      rounds,
      prepare: async () => {
        const messages = conversation(tokens);
        const previous = await model.render(bodyOf(messages));
        return { previous, body: bodyOf(nextTurn(messages)) };
      },
      check: ({ aligned, full }) => {
        if (!aligned.equals(full)) throw new Error("the aligned render gave other ids");
      },
    },
  );
  const name = `next turn (+500), ${label}`;
  return [
    row(name, "ms", aligned),
    row(`${name}: rendered whole`, "ms", full, { baseline: name, ratio: ratio(full, aligned) }),
  ];
}

async function comparisons() {
  say("comparisons");
  const bench = new Bench({ time: 500, retainSamples: true });
  for (const { label, tokens } of SIZES) {
    const ids = Uint32Array.from({ length: tokens }, (_, index) => (index * 7_919) % 150_000);
    // Built apart, as two requests are.
    const [one, other] = [Prompt.fromIds(ids), Prompt.fromIds(ids)];
    const known = one.fingerprint(tokens - 5);
    bench.add(`diff, ${label}`, () => one.diff(other));
    bench.add(`prefix check by fingerprint, ${label}`, () => other.hasPrefix(known, tokens - 5));
  }
  await bench.run();
  return bench.tasks.map((task) => taskRow(task));
}

/** Hashes of a prompt that grew by a turn, beside those of one that nothing is known of. */
async function blockHashes(algorithm) {
  say(`block hashes, ${algorithm}`);
  const options = { profile: `vllm-${algorithm.replace("_", "-")}`, hashSeed: "0" };
  const name = `block hashes, 28k +500, ${algorithm}`;
  const { grown, branched, anew } = await paired(
    {
      grown: ({ grown }) => grown.blockHashes(options),
      branched: ({ branched }) => branched.blockHashes(options),
      anew: ({ anew }) => anew.blockHashes(options),
    },
    {
      rounds: 200,
      prepare: async () => {
        const ids = Uint32Array.from({ length: 28_500 }, () => Math.floor(Math.random() * 150_000));
        const first = Prompt.fromIds(ids.subarray(0, 28_000));
        await first.blockHashes(options);
        const grown = first.continued(ids.subarray(28_000));
        // As a turn does that goes on from the last append boundary: the run it stands in is copied.
        const branched = first.continued(ids.subarray(27_990), 27_990);
        return { grown, branched, anew: Prompt.fromIds(ids) };
      },
      check: ({ grown, branched, anew }) => {
        const same = [grown, branched].every(({ bytes }) => Buffer.compare(bytes, anew.bytes) === 0);
        if (!same) throw new Error("remembered hashes were others");
      },
    },
  );
  const microseconds = (samples) => samples.map((time) => time * 1_000);
  return [
    row(name, "µs", microseconds(grown)),
    row(`${name}: from 10 ids before its end`, "µs", microseconds(branched)),
    row(`${name}: nothing known`, "µs", microseconds(anew), { baseline: name, ratio: ratio(anew, grown) }),
  ];
}

/** Bytes for each id that a turn adds, over a conversation. */
async function memory(model) {
  say("memory");
  let messages = conversation(4_000);
  const first = await model.render(bodyOf(messages));
  let last = first;
  const perToken = [];
  for (let turn = 0; turn < 60; turn++) {
    messages = nextTurn(messages);
    last = await model.render(bodyOf(messages), { previous: last });
    perToken.push((last.bytes - first.bytes) / (last.length - first.length));
  }
  return [row("a prompt's bytes for a token that it does not share", "B", perToken)];
}

const model = await Model.load(modelFolder("qwen3"), { maxModelLength: 200_000 });
const rows = [];
for (const size of SIZES) rows.push(...(await nextTurns(model, size)));
rows.push(...(await comparisons()));
for (const algorithm of ["xxhash_cbor", "sha256_cbor"]) rows.push(...(await blockHashes(algorithm)));
rows.push(...(await memory(model)));
model.close();
process.stdout.write(JSON.stringify(rows));
