/** Keeps prompt text and secrets out of errors, also where a server quotes them back. */

import type { JsonValue } from "./json.ts";

/** A quote of the request shorter than this is not told from chance, unless it is a whole string of it. */
const SHORTEST_QUOTE = 12;
const SHORTEST_STRING = 4;
const MASK = "[…]";
/** Members whose strings are words of the protocol, not content. */
const PROTOCOL_MEMBERS = new Set(["role", "type", "name", "id", "tool_call_id"]);

/**
 * `text`, a short one, with every API key masked and every passage that also stands in the strings of `content` (messages,
 * tools, a prompt: values, not the names of members). O(text × content): for failures only.
 */
export function redact(text: string, apiKey: string | null, content: JsonValue | undefined): string {
  let safe = apiKey === null || apiKey === "" ? text : text.replaceAll(apiKey, MASK);
  const strings: string[] = [];
  collect(content, strings);
  for (const string of strings) {
    if (string.length >= SHORTEST_STRING && string.length < SHORTEST_QUOTE) {
      safe = safe.replaceAll(string, MASK);
    }
  }
  return maskQuotes(safe, strings.filter((string) => string.length >= SHORTEST_QUOTE).join("\u0000"));
}

function maskQuotes(text: string, content: string): string {
  if (content === "") return text;
  // A server may quote text as Python or JSON would print it; its escapes are then part of the passage.
  const printed = JSON.stringify(content);
  const quotes = (passage: string) => content.includes(passage) || printed.includes(passage);
  let out = "";
  let at = 0;
  while (at < text.length) {
    let end = at + SHORTEST_QUOTE;
    if (end > text.length || !quotes(text.slice(at, end))) {
      out += text[at++];
      continue;
    }
    while (end < text.length && quotes(text.slice(at, end + 1))) end++;
    out += MASK;
    at = end;
  }
  return out;
}

function collect(value: JsonValue | undefined, into: string[]): void {
  if (typeof value === "string") into.push(value);
  else if (Array.isArray(value)) for (const member of value) collect(member, into);
  else if (typeof value === "object" && value !== null) {
    for (const [name, member] of Object.entries(value)) {
      if (!(typeof member === "string" && PROTOCOL_MEMBERS.has(name))) collect(member, into);
    }
  }
}
