/** A model folder of gpt-oss: the o200k vocabulary, which npm has, with Harmony's special tokens. */

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";

const NAMED: Readonly<Record<number, string>> = {
  199998: "startoftext",
  199999: "endoftext",
  200002: "return",
  200003: "constrain",
  200005: "channel",
  200006: "start",
  200007: "end",
  200008: "message",
  200012: "call",
  200018: "endofprompt",
};
const [FIRST, ROWS] = [199_998, 201_088];

const FILES = {
  "config.json": {
    model_type: "gpt_oss",
    vocab_size: ROWS,
    max_position_embeddings: 131_072,
    eos_token_id: 200_002,
  },
  "generation_config.json": { eos_token_id: [200_002, 199_999, 200_012] },
  "tokenizer_config.json": {
    bos_token: "<|startoftext|>",
    eos_token: "<|return|>",
    pad_token: "<|endoftext|>",
  },
};

/** Makes `folder` out of the one with gpt4o's tokenizer, unless it is there. */
export function makeGptOss(o200k: string, folder: string): string {
  if (existsSync(folder)) return folder;
  // Test files run side by side: the folder appears whole or not at all.
  const made = `${folder}.${process.pid}`;
  mkdirSync(made, { recursive: true });
  writeFileSync(`${made}/tokenizer.json`, tokenizer(readFileSync(`${o200k}/tokenizer.json`, "utf8")));
  for (const [name, json] of Object.entries(FILES)) writeFileSync(`${made}/${name}`, JSON.stringify(json));
  try {
    renameSync(made, folder);
  } catch (error) {
    rmSync(made, { recursive: true });
    if (!existsSync(folder)) throw error;
  }
  return folder;
}

function tokenizer(o200k: string): string {
  const made = JSON.parse(o200k) as { model: { vocab: Record<string, number> } };
  const vocab = Object.entries(made.model.vocab).filter(([, id]) => id < FIRST);
  const added = Array.from({ length: ROWS - FIRST }, (_, index) => {
    const id = FIRST + index;
    const content = `<|${NAMED[id] ?? `reserved_${id}`}|>`;
    return {
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    };
  });
  const model = { ...made.model, ignore_merges: false, vocab: Object.fromEntries(vocab) };
  return JSON.stringify({ ...made, model, added_tokens: added });
}
