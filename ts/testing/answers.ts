/** The JSON of answers, in the shapes of vLLM 0.32. */

import type { Generation } from "./engine.ts";
import { type Delta, OutputParser } from "./output-parser.ts";
import type { ParsedRequest } from "./requests.ts";
import type { SampledToken } from "./script.ts";

/** Who answers. */
export interface Identity {
  readonly id: string;
  readonly model: string;
  /** Unix time in seconds. */
  readonly created: number;
}

/** Token counts in the form that usage members have. */
function usage(
  request: ParsedRequest,
  generation: Generation,
  completionTokens: number,
  details: boolean,
): object {
  return {
    prompt_tokens: request.ids.length,
    total_tokens: request.ids.length + completionTokens,
    completion_tokens: completionTokens,
    ...(details ? { prompt_tokens_details: { cached_tokens: generation.cachedTokens } } : {}),
  };
}

function finishReason(generation: Generation, calls: number): string {
  const { finishReason } = generation.sampled;
  return calls > 0 && finishReason === "stop" ? "tool_calls" : finishReason;
}

function logprobs(request: ParsedRequest, tokens: readonly SampledToken[]): object | null {
  if (!request.logprobs) return null;
  const names = tokens.map((token) => `token_id:${token.id}`);
  return request.way === "chat"
    ? { content: names.map((token) => ({ token, logprob: 0, bytes: null, top_logprobs: [] })) }
    : {
        tokens: names,
        token_logprobs: names.map(() => 0),
        top_logprobs: null,
        text_offset: names.map(() => 0),
      };
}

/** The members that one delta of a chat has. */
function chatDelta(delta: Delta | null, ids: number): object {
  const calls = delta?.toolCalls?.map((call) => ({
    index: call.index,
    ...(call.name === undefined ? {} : { id: `call_${ids}_${call.index}`, type: "function" }),
    function: {
      ...(call.name === undefined ? {} : { name: call.name }),
      ...(call.arguments === undefined ? {} : { arguments: call.arguments }),
    },
  }));
  return {
    ...(delta?.reasoning === undefined ? {} : { reasoning: delta.reasoning }),
    ...(delta?.content === undefined ? {} : { content: delta.content }),
    ...(calls === undefined ? {} : { tool_calls: calls }),
  };
}

/** The events of a stream, in order, less `[DONE]`; `after` tells which sampled token each one waits for. */
export function* streamEvents(
  who: Identity,
  request: ParsedRequest,
  generation: Generation,
): Generator<{ readonly token: number; readonly event: object }> {
  const { tokens } = generation.sampled;
  const every = (count: number): object =>
    request.usage === "every" ? { usage: usage(request, generation, count, false) } : {};
  const envelope =
    request.way === "generate"
      ? { request_id: who.id }
      : {
          id: who.id,
          object: request.way === "chat" ? "chat.completion.chunk" : "text_completion",
          created: who.created,
          model: who.model,
        };
  const echo = (first: boolean): object =>
    request.returnTokenIds && first && request.way !== "generate" && !request.byHandle
      ? { prompt_token_ids: [...request.ids] }
      : {};

  const parsers = Array.from(
    { length: request.choices },
    () =>
      new OutputParser({ tools: request.way === "chat" && request.tools, reasoning: request.way === "chat" }),
  );
  if (request.way === "chat") {
    for (let index = 0; index < request.choices; index++) {
      const choices = [
        { index, delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null },
      ];
      yield { token: 0, event: { ...envelope, choices, ...echo(index === 0), ...every(0) } };
    }
  }
  for (const [position, token] of tokens.entries()) {
    const last = position === tokens.length - 1;
    for (const [index, parser] of parsers.entries()) {
      const ids = request.returnTokenIds || request.way === "generate" ? { token_ids: [token.id] } : {};
      const delta = request.way === "chat" ? parser.push(token.text, last) : null;
      // A token that shows nothing yet has no event of its own, unless its id is asked for.
      if (request.way === "chat" && delta === null && !last && !request.returnTokenIds && !request.logprobs)
        continue;
      const end = {
        finish_reason: last ? finishReason(generation, parser.calls) : null,
        ...(last ? { stop_reason: null } : {}),
      };
      const content =
        request.way === "chat"
          ? { delta: chatDelta(delta, position) }
          : request.way === "completions" || request.outputMode === "text"
            ? { text: token.text }
            : {};
      const choice = { index, ...content, logprobs: logprobs(request, [token]), ...end, ...ids };
      const first = request.way === "completions" && position === 0 && index === 0;
      yield {
        token: position,
        event: { ...envelope, choices: [choice], ...echo(first), ...every(position + 1) },
      };
    }
  }
  if (request.usage !== "none") {
    const total = usage(request, generation, tokens.length * request.choices, true);
    yield { token: tokens.length, event: { ...envelope, choices: [], usage: total } };
  }
}

/** The answer in one piece. */
export function wholeAnswer(who: Identity, request: ParsedRequest, generation: Generation): object {
  const { tokens } = generation.sampled;
  const text = tokens.map((token) => token.text).join("");
  const choices = Array.from({ length: request.choices }, (_, index) => {
    const parser = new OutputParser({
      tools: request.way === "chat" && request.tools,
      reasoning: request.way === "chat",
    });
    const delta = parser.push(text, true);
    const content =
      request.way === "chat"
        ? { message: { role: "assistant", content: null, ...chatDelta(mergedCalls(delta), index) } }
        : request.way === "completions" || request.outputMode === "text"
          ? { text }
          : {};
    const ids =
      request.returnTokenIds || request.way === "generate"
        ? { token_ids: tokens.map((token) => token.id) }
        : {};
    const reason =
      request.way === "chat" ? finishReason(generation, parser.calls) : generation.sampled.finishReason;
    return {
      index,
      ...content,
      logprobs: logprobs(request, tokens),
      finish_reason: reason,
      stop_reason: null,
      ...ids,
    };
  });
  return {
    ...(request.way === "generate"
      ? { request_id: who.id }
      : {
          id: who.id,
          object: request.way === "chat" ? "chat.completion" : "text_completion",
          created: who.created,
          model: who.model,
        }),
    choices,
    usage: usage(request, generation, tokens.length * request.choices, true),
    ...(request.returnTokenIds && request.way !== "generate" && !request.byHandle
      ? { prompt_token_ids: [...request.ids] }
      : {}),
  };
}

/** In an answer of one piece each call is whole. */
function mergedCalls(delta: Delta | null): Delta | null {
  if (delta?.toolCalls === undefined) return delta;
  const calls = new Map<number, { index: number; name: string; arguments: string }>();
  for (const call of delta.toolCalls) {
    const merged = calls.get(call.index) ?? { index: call.index, name: "", arguments: "" };
    merged.name += call.name ?? "";
    merged.arguments += call.arguments ?? "";
    calls.set(call.index, merged);
  }
  return { ...delta, toolCalls: [...calls.values()] };
}
