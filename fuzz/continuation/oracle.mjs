// What is right: the full render of the same request. And whether a planned prompt is that.

/** Members of a request that a turn which only appends has from the turn before. */
const LASTING = [
  "tools",
  "tool_choice",
  "documents",
  "chat_template",
  "chat_template_kwargs",
  "reasoning_effort",
  "add_generation_prompt",
  "continue_final_message",
  "add_special_tokens",
];

/** What was found to be wrong. */
export class Mismatch extends Error {
  constructor(message, details) {
    super(message);
    this.details = details;
  }
}

/** The members that a turn's prompt depends on. */
export function lastingMembers(members) {
  return Object.fromEntries(Object.entries(members).filter(([name]) => LASTING.includes(name)));
}

/**
 * The messages of a whole request as they are to be printed: with `restore`, a stored answer in place of one that comes back
 * without its reasoning, inside a tool loop; and those before it as they were printed already.
 */
export function printed(messages, base, restore) {
  if (base === undefined || !restore) return messages;
  const rest = messages.slice(base.sent.length);
  const [given, next] = rest;
  const lacks = given !== undefined && hasCalls(given) && !hasReasoning(given) && hasReasoning(base.answer);
  if (lacks && next?.role === "tool" && saysTheSame(given, base.answer)) rest[0] = base.answer;
  return [...base.messages, ...rest];
}

function hasCalls(message) {
  return Array.isArray(message.tool_calls) && message.tool_calls.length > 0;
}

function hasReasoning(message) {
  return [message.reasoning, message.reasoning_content].some(
    (text) => typeof text === "string" && text !== "",
  );
}

function saysTheSame(a, b) {
  return textOf(a) === textOf(b) && JSON.stringify(a.tool_calls ?? []) === JSON.stringify(b.tool_calls ?? []);
}

function textOf({ content }) {
  if (Array.isArray(content)) return JSON.stringify(content.map((part) => part.text));
  return JSON.stringify([content ?? ""]);
}

/** Whether `ids` are `full` but for `spans`. */
export function equalOutside(ids, spans, full) {
  let ours = 0;
  let theirs = 0;
  for (const { start, end, rendered } of spans) {
    for (; ours < start; ours++, theirs++) if (ids[ours] !== full[theirs]) return false;
    ours = end;
    theirs += rendered;
  }
  if (ids.length - ours !== full.length - theirs) return false;
  for (; ours < ids.length; ours++, theirs++) if (ids[ours] !== full[theirs]) return false;
  return true;
}

/** How a request that cannot be rendered is to be planned: the server's `messages`, or not at all. */
export function withoutPrompt(code) {
  if (code === "PS_UNSUPPORTED_CONTENT") return "unsupported_content";
  if (code === "PS_TEMPLATE_FAILED" || code === "PS_TEMPLATE_MISSING") return "uncertified_template";
  return undefined;
}
