// What is right: the full render of the same request. And whether a planned prompt is that.

/** What was found to be wrong. */
export class Mismatch extends Error {
  constructor(message, details) {
    super(message);
    this.details = details;
  }
}

/**
 * The answer that a Seam which restores prints in place of the one that follows `base` in a request: the stored one, where that
 * comes back without its reasoning, inside a tool loop.
 */
export function restoredAnswer(messages, base) {
  const [given, next] = messages.slice(base.sent.length);
  if (given === undefined || next?.role !== "tool" || !hasCalls(given)) return undefined;
  const lacks = !hasReasoning(given) && hasReasoning(base.answer);
  return lacks && saysTheSame(given, base.answer) ? base.answer : undefined;
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

/** Where `full` first differs from `ids` up to `end`, but for `spans`; undefined where it does not. */
export function differenceOutside(ids, spans, full, end = ids.length) {
  let ours = 0;
  let theirs = 0;
  for (const span of [...spans, { start: end, end, rendered: 0 }]) {
    for (; ours < Math.min(span.start, end); ours++, theirs++) {
      if (ids[ours] !== full[theirs]) return theirs;
    }
    ours = span.end;
    theirs += span.rendered;
  }
  return end === ids.length && theirs !== full.length ? theirs : undefined;
}

/** How a request that cannot be rendered is to be planned: the server's `messages`, or not at all. */
export function withoutPrompt(code) {
  if (code === "PS_UNSUPPORTED_CONTENT") return "unsupported_content";
  if (code === "PS_TEMPLATE_FAILED" || code === "PS_TEMPLATE_MISSING") return "uncertified_template";
  return undefined;
}
