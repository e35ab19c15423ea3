/** Calls that generate nothing: one exchange, read whole. */

import { PromptseamError } from "../errors.ts";
import { publish } from "../events.ts";
import { nextRequestId } from "./answer.ts";
import { Guard } from "./guard.ts";
import type { JsonValue } from "./json.ts";
import { type CallOptions, callHeaders, overrideOptions, type ResolvedOptions } from "./options.ts";
import { redact } from "./redact.ts";
import type { Transport } from "./transport.ts";

/** What these calls need of their client. @internal */
export interface ControlContext {
  readonly transport: Transport;
  readonly options: ResolvedOptions;
  readonly apiKey: string | null;
  /** Where a call's guard is kept while it runs, for the client's close. */
  readonly guards: Set<Guard>;
  /** Throws when the client was closed. */
  readonly checkOpen: () => void;
  /** Told of every failure. */
  readonly onError: (error: unknown) => void;
}

/** A call: GET without a body, else POST. */
export interface ControlRequest {
  readonly path: string;
  readonly body?: string | Uint8Array;
  /** Tokens in the body. */
  readonly promptTokens?: number;
  /** What an error must not quote. */
  readonly content?: () => JsonValue | undefined;
}

/** Sends a call and reads its answer. @throws PromptseamError as the client's methods say */
export async function callServer(
  context: ControlContext,
  request: ControlRequest,
  options: CallOptions,
): Promise<Uint8Array> {
  context.checkOpen();
  const settings = overrideOptions(context.options, options);
  const { path, body = null } = request;
  const method = body === null ? "GET" : "POST";
  const id = nextRequestId();
  const startedAt = performance.now();
  const promptTokens = request.promptTokens ?? null;
  publish("requestStart", () => ({
    id,
    way: "control",
    method,
    path,
    promptTokens,
    stream: false,
  }));
  const guard = new Guard(options.signal);
  context.guards.add(guard);
  guard.setDeadline("answer", settings.timeouts.controlMs);
  try {
    const exchange = await context.transport.send(
      { method, path, body, headers: callHeaders(options) },
      guard,
    );
    try {
      if (exchange.status !== 200) {
        throw await exchange.toError((said) => redact(said, context.apiKey, request.content?.()));
      }
      const answer = await exchange.readAll(settings.maxAnswerBytes);
      publish("requestEnd", () => ({
        id,
        elapsedMs: performance.now() - startedAt,
        firstTokenMs: null,
        attempts: 1,
        cancelled: false,
        bodyBytes: body === null ? 0 : Buffer.byteLength(body),
        idsIgnored: false,
        promptTokens,
        cachedTokens: null,
        completionTokens: null,
      }));
      return answer;
    } finally {
      exchange.close();
    }
  } catch (error) {
    publish("requestError", () => ({
      id,
      elapsedMs: performance.now() - startedAt,
      attempts: 1,
      code: PromptseamError.isInstance(error) ? error.code : "PS_INTERNAL",
      status: PromptseamError.isInstance(error) ? (error.details.status ?? null) : null,
    }));
    context.onError(error);
    throw error;
  } finally {
    context.guards.delete(guard);
    guard.dispose();
  }
}
