// Agent conversations of a wanted size, with text that is new in each iteration: no cache may have seen it.

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const ROOT = new URL("../", import.meta.url);

const SOURCES = ["crates/promptseam/src/", "ts/"].flatMap((folder) =>
  readdirSync(fileURLToPath(new URL(folder, ROOT)), { recursive: true, encoding: "utf8" })
    .filter((path) => /\.(rs|ts)$/.test(path))
    .sort()
    .map((path) => readFileSync(new URL(folder + path, ROOT), "utf8")),
);

const TEXT = SOURCES.join("\n");

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

/** About `characters` of source text from an ever different place, with names in it that never came before. */
export function freshText(characters) {
  const start = (fresh * 7_919) % (TEXT.length - characters);
  const pieces = [];
  for (let at = start; at < start + characters; at += 160) {
    fresh++;
    pieces.push(TEXT.slice(at, at + 160), ` item${fresh.toString(36)}_${(fresh * 2_654_435_761) % 99_991} `);
  }
  return pieces.join("");
}

/** A conversation of tool rounds with about `tokens` tokens in Qwen3's vocabulary. */
export function conversation(tokens) {
  const messages = [
    {
      role: "system",
      content: "You read a repository and explain it. Say what you learned after each file.",
    },
  ];
  let characters = tokens * 3.1;
  for (let round = 0; characters > 0; round++) {
    const size = Math.min(4_000, characters);
    characters -= size;
    messages.push(...toolRound(round, size));
  }
  return messages;
}

function toolRound(round, size) {
  const id = `call${String(round).padStart(5, "0")}`;
  const args = JSON.stringify({ path: `src/file_${round}.rs`, limit: round });
  return [
    { role: "user", content: `Go on with file ${round}, please.` },
    {
      role: "assistant",
      content: "",
      tool_calls: [{ id, type: "function", function: { name: "tool_1", arguments: args } }],
    },
    { role: "tool", tool_call_id: id, content: freshText(size) },
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
    { role: "user", content: freshText(1_200) },
  ];
}

/** The body of a chat request, as bytes. */
export function bodyOf(messages) {
  return Buffer.from(JSON.stringify({ model: "m", messages, tools: TOOLS, stream: true }));
}
