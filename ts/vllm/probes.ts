/** The requests that `verify` compares: what agents send, and what templates and tokenizers are known to disagree on. */

import type { JsonObject } from "./json.ts";
import type { ChatMessage, ChatRequest } from "./requests.ts";

/** One request of the battery. */
export interface Probe {
  /** What it is about, in words. */
  readonly name: string;
  readonly request: ChatRequest;
}

const TOOLS: JsonObject[] = [
  {
    type: "function",
    function: {
      name: "read_file",
      description: "Reads a file. Says “nothing” where it is empty.",
      parameters: {
        type: "object",
        properties: {
          path: { type: "string", description: "From the root, such as src/a.ts" },
          limit: { type: "integer", minimum: 1, default: 200 },
          mode: { enum: ["text", "bytes", null] },
        },
        required: ["path"],
        additionalProperties: false,
      },
    },
  },
  { type: "function", function: { name: "now", parameters: { type: "object", properties: {} } } },
];

const user = (content: string): ChatMessage => ({ role: "user", content });
const assistant = (content: string): ChatMessage => ({ role: "assistant", content });

function call(id: string, name: string, args: string): JsonObject {
  return { id, type: "function", function: { name, arguments: args } };
}

/** Nine characters, as Mistral's template wants ids to be. */
const [FIRST, SECOND] = ["call00001", "call00002"];

const toolRound: ChatMessage[] = [
  user("What is in a.txt?"),
  { role: "assistant", content: "", tool_calls: [call(FIRST, "read_file", '{"path": "a.txt", "limit": 5}')] },
  { role: "tool", tool_call_id: FIRST, content: "one\ntwo\n" },
];

const TEXTS: Readonly<Record<string, string>> = {
  "accents, composed and not": "é e\u0301 Å A\u030a ﬁ ½ Ǆ",
  "emoji and joiners": "👩‍👩‍👧‍👦 🇩🇪 ☕️ 👍🏽",
  "scripts without spaces": "今天天气很好。ภาษาไทย 日本語テキスト",
  "right to left": "שלום עולם مرحبا \u200f\u202bx\u202c",
  "white space": " \t\n\r\n  a\u00a0b\u2003c\u3000 \n\n\n",
  "control characters": "a\u0000b\u0007c\u001bd\ufeffe\u2028f",
  "digits and signs": "0 12 123 1234 12345678901234567890 3.14e-10 ١٢٣ ²³",
  apostrophes: "I'm you'RE it’s don'ſ 'tis ''ll",
  "text that spells special tokens":
    "<|im_start|>system\n<|im_end|> <s> </s> [INST] <|eot_id|> <think> </think>",
  "code and markup": '```rust\nfn main() { println!("{{}}"); }\n```\n<a href="x">&amp;</a> \\n \\u0041',
};

/** The battery. What a template refuses, vLLM must refuse too. */
export const PROBES: readonly Probe[] = [
  { name: "one user message", request: { messages: [user("Hello")] } },
  {
    name: "system, user and assistant in turn",
    request: {
      messages: [
        { role: "system", content: "You are terse.\n" },
        user("Hi"),
        assistant("Hello!"),
        user("And?"),
        assistant(" More. "),
        user("Bye"),
      ],
    },
  },
  {
    name: "a developer message",
    request: { messages: [{ role: "developer", content: "Be terse." }, user("Hi")] },
  },
  {
    name: "content in parts",
    request: {
      messages: [
        { role: "system", content: [{ type: "text", text: "A" }] },
        {
          role: "user",
          content: [
            { type: "text", text: "one" },
            { type: "text", text: "two" },
          ],
        },
      ],
    },
  },
  { name: "tools, not used yet", request: { messages: [user("Read a.txt")], tools: TOOLS } },
  {
    name: "tools with a system message",
    request: { messages: [{ role: "system", content: "Use tools." }, user("Read a.txt")], tools: TOOLS },
  },
  { name: "an open tool round", request: { messages: toolRound, tools: TOOLS } },
  {
    name: "a closed tool round and what follows",
    request: { messages: [...toolRound, assistant("Two lines."), user("Thanks")], tools: TOOLS },
  },
  {
    name: "two calls at once",
    request: {
      messages: [
        user("Both, please"),
        {
          role: "assistant",
          content: null,
          tool_calls: [call(FIRST, "read_file", '{"path":"b"}'), call(SECOND, "now", "{}")],
        },
        { role: "tool", tool_call_id: FIRST, content: "b" },
        { role: "tool", tool_call_id: SECOND, content: "noon" },
      ],
      tools: TOOLS,
    },
  },
  {
    name: "tool arguments of every JSON type",
    request: {
      messages: [
        user("Go"),
        {
          role: "assistant",
          content: "",
          tool_calls: [
            call(
              FIRST,
              "read_file",
              '{"z": 1, "a": {"nested": [1, 2.50, 1e3, -0, true, null]}, "text": "ü \\"q\\" \\u00e9 <&>", "big": 12345678901234567890}',
            ),
          ],
        },
        { role: "tool", tool_call_id: FIRST, content: '{"ok": true}' },
      ],
      tools: TOOLS,
    },
  },
  {
    name: "tools that must not be used",
    request: { messages: [user("Hi")], tools: TOOLS, tool_choice: "none" },
  },
  {
    name: "reasoning in an earlier answer",
    request: {
      messages: [user("2+2?"), { role: "assistant", reasoning: "Add them.", content: "4" }, user("And 3+3?")],
    },
  },
  {
    name: "reasoning inside a tool loop",
    request: {
      messages: [
        user("Read a.txt"),
        {
          role: "assistant",
          reasoning: "I must read it.",
          content: "",
          tool_calls: [call(FIRST, "read_file", '{"path": "a.txt"}')],
        },
        { role: "tool", tool_call_id: FIRST, content: "one" },
      ],
      tools: TOOLS,
    },
  },
  {
    name: "reasoning written into the content",
    request: { messages: [user("2+2?"), assistant("<think>\nAdd.\n</think>\n\n4"), user("Sure?")] },
  },
  {
    name: "template arguments",
    request: { messages: [user("Hi")], chat_template_kwargs: { enable_thinking: false, unknown: [1, "a"] } },
  },
  {
    name: "no generation prompt",
    request: { messages: [user("Hi"), assistant("Ho")], add_generation_prompt: false },
  },
  {
    name: "an answer to be continued",
    request: {
      messages: [user("Hi"), assistant("Once upon a")],
      add_generation_prompt: false,
      continue_final_message: true,
    },
  },
  { name: "empty content", request: { messages: [user(""), assistant(""), user("x")] } },
  ...Object.entries(TEXTS).map(([name, text]) => ({
    name,
    request: { messages: [{ role: "system", content: text }, user(text), assistant(text), user(`${text}.`)] },
  })),
];
