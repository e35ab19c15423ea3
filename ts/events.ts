/**
 * All diagnostics channels of promptseam. Messages carry counts, codes and times, never text, ids or secrets.
 *
 * Subscribe with `diagnostics_channel.subscribe(CHANNELS.requestStart, listener)`; without a subscriber nothing is built.
 */

import { type Channel, channel } from "node:diagnostics_channel";

/** The names of the channels. */
export const CHANNELS = {
  /** A request to the server begins: {@link RequestStartEvent}. */
  requestStart: "promptseam:request:start",
  /** The first event of its answer arrived: {@link RequestFirstTokenEvent}. */
  requestFirstToken: "promptseam:request:first-token",
  /** The answer ended, or its reader stopped early: {@link RequestEndEvent}. */
  requestEnd: "promptseam:request:end",
  /** The request failed: {@link RequestErrorEvent}. */
  requestError: "promptseam:request:error",
  /** The server did not have what a request named; all ids are sent instead: {@link HandleMissEvent}. */
  handleMiss: "promptseam:handle:miss",
  /** A turn was planned: {@link TurnPlannedEvent}. */
  turnPlanned: "promptseam:turn:planned",
  /** A turn was recorded: {@link TurnCommittedEvent}. */
  turnCommitted: "promptseam:turn:committed",
  /** In `observe` mode, a plan was compared with the server's rendering: {@link TurnObservedEvent}. */
  turnObserved: "promptseam:turn:observed",
  /** A certified prompt was not the full render; its class is not certified any more: {@link ShadowMismatchEvent}. */
  shadowMismatch: "promptseam:shadow:mismatch",
  /** The store failed or was too slow: {@link StoreTroubleEvent}. */
  storeTrouble: "promptseam:store:trouble",
} as const;

/** Which way in was used. `control` stands for everything that generates nothing. */
export type RequestWay = "chat" | "chat_ids" | "handle" | "completions" | "generate" | "control";

/** Payload of `promptseam:request:start`. */
export interface RequestStartEvent {
  /** Joins the events of one request; unique in the process. */
  readonly id: number;
  readonly way: RequestWay;
  readonly method: "GET" | "POST";
  /** Path on the server, without query. */
  readonly path: string;
  /** Token ids of the prompt, in the body or named there; null where the server renders. */
  readonly promptTokens: number | null;
  readonly stream: boolean;
}

/** Payload of `promptseam:request:first-token`. */
export interface RequestFirstTokenEvent {
  readonly id: number;
  /** Milliseconds from the start of the request, retries included. */
  readonly elapsedMs: number;
  /** 1 for the first attempt. */
  readonly attempt: number;
}

/** Payload of `promptseam:request:end`. */
export interface RequestEndEvent {
  readonly id: number;
  readonly elapsedMs: number;
  readonly firstTokenMs: number | null;
  readonly attempts: number;
  /** Whether the reader stopped before the answer's end. */
  readonly cancelled: boolean;
  /** Length of the request's body; the latest one's where several were sent. */
  readonly bodyBytes: number;
  /** The server did not take the ids; the request was sent again as messages. */
  readonly idsIgnored: boolean;
  /** Requests before the one that was answered whose handle the server did not have. */
  readonly handleMisses: number;
  readonly promptTokens: number | null;
  readonly cachedTokens: number | null;
  readonly completionTokens: number | null;
}

/** Payload of `promptseam:request:error`. */
export interface RequestErrorEvent {
  readonly id: number;
  readonly elapsedMs: number;
  readonly attempts: number;
  /** Code of the PromptseamError. */
  readonly code: string;
  /** HTTP status, if the server answered. */
  readonly status: number | null;
}

/** Payload of `promptseam:handle:miss`. */
export interface HandleMissEvent {
  /** That of the request's other events. */
  readonly id: number;
  readonly promptTokens: number | null;
  /** Whether the request named a handle; a server that misses where none was named is not to be relied on. */
  readonly named: boolean;
}

/** Payload of `promptseam:turn:planned`. */
export interface TurnPlannedEvent {
  /** `certified_suffix`, or rung and reason as `aligned_render/template_rewrote_history`. */
  readonly outcome: string;
  /** Null where the server is to render. */
  readonly promptTokens: number | null;
  /** Tokens of it that were taken over from an earlier prompt. */
  readonly prefixTokens: number;
  readonly drift: "unknown" | "none" | "drifted" | "rewritten";
  /** Milliseconds from the call of `prepare`. */
  readonly elapsedMs: number;
}

/** Payload of `promptseam:turn:committed`. */
export interface TurnCommittedEvent {
  readonly status: "committed" | "branched" | "not_durable";
  /** Milliseconds from the start of `stream`, or of `commit`. */
  readonly elapsedMs: number;
}

/** Payload of `promptseam:turn:observed`. */
export interface TurnObservedEvent {
  readonly outcome: string;
  readonly equal: boolean;
}

/** Payload of `promptseam:shadow:mismatch`. */
export interface ShadowMismatchEvent {
  readonly promptTokens: number | null;
  readonly prefixTokens: number;
}

/** Payload of `promptseam:store:trouble`. */
export interface StoreTroubleEvent {
  readonly operation: "load" | "find" | "commit" | "salt";
  readonly elapsedMs: number;
  readonly timedOut: boolean;
  /** Code of the PromptseamError, if it was one: `PS_RECORD_REFUSED` for records that cannot be used. */
  readonly code: string | null;
}

/** The payload that goes with each channel. */
export interface ChannelPayloads {
  readonly requestStart: RequestStartEvent;
  readonly requestFirstToken: RequestFirstTokenEvent;
  readonly requestEnd: RequestEndEvent;
  readonly requestError: RequestErrorEvent;
  readonly handleMiss: HandleMissEvent;
  readonly turnPlanned: TurnPlannedEvent;
  readonly turnCommitted: TurnCommittedEvent;
  readonly turnObserved: TurnObservedEvent;
  readonly shadowMismatch: ShadowMismatchEvent;
  readonly storeTrouble: StoreTroubleEvent;
}

const channels: { readonly [K in keyof ChannelPayloads]: Channel } = {
  requestStart: channel(CHANNELS.requestStart),
  requestFirstToken: channel(CHANNELS.requestFirstToken),
  requestEnd: channel(CHANNELS.requestEnd),
  requestError: channel(CHANNELS.requestError),
  handleMiss: channel(CHANNELS.handleMiss),
  turnPlanned: channel(CHANNELS.turnPlanned),
  turnCommitted: channel(CHANNELS.turnCommitted),
  turnObserved: channel(CHANNELS.turnObserved),
  shadowMismatch: channel(CHANNELS.shadowMismatch),
  storeTrouble: channel(CHANNELS.storeTrouble),
};

/** Publishes on a channel; `payload` is called only when somebody listens. */
export function publish<K extends keyof ChannelPayloads>(name: K, payload: () => ChannelPayloads[K]): void {
  const target = channels[name];
  if (target.hasSubscribers) target.publish(payload());
}
