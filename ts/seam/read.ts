/** A request as it was given to a Seam, read natively as far as needed, and made into a request to send. */

import { PromptseamError } from "../errors.ts";
import { requestBytes } from "../model.ts";
import {
  asBuffer,
  cancellable,
  type NativePlan,
  type NativeSeam,
  type NativeTurn,
  native,
  take,
} from "../native.ts";
import type { JsonObject } from "../vllm/json.ts";
import type { ChatMessage, ChatRequest, Spelled } from "../vllm/requests.ts";
import type { AppendRequest } from "./seam.ts";

/** Prompts of fewer tokens are sent with their real messages: a stand-in's might be as long. */
const STAND_IN_FROM = 2_048;
/** Bodies up to here are read at once, in less time than a thread takes to be woken. */
const INLINE_BYTES = 16 * 1024;

/** A request that was read. */
export class Read {
  /** Messages to append, and the members beside them; null for a whole request. */
  readonly append: { readonly messages: Buffer; readonly members: Buffer | null } | null;
  readonly #request: AppendRequest | ChatRequest | null;
  #native: NativeTurn | null;

  private constructor(
    handle: NativeTurn | null,
    append: Read["append"],
    request: AppendRequest | ChatRequest | null,
  ) {
    this.#native = handle;
    this.append = append;
    this.#request = request;
  }

  /** @throws PromptseamError `PS_INVALID_JSON`, `PS_INVALID_REQUEST`, `PS_INVALID_UNICODE`, `PS_ABORTED` */
  static of(
    request: AppendRequest | ChatRequest | Uint8Array,
    seam: NativeSeam,
    signal: AbortSignal | undefined,
  ): Read | Promise<Read> {
    if (isAppend(request)) return Read.#ofAppend(request);
    const whole = request instanceof Uint8Array ? null : request;
    const body = request instanceof Uint8Array ? asBuffer(request) : requestBytes(request);
    if (body.length <= INLINE_BYTES) return new Read(take(native.NativeTurn.request(body)), null, whole);
    return cancellable(signal, () => seam.read(body)).then((handle) => new Read(handle, null, whole));
  }

  static #ofAppend(request: AppendRequest): Read {
    const { append, ...members } = request;
    if (append.length === 0)
      throw new PromptseamError("PS_INVALID_REQUEST", "An append needs at least one message.");
    if (members.messages !== undefined)
      throw new PromptseamError(
        "PS_INVALID_REQUEST",
        "Give messages to append, or the full history: not both.",
      );
    let named = false;
    for (const _ in members) {
      named = true;
      break;
    }
    const bytes = { messages: requestBytes(append), members: named ? requestBytes(members) : null };
    return new Read(null, bytes, request);
  }

  /** The turn; messages to append are read only now, unless they were planned at once. */
  get native(): NativeTurn {
    if (this.#native === null) {
      const { messages, members } = this.append as NonNullable<Read["append"]>;
      this.#native = take(native.NativeTurn.append(messages, members));
    }
    return this.#native;
  }

  /** The histories that may be known, the longest first: how many messages each has, and its digest in hexadecimal. */
  candidates(): { counts: Uint32Array; digests: readonly string[] } {
    const counts = this.native.candidateCounts();
    const all = this.native.candidateDigests();
    return { counts, digests: Array.from(counts, (_, at) => all.slice(64 * at, 64 * at + 64)) };
  }

  /**
   * The request to send. What was given as JSON stays as it was spelled, but for `others`.
   *
   * @param asSent the messages of the client rather than those that the prompt was made of: reasoning may have been restored
   * @param salt for a request that brings none; empty for none
   */
  outgoing(plan: NativePlan, asSent: boolean, salt: string): { request: ChatRequest; spelled?: Spelled } {
    if (this.#request !== null && this.append === null) {
      const given = this.#request as ChatRequest;
      const own = given["cache_salt"];
      const request =
        salt === "" || (own !== undefined && own !== null) ? given : { ...given, cache_salt: salt };
      return { request: asSent ? request : { ...request, messages: messagesOf(plan) } };
    }
    const others = plan.othersJson();
    // Only what decides how to send is looked at: nothing of what can be long, or spelled so that it must not be parsed.
    const request = { ...(JSON.parse(others) as JsonObject), messages: [] };
    const messages =
      asSent && this.append === null ? () => plan.sentMessagesJson() : () => take(plan.messagesJson());
    const isLong = (plan.info().promptLength ?? 0) >= STAND_IN_FROM;
    return { request, spelled: { members: [plan.membersJson(), others], messages, isLong } };
  }
}

function messagesOf(plan: NativePlan): readonly ChatMessage[] {
  return JSON.parse(take(plan.messagesJson()));
}

function isAppend(request: AppendRequest | ChatRequest | Uint8Array): request is AppendRequest {
  return !(request instanceof Uint8Array) && Array.isArray((request as AppendRequest | null)?.append);
}
