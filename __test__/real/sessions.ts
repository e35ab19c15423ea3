/** Sessions of an agent, with what the engine is to sample on each turn, as each family's model would write it. */

import type { ChatMessage, Chunk, Model } from "../../ts/index.ts";

/** One turn. */
export interface Step {
  /** What the client adds to the history, behind the answer before. */
  readonly add: (answer: ChatMessage | undefined) => ChatMessage[];
  /** What the engine samples, its stop token aside. */
  readonly say: string;
}

interface Call {
  readonly name: string;
  readonly arguments: object;
}

/** How a family's model writes. */
interface Voice {
  readonly system: boolean;
  readonly answer: (thought: string, text: string) => string;
  readonly calls: (thought: string, calls: readonly Call[]) => string;
}

const think = (thought: string, rest: string) => `<think>\n${thought}\n</think>\n\n${rest}`;

const VOICES: Record<string, Voice> = {
  qwen3: {
    system: true,
    answer: think,
    calls: (thought, calls) =>
      think(thought, calls.map((call) => `<tool_call>\n${python(call)}\n</tool_call>`).join("\n")),
  },
  llama3: {
    system: true,
    answer: (_, text) => text,
    // Its template knows one call in a message.
    calls: (_, [call]) => python({ name: call?.name, parameters: call?.arguments }),
  },
  mistral: {
    // Its template prints the system message at the last message only, where that is the user's.
    system: false,
    answer: (_, text) => text,
    calls: (_, calls) => `[TOOL_CALLS][${calls.map(python).join(", ")}]`,
  },
};

/** JSON with the spaces that Python writes, and models after it. */
function python(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([name, member]) => `${JSON.stringify(name)}: ${python(member)}`)
    .join(", ")}}`;
}

export const TOOLS = [
  {
    type: "function",
    function: {
      name: "read_file",
      description: "Reads a file.",
      parameters: {
        type: "object",
        properties: { path: { type: "string" }, limit: { type: "integer" } },
        required: ["path"],
      },
    },
  },
  {
    type: "function",
    function: {
      name: "search",
      description: "Looks for a word in all files. Sucht „überall“.",
      parameters: { type: "object", properties: { word: { type: "string" } }, required: ["word"] },
    },
  },
];

function listing(name: string, lines: number): string {
  return Array.from(
    { length: lines },
    (_, i) => `${i}: const ${name}_${i * 7} = read("${name}"); // №${i}`,
  ).join("\n");
}

/** The answers to all calls of a message. */
function results(answer: ChatMessage | undefined, lines: number): ChatMessage[] {
  const calls = (answer?.["tool_calls"] ?? []) as { id: string; function: { name: string } }[];
  return calls.map(({ id, function: { name } }, at) => ({
    role: "tool",
    tool_call_id: id,
    content: listing(`${name}_${at}`, lines),
  }));
}

/**
 * Tasks of four turns each: a question that is answered by a call, whose result by two where the family can, whose results by
 * text; then a question that is answered at once.
 */
export function toolSession(family: string, tasks: number, first = ""): Step[] {
  const voice = VOICES[family];
  if (voice === undefined) throw new Error(`nothing is known of ${family}`);
  const system = voice.system ? [{ role: "system", content: "You read a repository. Antworte kurz." }] : [];
  return Array.from({ length: tasks }, (_, task): Step[] => {
    const path = `src/größe_${task}.ts`;
    const user = (content: string): ChatMessage => ({ role: "user", content });
    const question = `Task ${task}: what does ${path} do? 日本語も 👍🏽`;
    return [
      {
        add: () => (task === 0 ? [...system, user(`${first}${question}`)] : [user(question)]),
        say: voice.calls(`I must read ${path}. 読む`, [
          { name: "read_file", arguments: { path, limit: 20 } },
        ]),
      },
      {
        add: (answer) => results(answer, 6 + task),
        say: voice.calls("Where is it used?", [
          { name: "search", arguments: { word: `größe_${task}` } },
          { name: "read_file", arguments: { path: "README.md" } },
        ]),
      },
      {
        add: (answer) => results(answer, 4),
        say: voice.answer(
          "Now I know.",
          `It reads **${task}** files:\n\n1. \`${path}\`\n2. README.md — naïve.`,
        ),
      },
      {
        add: () => [user(`And is ${task} many?  Say why.\n`)],
        say: voice.answer("That is simple.", `No, ${task} is few; isn't it? “Ja”.`),
      },
    ];
  }).flat();
}

/** About so many tokens of text. */
export async function longText(model: Model, tokens: number): Promise<string> {
  // Line numbers grow longer: the sample is about as long as the text.
  const lines = Math.round(tokens / 24);
  const sample = await model.encode(listing("first", lines));
  return `${listing("first", Math.round((lines * tokens) / sample.length))}\n`;
}

/** Questions that are answered at once. */
export function plainSession(family: string, turns: number): Step[] {
  const voice = VOICES[family];
  if (voice === undefined) throw new Error(`nothing is known of ${family}`);
  return Array.from({ length: turns }, (_, turn) => ({
    add: () => [{ role: "user", content: `Question ${turn}: and the neighbours?` }],
    say: voice.answer("Everybody knows.", `Interesting neighbours, number ${turn}, remember something.`),
  }));
}

/** Ids for the engine to sample: those of a text, then the token that ends an answer. */
export async function script(model: Model, text: string): Promise<Uint32Array> {
  return Uint32Array.from([...(await model.encode(text)), stopOf(model)]);
}

/** The same text in ids that no tokenizer gives: words are split into letters. */
export async function crumbledScript(model: Model, text: string): Promise<Uint32Array> {
  const ids: number[] = [];
  for (const id of await model.encode(text)) {
    const piece = /^ ?[A-Za-z]{3,}$/.test(model.decode([id])) ? model.decode([id]) : "";
    if (piece === "") ids.push(id);
    else for (const letter of piece.match(/ ?./g) ?? []) ids.push(...(await model.encode(letter)));
  }
  return Uint32Array.from([...ids, stopOf(model)]);
}

function stopOf(model: Model): number {
  const stop = model.info.stopTokenIds[0];
  if (stop === undefined) throw new Error("the model names no stop token");
  return stop;
}

/** The member of a request that makes the engine sample `ids`. */
export const play = (ids: Uint32Array) => ({ vllm_xargs: { script: ids.join(" ") } });

/** The message that a client sends back for an answer. */
export function messageOf(chunks: readonly Chunk[]): ChatMessage {
  let content = "";
  let reasoning = "";
  const calls: { id: string; type: "function"; function: { name: string; arguments: string } }[] = [];
  for (const chunk of chunks) {
    if (chunk.type === "text") content += chunk.text;
    if (chunk.type === "reasoning") reasoning += chunk.text;
    if (chunk.type !== "toolCall") continue;
    calls[chunk.call] ??= { id: "", type: "function", function: { name: "", arguments: "" } };
    const call = calls[chunk.call] as (typeof calls)[number];
    call.id += chunk.id ?? "";
    call.function.name += chunk.name ?? "";
    call.function.arguments += chunk.arguments;
  }
  const message = { role: "assistant", content: content === "" && calls.length > 0 ? null : content };
  return {
    ...message,
    ...(reasoning === "" ? {} : { reasoning }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  };
}
