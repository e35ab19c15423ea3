/** Chat requests made at random, from a seed: what agents send, what clients get wrong, and what tokenizers stumble over. */

export type Json = null | boolean | number | string | Json[] | { [member: string]: Json };
export type Message = { [member: string]: Json };

/** A small generator with a good spread (mulberry32). */
export class Random {
  /** What texts are put together from. */
  readonly pieces: readonly string[];
  #state: number;

  constructor(seed: number, pieces = PIECES) {
    this.#state = seed >>> 0;
    this.pieces = pieces;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  chance(share: number): boolean {
    return this.next() < share;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}

export const PIECES: readonly string[] = [
  "Read the file and say what it does.",
  'fn main() { println!("{}", 1 + 1); }\n',
  '{"a": [1, 2.50, null], "b": "\\u00e9"}',
  "今天天气很好。",
  "שלום עולם",
  "👩‍👩‍👧‍👦 👍🏽",
  "e\u0301 ﬁ ½ ſ don'ſ",
  " ",
  "\n",
  "\n\n",
  "\t",
  "\r\n",
  "  \n ",
  "\u00a0\u2003\u3000",
  "12345678901234567890 3.14e-10",
  "<|im_start|>",
  "<|im_end|>",
  "<think>",
  "</think>",
  "\n</think>\n\n",
  "<tool_call>\n{}\n</tool_call>",
  "<tool_response>\nx\n</tool_response>",
  "<s>",
  "</s>",
  "[INST]",
  "[TOOL_CALLS]",
  "<|eot_id|>",
  "<|start_header_id|>user<|end_header_id|>",
  "<｜User｜>",
  "<｜tool▁outputs▁end｜>",
  "{{ messages }} {% raw %}",
  "& < > ' \" \\ / \u2028 \u007f",
  "\u0000",
  "\ufeff",
  "I'm you'RE it’s",
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

export function text(random: Random): string {
  if (random.chance(0.05)) return "";
  let out = "";
  for (let i = random.below(6); i >= 0; i--) out += random.pick(random.pieces);
  return out;
}

function part(random: Random): Json {
  if (random.chance(0.01)) return { type: "image_url", image_url: { url: "data:image/png;base64,AA==" } };
  if (random.chance(0.01)) return { type: "nothing_known", nothing_known: 1 };
  if (random.chance(0.01)) return { type: "text" };
  if (random.chance(0.05)) return text(random);
  if (random.chance(0.04)) return { type: "refusal", refusal: text(random) };
  return { type: "text", text: text(random) };
}

function content(random: Random): Json {
  if (random.chance(0.01)) return null;
  if (random.chance(0.002)) return random.pick<Json>([7, true, { text: "x" }]);
  if (random.chance(0.25)) return Array.from({ length: random.below(4) }, () => part(random));
  return text(random);
}

export function json(random: Random, depth = 0): Json {
  const kind = random.below(depth > 3 ? 6 : 8);
  if (kind === 0) return null;
  if (kind === 1) return random.chance(0.5);
  if (kind === 2) return random.below(1_000_000) - 500_000;
  if (kind === 3) return (random.next() - 0.5) * 10 ** (random.below(40) - 20);
  if (kind < 6) return text(random);
  if (kind === 6) return Array.from({ length: random.below(4) }, () => json(random, depth + 1));
  return object(random, depth + 1);
}

function object(random: Random, depth = 0): { [member: string]: Json } {
  const members: { [member: string]: Json } = {};
  for (let i = random.below(4); i > 0; i--) {
    members[random.pick(["path", "limit", "z", "a", "ü", "10", "2", "with space"])] = json(random, depth);
  }
  return members;
}

/** Numbers spelled as no JSON.stringify would. */
const ODD_ARGUMENTS = [
  "",
  "{}",
  " {\n} ",
  "null",
  "[]",
  "[1]",
  '"text"',
  "5",
  '{"a": 1.0, "b": 1e3, "c": -0, "d": 1E-7, "e": 123456789012345678901234567890}',
  '{"a": 1, "a": 2}',
  '{"a": "\\u00e9\\ud83d\\ude00 \\/"}',
  '{"a": NaN, "b": Infinity}',
  '{"a": }',
  "{not json}",
  '{"a": 1} trailing',
];

function toolCall(random: Random, id: string): Json {
  const args = random.chance(0.25) ? random.pick(ODD_ARGUMENTS) : JSON.stringify(object(random));
  const call: { [member: string]: Json } = {
    id,
    type: "function",
    function: { name: random.pick(["read_file", "now", "search.web", "ünïcode"]), arguments: args },
  };
  if (random.chance(0.01)) delete call["type"];
  if (random.chance(0.01)) delete call["id"];
  if (random.chance(0.01)) call["function"] = { name: "read_file" };
  if (random.chance(0.005)) call["function"] = null;
  return call;
}

function assistant(random: Random): Message {
  const message: Message = { role: "assistant", content: content(random) };
  if (random.chance(0.2)) message[random.pick(["reasoning", "reasoning_content"])] = text(random);
  if (random.chance(0.05)) delete message["content"];
  if (random.chance(0.05)) message["name"] = "helper";
  if (random.chance(0.03)) message["refusal"] = "No.";
  return message;
}

/** An agent's tool rounds after one user message. */
function toolRounds(random: Random, first: number): Message[] {
  const messages: Message[] = [];
  for (let round = random.below(3); round >= 0; round--) {
    const ids = Array.from({ length: 1 + random.below(2) }, (_, i) =>
      String(first + messages.length * 10 + i).padStart(9, "c"),
    );
    messages.push({
      ...assistant(random),
      content: random.pick<Json>(["", null, "Let me look.", text(random)]),
      tool_calls: ids.map((id) => toolCall(random, id)),
    });
    for (const id of ids) {
      const result: Message = { role: "tool", tool_call_id: id, content: content(random) };
      if (random.chance(0.03)) delete result["tool_call_id"];
      if (random.chance(0.1)) result["name"] = "read_file";
      messages.push(result);
    }
  }
  return messages;
}

function tool(random: Random, index: number): Json {
  const fn: { [member: string]: Json } = {
    name: index === 0 ? "read_file" : `tool_${index}`,
    description: text(random),
    parameters: { type: "object", properties: object(random), required: ["path"] },
  };
  if (random.chance(0.1)) delete fn["description"];
  if (random.chance(0.1)) delete fn["parameters"];
  if (random.chance(0.1)) fn["strict"] = random.chance(0.5);
  if (random.chance(0.02)) delete fn["name"];
  return { type: "function", function: fn };
}

function messages(random: Random): Json {
  if (random.chance(0.01)) return random.pick<Json>([[], "hello", null, [{}], [7], { role: "user" }]);
  const list: Message[] = [];
  if (random.chance(0.5))
    list.push({ role: random.pick(["system", "system", "developer"]), content: content(random) });
  for (let turn = random.below(4); turn >= 0; turn--) {
    list.push({ role: "user", content: content(random) });
    if (random.chance(0.3)) list.push(...toolRounds(random, turn * 100));
    if (turn > 0 || random.chance(0.15)) list.push(assistant(random));
  }
  if (random.chance(0.05))
    list.splice(random.below(list.length), 0, { role: "system", content: text(random) });
  if (random.chance(0.02)) list.push({ role: random.pick(["critic", "function", "", "User"]), content: "x" });
  return list;
}

/** The body of a request, ready to be sent. */
export function generateRequest(seed: number): string {
  const random = new Random(seed);
  return spelled(random, requestOf(random));
}

export function requestOf(random: Random): { [member: string]: Json } {
  const request: { [member: string]: Json } = { messages: messages(random) };
  if (random.chance(0.5)) {
    const length = random.chance(0.03) ? 0 : 1 + random.below(4);
    request["tools"] = Array.from({ length }, (_, index) => tool(random, index));
  }
  if (random.chance("tools" in request ? 0.4 : 0.02)) {
    request["tool_choice"] = random.pick<Json>([
      "none",
      "auto",
      "required",
      { type: "function", function: { name: "read_file" } },
      ...(random.chance(0.1) ? ["sometimes"] : []),
    ]);
  }
  if (random.chance(0.3)) {
    request["chat_template_kwargs"] = random.pick<{ [member: string]: Json }>([
      { enable_thinking: false },
      { enable_thinking: true },
      { add_generation_prompt: false },
      { date_string: "26 Jul 2024", tools_in_user_message: false },
      { tools: null },
      object(random),
    ]);
  }
  if (random.chance(0.1)) request["add_generation_prompt"] = random.chance(0.3);
  if (random.chance(0.08)) request["continue_final_message"] = true;
  if (request["continue_final_message"] === true && random.chance(0.7))
    request["add_generation_prompt"] = false;
  if (random.chance(0.05)) request["reasoning_effort"] = random.pick(["low", "high", "none", "odd"]);
  if (random.chance(0.05)) request["documents"] = [{ title: "t", text: "x" }];
  if (random.chance(0.03)) request["add_special_tokens"] = false;
  if (random.chance(0.02)) request["chat_template"] = "{{ messages[0].content }}";
  if (random.chance(0.05)) request["max_tokens"] = 50;
  return request;
}

/** As JSON, which is broken now and then. */
export function spelled(random: Random, request: { [member: string]: Json }): string {
  let body = JSON.stringify(request);
  if (random.chance(0.01)) body = body.slice(0, -1 - random.below(5));
  if (random.chance(0.02)) body = body.replace('"role"', '"content":"first","role"');
  if (random.chance(0.02)) body = body.replace(/"(user|tool)","content":"/, "$&\\ud800 ");
  return body;
}
