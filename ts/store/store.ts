/** What a store of conversations does. Any implementation can be given to a Seam. */

import type { NativeArtifact } from "../native.ts";

/** A value, or a promise of it: a store in memory answers at once. */
export type MaybePromise<T> = T | Promise<T>;

/**
 * The immutable record of one conversation state: the prompt that was sent, the messages it was made of, and the answer.
 * It shares messages and ids with the state it went on from.
 */
export class Artifact {
  /** BLAKE3 over its parent's id and all it adds to it, in hexadecimal. */
  readonly id: string;
  /** Digest of the history that was sent, without the answer, in hexadecimal. */
  readonly digest: string;
  /** About how many bytes it adds to those it shares. */
  readonly bytes: number;
  /** Messages in its history. */
  readonly messages: number;
  readonly #native: NativeArtifact;

  /** @internal */
  constructor(native: NativeArtifact) {
    this.#native = native;
    const { id, digest, bytes, messages } = native.info();
    this.id = id;
    this.digest = digest;
    this.bytes = bytes;
    this.messages = messages;
  }

  /** The answer's message, as the client was given it. */
  answer(): unknown {
    return JSON.parse(this.#native.answer());
  }

  /** @internal */
  static handle(artifact: Artifact): NativeArtifact {
    return artifact.#native;
  }
}

/** An artifact with the time until which it may be used. */
export interface Entry {
  readonly artifact: Artifact;
  /** Milliseconds of Unix time; `Infinity` for no end. */
  readonly expires: number;
}

/** Where a conversation stands. */
export interface Checkpoint {
  /** Counts the moves of this conversation, from 1 on. */
  readonly version: number;
  /** The open tool round, expired or not, else the head; undefined where the store no longer has it. */
  readonly tip: Entry | undefined;
}

/** A turn to be recorded. */
export interface Commit {
  readonly tenant: string;
  /** Undefined for a turn of no conversation: it is found by its history only. */
  readonly conversation: string | undefined;
  readonly entry: Entry;
  /** Id of the artifact it went on from. */
  readonly parent: string | undefined;
  /** The conversation's version when the turn was planned; 0 where there was none. */
  readonly version: number;
  /** Whether the answer is a tool call: the head stays, and the round is what is appended to next. */
  readonly toolRound: boolean;
  /** The same for every attempt to record one turn, so that it is recorded once. */
  readonly turn: string;
}

/** What became of a {@link Commit}: `branched` where another turn moved the conversation first. */
export type CommitStatus = "committed" | "branched";

/** Counts since the store was opened, and what it holds now. */
export interface StoreStats {
  readonly conversations: number;
  readonly artifacts: number;
  readonly bytes: number;
  /** Lookups that found what they asked for. */
  readonly hits: number;
  readonly misses: number;
  /** Artifacts removed to stay within bounds, or because they expired. */
  readonly evictions: number;
}

/**
 * Records of conversations, by tenant. No call ever sees another tenant's records. Failures may be anything; a turn goes on
 * without the store then.
 */
export interface Store {
  /** Where a conversation stands; undefined for one that is not known. */
  load(tenant: string, conversation: string): MaybePromise<Checkpoint | undefined>;
  /** The newest artifact of the first of `digests` that has one. The digests are of histories, the longest first. */
  find(tenant: string, digests: readonly string[]): MaybePromise<Entry | undefined>;
  /** Records a turn, and moves its conversation if that still has the version it had. */
  commit(commit: Commit): MaybePromise<CommitStatus>;
  /** Forgets a conversation and every artifact that only it needs. Tells whether it was known. */
  delete(tenant: string, conversation: string): MaybePromise<boolean>;
  stats(): MaybePromise<StoreStats>;
}
