// Turns through the Seam: a known conversation gone on from, beside the lower rungs and the usual way in JavaScript.

import { Model, Seam } from "../dist/index.js";
import { bodyOf, conversation, freshText, nextTurn, TOOLS } from "./agent-text.mjs";
import { modelFolder, paired, ratio, row, say } from "./sampling.mjs";

const SIZES = [
  { label: "28k", tokens: 28_000, rounds: 60 },
  { label: "128k", tokens: 128_000, rounds: 15 },
];

/** Linux counts a thread's processor time; see bench/event-loop.mjs. */
let conversations = 0;

/** A conversation that a Seam knows, and what comes next in it. */
async function known(seam, tokens) {
  const id = `c${conversations++}`;
  const messages = conversation(tokens).slice(0, -1);
  const answer = { role: "assistant", content: freshText(200) };
  const first = await seam.prepare({ model: "m", messages, tools: TOOLS, stream: true }, { conversation: id });
  await first.commit({ message: answer });
  const append = [{ role: "user", content: freshText(1_300) }];
  return { id, append, body: bodyOf([...messages, answer, ...append]), previous: first.prompt };
}

async function turns(model, { label, tokens, rounds }) {
  say(`a turn of 500 new tokens, ${label}`);
  const seam = new Seam({ model, shadow: { first: 0, share: 0 } });
  await seam.warmUp();
  const samples = await paired(
    {
      append: async ({ id, append }) => {
        const turn = await seam.prepare({ append }, { conversation: id });
        if (turn.outcome.kind !== "certified_suffix") throw new Error(JSON.stringify(turn.outcome));
        return turn.prompt;
      },
      history: async ({ body }) => {
        const turn = await seam.prepare(body);
        if (turn.outcome.kind !== "certified_suffix") throw new Error(JSON.stringify(turn.outcome));
        return turn.prompt;
      },
      aligned: ({ body, previous }) => model.render(body, { previous }),
      full: ({ body }) => model.render(body),
    },
    {
      rounds,
      prepare: () => known(seam, tokens),
      check: ({ append, history, aligned, full }) => {
        for (const prompt of [append, history, aligned])
          if (!prompt.equals(full)) throw new Error("a rung gave other ids");
      },
    },
  );
  const name = `prepare (+500), ${label}: conversation known`;
  const rows = Object.entries({
    [name]: samples.append,
    [`prepare (+500), ${label}: full history as bytes`]: samples.history,
    [`prepare (+500), ${label}: aligned render`]: samples.aligned,
    [`prepare (+500), ${label}: full render`]: samples.full,
  });
  return rows.map(([title, times]) =>
    row(
      title,
      "µs",
      times.map((ms) => 1000 * ms),
      title === name ? {} : { baseline: name, ratio: ratio(times, samples.append) },
    ),
  );
}

const model = await Model.load(modelFolder("qwen3"), { maxModelLength: 200_000 });
const rows = [];
for (const size of SIZES) rows.push(...(await turns(model, size)));
model.close();
process.stdout.write(JSON.stringify(rows));
