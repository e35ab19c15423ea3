/** A model of a few hundred tokens with any chat template: loaded in milliseconds, and no template is too odd for it. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Model } from "../model.ts";

const ADDED = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"];

/** Some, so that text that is cut in the wrong place encodes otherwise. */
const MERGES = [
  ["Ċ", "Ċ"],
  ["Ġ", "Ġ"],
  ["t", "h"],
  ["th", "e"],
  ["n", "e"],
  ["O", "ne"],
  [".", "Ċ"],
];

/** The characters that byte-level tokenizers write bytes as, in the order of the bytes. */
function byteCharacters(): string[] {
  const printable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCodePoint(printable(byte) ? byte : 0x100 + others++),
  );
}

function tokenizer(merges: readonly string[][]): string {
  const vocab: Record<string, number> = {};
  for (const token of [...byteCharacters(), ...merges.map((pair) => pair.join(""))]) {
    vocab[token] = Object.keys(vocab).length;
  }
  const size = Object.keys(vocab).length;
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return JSON.stringify({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: ADDED.map((content, at) => ({ id: size + at, content, ...flags })),
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges,
    },
  });
}

/** ChatML that prints tools, the date, reasoning and calls, and leaves what it printed as it is. */
export const CHATML = `
{%- if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif -%}
{%- if dated %}<|im_start|>date\n{{ strftime_now('%Y-%m-%d') }}<|im_end|>\n{% endif -%}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning %}<think>{{ m.reasoning }}</think>{% endif %}{{ m.content }}
{%- for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}`;

/** Close it after use, as any model. Other `merges` make another tokenizer. */
export async function tinyModel(chatTemplate = CHATML, merges = MERGES): Promise<Model> {
  const folder = mkdtempSync(join(tmpdir(), "promptseam-tiny-"));
  try {
    writeFileSync(join(folder, "tokenizer.json"), tokenizer(merges));
    writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ eos_token: "<|im_end|>" }));
    return await Model.load(folder, { chatTemplate, threads: 1 });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
