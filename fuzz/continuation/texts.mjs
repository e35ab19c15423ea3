// Texts as users, tools and models write them, and those that templates and tokenizers stumble over.

const PLAIN = [
  "Read the file and say what it does.",
  "Go on.",
  "It prints the sum of its arguments, one to a line.",
  'fn main() { println!("{}", 1 + 1); }',
  'error[E0308]: mismatched types\n --> src/main.rs:4:18\n  |\n4 |     let x: u32 = "a";\n',
  '{"path": "src/lib.rs", "lines": [1, 2.50, null], "ok": true}',
  "| a | b |\n|---|---|\n| 1 | 2 |\n",
  "今天天气很好，我们去公园吧。",
  "שלום עולם",
  "नमस्ते दुनिया",
  "👩‍👩‍👧‍👦 👍🏽 🇩🇪",
  "e\u0301 ﬁ ½ ſ don'ſ Ⅷ ẞ",
  "12345678901234567890 3.14e-10 0x1F",
  "I'm you'RE it’s",
  "<b>bold & 'quoted'</b> \\ / \"",
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

const SPACE = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "  \n ", "\u00a0\u2003\u3000"];

/** Looked for by templates, read as tokens by tokenizers, or both. */
const LITERAL = [
  "<think>",
  "</think>",
  "<think>\nhm\n</think>\n\n",
  "<tool_call>\n{}\n</tool_call>",
  "<tool_response>",
  "</tool_response>",
  "<tool_response>\nx\n</tool_response>",
  "<|im_start|>",
  "<|im_end|>\n",
  "<|im_start|>assistant\n",
  "<|eot_id|>",
  "<|start_header_id|>user<|end_header_id|>\n\n",
  "<｜User｜>",
  "<｜Assistant｜>",
  "<｜tool▁outputs▁end｜>",
  "<｜end▁of▁sentence｜>",
  "<s>",
  "</s>",
  "[INST]",
  "[/INST]",
  "[TOOL_CALLS][",
  "[AVAILABLE_TOOLS]",
  "<|start|>assistant<|channel|>final<|message|>",
  "<|return|>",
  "{{ messages }} {% raw %}",
  "\u{f0000}|",
  "\ufeff",
  "\u0000",
];

/** What templates take for something else than content where it stands around all of it. */
const AROUND = [
  ["<tool_response>", "</tool_response>"],
  ["<tool_response>\n", "\n</tool_response>"],
  ["<think>\n", "\n</think>\n\n"],
  ["<tool_call>\n", "\n</tool_call>"],
];

/** A text that looks like another kind of message, or nearly so. */
function disguised(random) {
  const [before, after] = random.pick(AROUND);
  const around = () => (random.chance(0.3) ? random.pick(["x", ...SPACE]) : "");
  return `${around()}${random.chance(0.9) ? before : ""}${random.pick(PLAIN)}${random.chance(0.9) ? after : ""}${around()}`;
}

/** @param {import("./random.mjs").Random} random */
export function text(random) {
  if (random.chance(random.disguised)) return disguised(random);
  if (random.chance(0.03)) return random.pick(["", "", " ", "\n"]);
  let out = random.chance(0.06) ? random.pick(SPACE) : "";
  for (let pieces = 1 + random.below(3); pieces > 0; pieces--) {
    out += random.weighted([
      [90, random.pick(PLAIN)],
      [12, random.pick(SPACE)],
      [2, random.pick(LITERAL)],
    ]);
  }
  if (random.chance(0.005)) out = `${random.pick(LITERAL)}${out}${random.pick(LITERAL)}`;
  // Long ones cross the rows that prompts are aligned by, and the longest tail that is kept.
  if (random.chance(0.01)) out = `${out}\n`.repeat(1 + random.below(60));
  return random.chance(0.06) ? out + random.pick(SPACE) : out;
}

/** Content of a message: mostly text, else a list of parts. */
export function content(random) {
  if (!random.chance(0.08)) return text(random);
  const parts = Array.from({ length: random.below(4) }, () => ({ type: "text", text: text(random) }));
  if (random.chance(0.2)) {
    const whole = text(random);
    const cut = random.below(whole.length + 1);
    parts.splice(
      0,
      parts.length,
      ...[whole.slice(0, cut), whole.slice(cut)].map((piece) => ({
        type: "text",
        text: piece.toWellFormed(),
      })),
    );
  }
  if (random.chance(0.03))
    parts.push({ type: "image_url", image_url: { url: "data:image/png;base64,AA==" } });
  return parts;
}
