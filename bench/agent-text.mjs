// Agent conversations of a wanted size, with text that is new in each iteration: no cache may have seen it.

import { readdirSync, readFileSync } from "node:fs";

const MODULES = new URL("../node_modules/", import.meta.url);

// Code and prose of pinned packages: real, and the same from commit to commit. The golden conversations
// will not do: their long texts are drawn from some sixty words, which every tokenizer's cache soon holds.
// `crates/promptseam/benches/agent_text` reads the same files.
const TEXT = ["@types/node/", "undici/lib/"]
  .flatMap((folder) =>
    readdirSync(new URL(folder, MODULES), { recursive: true, encoding: "utf8" })
      .filter((path) => /\.(d\.ts|js)$/.test(path))
      .map((path) => folder + path)
      .sort(),
  )
  .map((path) => readFileSync(new URL(path, MODULES), "utf8"))
  .join("\n");

/** Characters of such a conversation for one of Qwen3's tokens. */
const CHARACTERS_PER_TOKEN = 3.45;
const ROUND = 4_000;

export const TOOLS = Array.from({ length: 12 }, (_, index) => ({
  type: "function",
  function: {
    name: `tool_${index}`,
    description: `Does the thing number ${index} to a file, and says what came of it.`,
    parameters: {
      type: "object",
      properties: {
        path: { type: "string", description: "Path from the root of the repository." },
        limit: { type: "integer", description: "Most lines to give back." },
      },
      required: ["path"],
    },
  },
}));

let fresh = 0;

/** `characters` of text from an ever different place, with names in it that never came before. */
export function freshText(characters) {
  let at = (fresh * 104_729) % (TEXT.length - characters);
  let text = "";
  while (text.length < characters) {
    fresh++;
    text += `${TEXT.slice(at, at + 160)} item${fresh.toString(36)}_${(fresh * 2_654_435_761) % 99_991} `;
    at += 160;
  }
  return text.slice(0, characters).toWellFormed();
}

/** A conversation of tool rounds with about `tokens` tokens in Qwen3's vocabulary, tools included. */
export function conversation(tokens) {
  const messages = [
    {
      role: "system",
      content: "You read a repository and explain it. Say what you learned after each file.",
    },
  ];
  const characters = tokens * CHARACTERS_PER_TOKEN;
  for (let round = 0; round * ROUND < characters; round++) {
    messages.push(...toolRound(round, Math.min(ROUND, characters - round * ROUND)));
  }
  return messages;
}

function toolRound(round, characters) {
  const id = `call${String(round).padStart(5, "0")}`;
  const args = JSON.stringify({ path: `src/file_${round}.rs`, limit: round });
  return [
    { role: "user", content: `Go on with file ${round}, please.` },
    {
      role: "assistant",
      content: "",
      tool_calls: [{ id, type: "function", function: { name: "tool_1", arguments: args } }],
    },
    { role: "tool", tool_call_id: id, content: freshText(Math.ceil(characters * 0.9)) },
    {
      role: "assistant",
      content: `That was file ${round}; it defines ${freshText(60).replaceAll("\n", " ")}.`,
    },
  ];
}

/** The same conversation with about 500 more tokens. */
export function nextTurn(messages) {
  return [
    ...messages,
    { role: "assistant", content: freshText(200) },
    { role: "user", content: freshText(1_300) },
  ];
}

/** The body of a chat request, as bytes. */
export function bodyOf(messages) {
  return Buffer.from(JSON.stringify({ model: "m", messages, tools: TOOLS, stream: true }));
}
