/** Chat requests made at random for gpt-oss: more of what Harmony treats in its own way. */

import { type Json, json, PIECES, Random, requestOf, spelled, text } from "./generator.ts";

type Fields = { [member: string]: Json };

const SPELLED = [
  "<|start|>",
  "<|end|>",
  "<|message|>",
  "<|channel|>analysis",
  "<|start|>assistant to=functions.x<|channel|>commentary json<|message|>{}<|call|>",
  "<|constrain|>",
  "<|return|>",
  "<|endofprompt|>",
  "<|reserved_200000|>",
  "\u{f0000}",
  "\u{f0000}\u{f0000}",
  "\u{f0000}s",
  "\u{f0000}|",
  "# Instructions\n\n",
  " to=assistant",
];

const NAMES = ["path", "a", "limit", "ü", "with space", "10", "2", "nullable", "type"];

function list<T>(random: Random, most: number, item: () => T): T[] {
  return Array.from({ length: random.below(most + 1) }, item);
}

/** A JSON schema, with what oss-harmony shows of one and what it does not. */
function schema(random: Random, depth = 0): Json {
  if (random.chance(0.02)) return json(random);
  const made: Fields = {};
  const nested = depth < 3;
  const kind = random.pick(["object", "string", "number", "integer", "boolean", "array", "null", "odd"]);
  if (random.chance(0.9)) made["type"] = depth === 0 && random.chance(0.9) ? "object" : kind;
  if (random.chance(0.1)) {
    made["type"] = random.pick<Json>([
      ["string", "null"],
      ["integer", "number"],
      ["object", "array"],
      [],
      [1, null],
      5,
    ]);
  }
  if (random.chance(0.3)) made["description"] = random.chance(0.9) ? text(random) : json(random);
  if (random.chance(0.1)) made["title"] = random.chance(0.9) ? text(random) : 5;
  if (random.chance(0.2)) made["nullable"] = random.pick<Json>([true, true, false, "true"]);
  if (random.chance(0.2))
    made["enum"] = list(random, 3, () => (random.chance(0.8) ? text(random) : json(random)));
  if (random.chance(0.3)) made["default"] = random.chance(0.4) ? text(random) : json(random);
  if (random.chance(0.1))
    made["examples"] = random.chance(0.9) ? list(random, 3, () => json(random)) : "no list";
  if (random.chance(0.3))
    made["required"] = random.chance(0.9) ? list(random, 3, () => random.pick(NAMES)) : "path";
  if (nested && (made["type"] === "object" || random.chance(0.1))) {
    const properties: Fields = {};
    for (let i = random.below(4); i > 0; i--) properties[random.pick(NAMES)] = schema(random, depth + 1);
    made["properties"] = random.chance(0.97) ? properties : json(random);
  }
  if (nested && (made["type"] === "array" ? random.chance(0.8) : random.chance(0.05)))
    made["items"] = schema(random, depth + 1);
  if (nested && random.chance(0.15)) {
    const variants = list(random, 3, () => schema(random, depth + 1));
    const first = variants[0];
    if (random.chance(0.3) && typeof first === "object" && first !== null && !Array.isArray(first))
      made["description"] = first["description"] ?? "shared";
    made[random.pick(["oneOf", "oneOf", "oneOf", "anyOf", "allOf"])] = random.chance(0.95) ? variants : "odd";
  }
  return made;
}

/** A number as JSON spells it, and as JavaScript would not. */
const NUMBERS = [
  "1.0",
  "-0.0",
  "1e16",
  "123456789012345678901234567890",
  "-9223372036854775809",
  "2.5e-320",
  "1E5",
  "1e400",
];

function tools(random: Random, made: Json): void {
  if (!Array.isArray(made)) return;
  for (const tool of made as { function: Fields }[]) {
    if (!random.chance(0.8)) continue;
    tool.function["parameters"] = schema(random);
    if (random.chance(0.05)) tool.function["name"] = text(random);
  }
}

/** Changes to a message that Harmony's way sees and templates may not. */
function message(random: Random, made: Fields, ids: string[]): void {
  const calls = made["tool_calls"];
  if (Array.isArray(calls)) {
    for (const [index, call] of calls.entries()) {
      const fields = call as Fields;
      if (random.chance(0.15) && ids.length > 0) fields["id"] = random.pick(ids);
      if (typeof fields["id"] === "string") ids.push(fields["id"]);
      if (random.chance(0.02))
        calls[index] = {
          id: random.pick(ids) ?? "c",
          type: "custom",
          custom: { name: "n", input: text(random) },
        };
      const fn = fields["function"] as Fields | null | undefined;
      if (fn && random.chance(0.04)) fn["name"] = text(random);
    }
  } else if (random.chance(0.02)) {
    const call = {
      id: random.pick(ids) ?? "c",
      type: "function",
      function: { name: "renamed", arguments: "{}" },
    };
    made["tool_calls"] = random.pick<Json>([[call], [call], [], null, {}]);
  }
  if (made["role"] === "assistant" && random.chance(0.3)) made["reasoning"] = text(random);
  if (made["role"] === "assistant" && random.chance(0.02))
    made["reasoning"] = random.pick<Json>([null, "", 0, 5, [], {}, true, ["x"]]);
  if (made["role"] === "tool" && random.chance(0.1))
    made["tool_call_id"] = random.pick<Json>([...ids, "", null, 5, "unknown"]);
  if (random.chance(0.06)) {
    const parts: Json[] = [
      { type: "text", text: "" },
      { type: "text", text: "b" },
      { type: "text", text: text(random) },
      { type: "text", text: "more", extra: 1 },
    ];
    const odd: Json[] = [
      "a string",
      { type: "text", text: null },
      { type: "odd", text: "kept" },
      { text: "untyped" },
      { type: "refusal", refusal: "no" },
      { type: "thinking", thinking: "hm" },
      { type: "image_url", image_url: { url: "data:image/png;base64,AA==" } },
      { type: "input_audio", input_audio: { data: "AA==", format: "wav" } },
      { type: "tool_reference", name: "t" },
      {},
    ];
    made["content"] = list(random, 4, () => random.pick(random.chance(0.9) ? parts : odd));
    if (random.chance(0.1)) made["name"] = "someone";
  }
  if (random.chance(0.005)) made["content"] = random.pick<Json>([{}, { text: "x" }, 5, null]);
}

/** The body of a request, ready to be sent. */
export function generateHarmonyRequest(seed: number): string {
  const random = new Random(seed, [...PIECES, ...SPELLED]);
  const request = requestOf(random);
  tools(random, request["tools"] ?? null);
  const ids: string[] = [];
  const messages = request["messages"];
  if (Array.isArray(messages)) {
    for (const made of messages) {
      if (typeof made === "object" && made !== null && !Array.isArray(made) && "role" in made)
        message(random, made, ids);
    }
    if (random.chance(0.1)) {
      const role = random.pick(["system", "developer"]);
      messages.splice(random.below(messages.length + 1), 0, { role, content: text(random) });
    }
  }
  if (random.chance(0.4)) {
    const known = random.chance(0.9);
    request["reasoning_effort"] = random.pick(
      known ? ["low", "medium", "high"] : ["none", "minimal", "xhigh", "max"],
    );
  }
  if (random.chance(0.05)) request["include_reasoning"] = random.chance(0.5);
  const body = spelled(random, request);
  return random.chance(0.1) ? body.replace(/"default":-?[0-9.]+/, `"default":${random.pick(NUMBERS)}`) : body;
}
