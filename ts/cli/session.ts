/** The demo's agent session: fixed in advance, so that every run on the same files has the same history. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { ChatMessage } from "../vllm/index.ts";
import type { JsonObject } from "../vllm/json.ts";

/** One call of the model: the whole history that it is given. */
export interface Turn {
  readonly messages: readonly ChatMessage[];
}

/** Turns of the session at full length. */
export const TURNS = 14;

/** Characters that one tool result holds at most: some 3,000 tokens. */
const RESULT_CHARACTERS = 13_000;

const ROOT = new URL("../../", import.meta.url);

/** The tools that the agent is offered. */
export const TOOLS: readonly JsonObject[] = [
  tool("read_files", "Read files of the repository.", { paths: "Paths from its root, with commas between." }),
  tool("list_files", "List the files of a folder.", { path: "Folder, from the root of the repository." }),
  tool("search", "Find the lines that hold a text.", { text: "What to look for.", path: "Where to look." }),
];

function tool(name: string, description: string, parameters: Readonly<Record<string, string>>): JsonObject {
  const properties = Object.fromEntries(
    Object.entries(parameters).map(([key, text]) => [key, { type: "string", description: text }]),
  );
  return {
    type: "function",
    function: {
      name,
      description,
      parameters: { type: "object", properties, required: Object.keys(parameters) },
    },
  };
}

const INSTRUCTIONS =
  "You are a careful engineer who reads a repository to explain it. Read one file at a time, say in a sentence what you " +
  "learned, and go on until you can answer. Quote names exactly.";

const QUESTIONS = [
  "How does this package keep the tokens that a model has seen, and what decides where new ones may be appended?",
  "And how are failures told apart on the way from the native code to the caller?",
  "What would a reader want to know first about the client?",
];

/** What the assistant says when it calls for the next file, and what it concludes at the end of a question. */
const REMARKS = [
  "I will start where the types are.",
  "That names the parts; the next file should hold the details.",
  "So the ids stay on the native side. I want to see who calls this.",
  "The error paths matter here, let me look at them.",
  "This one is short; I expect it to delegate.",
  "Good, that fits what the other file promised.",
];

const CONCLUSIONS = [
  "The ids live in shared chunks, and a proof over the added tokens says after which of them others may follow.",
  "Every outcome crosses the border as data with a code, and one place turns it into a typed error.",
];

/** The turns of the session. Tool results are the package's own files, in a fixed order. */
export function session(turns: number): Turn[] {
  const files = sourceFiles();
  const messages: ChatMessage[] = [{ role: "system", content: INSTRUCTIONS }];
  const result: Turn[] = [];
  let question = 0;
  for (let turn = 0; turn < turns; turn++) {
    if (turn % 5 === 0) {
      if (turn > 0) messages.push({ role: "assistant", content: pick(CONCLUSIONS, question - 1) });
      messages.push({ role: "user", content: pick(QUESTIONS, question) });
      question++;
    } else {
      const read = reading(files, turn);
      messages.push(call(turn, "read_files", { paths: read.paths.join(",") }), answer(turn, read.text));
    }
    result.push({ messages: [...messages] });
  }
  return result;
}

function call(turn: number, name: string, args: JsonObject): ChatMessage {
  return {
    role: "assistant",
    content: pick(REMARKS, turn),
    tool_calls: [{ id: callId(turn), type: "function", function: { name, arguments: JSON.stringify(args) } }],
  };
}

function answer(turn: number, content: string): ChatMessage {
  return { role: "tool", tool_call_id: callId(turn), content };
}

/** Nine letters and digits: what Mistral's templates ask for, and others take. */
function callId(turn: number): string {
  return `call${String(turn).padStart(5, "0")}`;
}

function pick<T>(items: readonly T[], index: number): T {
  return items[index % items.length] as T;
}

/** What one turn reads: files in a row, from a place of its own, until the result is full. */
function reading(files: readonly string[], turn: number): { paths: string[]; text: string } {
  const paths: string[] = [];
  let text = "";
  for (let index = 3 * turn; text.length < RESULT_CHARACTERS; index++) {
    const path = pick(files, index);
    paths.push(path);
    text += `// ${path}\n${readFileSync(new URL(path, ROOT), "utf8")}\n`;
  }
  return { paths, text: text.slice(0, RESULT_CHARACTERS) };
}

/** The sources of the package in a clone, its compiled files where it is installed; by name. */
function sourceFiles(): string[] {
  const folders = ["crates/promptseam/src/", "ts/"].filter((folder) => existsSync(new URL(folder, ROOT)));
  return (folders.length > 0 ? folders : ["dist/"])
    .flatMap((folder) =>
      readdirSync(fileURLToPath(new URL(folder, ROOT)), { recursive: true, encoding: "utf8" })
        .filter((path) => /\.(rs|ts|js)$/.test(path))
        .map((path) => folder + path),
    )
    .sort();
}
