// Answers of a model: the message that a server parses out of one, and the ids that were sampled for it.

import { text } from "./texts.mjs";

const NAMES = ["read", "write", "search.web", "ünïcode"];
const ARGUMENTS = [
  "{}",
  "",
  '{"path": "src/lib.rs"}',
  '{"path":"a b","n":[1,2.50,1e3]}',
  '{"text": "</think> <tool_response>"}',
  '{"a": 1, "a": 2}',
  "{not json}",
];

/** What each family's model writes for a message, about; what its template prints of it may well differ. */
const SPELLINGS = {
  qwen3: ({ thought, said, calls }) =>
    think(thought) +
    said +
    calls
      .map((call) => `\n<tool_call>\n{"name": "${call.name}", "arguments": ${call.arguments}}\n</tool_call>`)
      .join(""),
  llama3: ({ thought, said, calls }) =>
    think(thought) +
    said +
    calls.map((call) => `{"name": "${call.name}", "parameters": ${call.arguments}}`).join(""),
  deepseek: ({ thought, said, calls }) =>
    think(thought) +
    said +
    calls.map((call) => `<｜tool▁call▁begin｜>function<｜tool▁sep｜>${call.name}`).join(""),
  mistral: ({ thought, said, calls }) =>
    think(thought) +
    said +
    calls.map((call) => `[TOOL_CALLS][{"name": "${call.name}", "id": "${call.id}"}]`).join(""),
  "gpt-oss": ({ thought, said, calls }) =>
    (thought === undefined ? "" : `<|channel|>analysis<|message|>${thought}<|end|><|start|>assistant`) +
    (calls.length === 0
      ? `<|channel|>final<|message|>${said}`
      : calls
          .map((call) => ` to=functions.${call.name}<|channel|>commentary json<|message|>${call.arguments}`)
          .join("<|call|><|start|>assistant")),
};

function think(thought) {
  return thought === undefined ? "" : `<think>\n${thought}\n</think>\n\n`;
}

/** Gives out call ids, some of them a second time. */
export class CallIds {
  #given = [];

  next(random) {
    // Nine characters, as Mistral's template insists on.
    const id =
      this.#given.length > 0 && random.chance(0.04)
        ? random.pick(this.#given)
        : `call${String(this.#given.length).padStart(5, "0")}`;
    this.#given.push(id);
    return id;
  }
}

function call(random, ids) {
  const name = random.chance(0.8) ? NAMES[0] : random.pick(NAMES);
  return {
    id: ids.next(random),
    type: "function",
    function: {
      name,
      arguments: random.chance(0.9) ? random.pick(ARGUMENTS.slice(0, 4)) : random.pick(ARGUMENTS),
    },
  };
}

/** An answer as a step holds it: `sampled` has the pieces of text whose ids the model wrote, one after the other. */
export function answer(random, { family, ids, calls: share }) {
  const message = { role: "assistant", content: random.chance(0.04) ? "" : text(random) };
  if (random.chance(0.35)) message.reasoning = text(random);
  if (random.chance(share)) {
    const parallel =
      family === "llama3"
        ? Number(random.chance(0.03))
        : random.weighted([
            [3, 0],
            [1, 1],
            [1, 2],
          ]);
    message.tool_calls = Array.from({ length: 1 + parallel }, () => call(random, ids));
    message.content = random.pick(["", null, "Let me look.", message.content]);
  }
  if (random.chance(0.02))
    message.content = [text(random), text(random)].map((part) => ({ type: "text", text: part }));
  const cut = random.chance(0.05);
  const step = { message, finishReason: message.tool_calls ? "tool_calls" : "stop" };
  if (cut && typeof message.content === "string" && message.tool_calls === undefined) {
    message.content = message.content.slice(0, random.below(message.content.length + 1)).toWellFormed();
    step.finishReason = "length";
  }
  if (random.chance(0.75))
    step.sampled = { pieces: pieces(random, family, message), stops: step.finishReason !== "length" };
  return step;
}

function pieces(random, family, { reasoning, content, tool_calls: calls = [] }) {
  const whole = SPELLINGS[family]({
    // Some write an empty thought where they have none.
    thought: reasoning ?? random.pick([undefined, undefined, ""]),
    said: typeof content === "string" ? content : "",
    calls: calls.map(({ id, function: called }) => ({ id, ...called })),
  });
  if (!random.chance(0.2) || whole.length < 2) return [whole];
  // A model need not write the ids that its text encodes to.
  const half = 1 + random.below(whole.length - 1);
  return [whole.slice(0, half), whole.slice(half)].map((piece) => piece.toWellFormed());
}

/** The message as the client sends it back: mostly as it was, else as clients do. */
export function sentBack(random, message) {
  if (random.chance(0.75)) return message;
  const { reasoning, ...others } = message;
  return random.pick([
    () => others,
    () => others,
    () => ({
      ...message,
      content: typeof message.content === "string" ? message.content.trim() : message.content,
    }),
    () => ({ ...message, content: message.content === "" ? null : (message.content ?? "") }),
    () => ({ ...message, refusal: null }),
    () => Object.fromEntries(Object.entries(message).reverse()),
    () =>
      typeof message.content === "string" && message.content !== ""
        ? { ...message, content: [{ type: "text", text: message.content }] }
        : message,
    () => (reasoning === undefined ? message : { ...others, reasoning_content: reasoning }),
    () => ({ ...message, content: text(random) }),
  ])();
}
