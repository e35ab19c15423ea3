// From a request body to ids, against the JavaScript ways, on the same texts in turn.

import { readFileSync } from "node:fs";
import { Tokenizer as HuggingTokenizer } from "@huggingface/tokenizers";
import { encode as encodeO200k } from "gpt-tokenizer/encoding/o200k_base";
import { Model } from "../dist/index.js";
import { bodyOf, conversation } from "./agent-text.mjs";
import { CONFIG, idsInJs, renderInJs, sameIds } from "./javascript-way.mjs";
import { median, modelFolder, paired, ratio, row, say } from "./sampling.mjs";

const SIZES = [
  { label: "28k", tokens: 28_000, rounds: 30, warmUp: 20 },
  // Warm from the shorter texts.
  { label: "128k", tokens: 128_000, rounds: 10, warmUp: 2 },
];

const read = (name, file) => JSON.parse(readFileSync(`${modelFolder(name)}${file}`, "utf8"));
const O200K_SPECIAL = {
  allowedSpecial: new Set(["<|endoftext|>", "<|endofprompt|>"]),
  disallowedSpecial: new Set(),
};

say("loading the peers");
// Texts of 128k tokens are longer than Qwen3's own limit allows.
const maxModelLength = 200_000;
const qwen3 = await Model.load(modelFolder("qwen3"), { maxModelLength });
const o200k = await Model.load(
  { tokenizer: `${modelFolder("gpt4o")}tokenizer.json` },
  { chatTemplate: CONFIG.chat_template, maxModelLength },
);
const hugging = new HuggingTokenizer(read("qwen3", "tokenizer.json"), CONFIG);

/** Each vocabulary: our way, and the peers' that must give the same ids. */
const VOCABULARIES = [
  {
    name: "Qwen3",
    ours: (body) => qwen3.render(body),
    peers: {
      "jinja + npm tokenizers": idsInJs,
      "jinja + @huggingface/tokenizers": (body) =>
        hugging.encode(renderInJs(body), { add_special_tokens: false }).ids,
    },
  },
  {
    name: "o200k",
    ours: (body) => o200k.render(body),
    peers: {
      // "all" would recognize ChatML's tokens too, which this vocabulary does not have.
      "jinja + gpt-tokenizer": (body) => encodeO200k(renderInJs(body), O200K_SPECIAL),
    },
  },
];

const rows = [];
for (const { label, tokens, rounds, warmUp } of SIZES) {
  for (const { name, ours, peers } of VOCABULARIES) {
    say(`body to ids, ${name}, ${label}: ${warmUp} rounds to warm up, ${rounds} that count`);
    const different = Object.fromEntries(Object.keys(peers).map((peer) => [peer, 0]));
    let length = 0;
    const samples = await paired(
      { promptseam: ours, ...peers },
      {
        rounds,
        warmUp,
        prepare: () => bodyOf(conversation(tokens)),
        check: ({ promptseam, ...theirs }) => {
          length = promptseam.length;
          for (const [peer, ids] of Object.entries(theirs)) if (!sameIds(promptseam, ids)) different[peer]++;
          promptseam.close();
        },
      },
    );
    const own = `body to ids, ${name}, ${label}`;
    rows.push(row(own, "ms", samples.promptseam, { tokens: length }));
    const exact = Object.keys(peers).filter((peer) => different[peer] === 0);
    const best = exact.toSorted((a, b) => median(samples[a]) - median(samples[b]))[0];
    for (const peer of Object.keys(peers)) {
      const note = [
        ...(peer === best ? ["best exact"] : []),
        ...(different[peer] > 0 ? [`${different[peer]} of ${rounds + warmUp} texts other ids`] : []),
      ].join();
      rows.push(
        row(`${own}: ${peer}`, "ms", samples[peer], {
          baseline: own,
          ratio: ratio(samples[peer], samples.promptseam),
          note,
        }),
      );
    }
    if (best === undefined) throw new Error(`no way in JavaScript gives the ids of ${own}`);
    rows.push(
      row(
        `${own}: times faster than the best exact way in JavaScript`,
        "x",
        samples[best].map((time, index) => time / samples.promptseam[index]),
        { baseline: best },
      ),
    );
  }
}
qwen3.close();
o200k.close();
process.stdout.write(JSON.stringify(rows));
