/** Calls that generate nothing: one exchange, read whole. */

import { PromptseamError } from "../errors.ts";
import { publish } from "../events.ts";
import { type CallHost, nextRequestId } from "./answer.ts";
import { Guard } from "./guard.ts";
import type { JsonValue } from "./json.ts";
import { type CallOptions, callHeaders, overrideOptions, type ResolvedOptions } from "./options.ts";

/** A call: GET without a body, else POST. */
export interface ControlRequest {
  readonly path: string;
  readonly body?: string | Uint8Array;
  /** Tokens in the body. */
  readonly promptTokens?: number;
  /** What an error must not quote. */
  readonly content?: () => JsonValue | undefined;
}

/** Sends a call and reads its answer; `base` are the client's settings. @throws PromptseamError as the client's methods say */
export async function callServer(
  host: CallHost,
  base: ResolvedOptions,
  request: ControlRequest,
  options: CallOptions,
): Promise<Uint8Array> {
  host.checkOpen();
  const settings = overrideOptions(base, options);
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
  host.guards.add(guard);
  guard.setDeadline("answer", settings.timeouts.controlMs);
  try {
    const exchange = await host.transport.send({ method, path, body, headers: callHeaders(options) }, guard);
    try {
      if (exchange.status !== 200) {
        throw await exchange.toError((said) => host.redact(said, request.content?.()));
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
        handleMisses: 0,
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
    host.onError(error);
    throw error;
  } finally {
    host.guards.delete(guard);
    guard.dispose();
  }
}
