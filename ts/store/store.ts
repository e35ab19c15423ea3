/** What a store of conversations does. Any implementation can be given to a Seam. */

import { type NativeArtifact, type NativeArtifactInfo, take } from "../native.ts";

/** A value, or a promise of it: a store in memory answers at once. */
export type MaybePromise<T> = T | Promise<T>;

/**
 * The immutable record of one conversation state: the prompt that was sent, the messages it was made of, and the answer.
 * It shares messages and ids with the state it went on from.
 */
export class Artifact {
  readonly #native: NativeArtifact;
  #info: NativeArtifactInfo | undefined;

  /** @internal */
  constructor(native: NativeArtifact) {
    this.#native = native;
  }

  /** BLAKE3 over its parent's id and all it adds to it, in hexadecimal. */
  get id(): string {
    return this.#read().id;
  }

  /** Id of the artifact it went on from; undefined for one that began a conversation. */
  get parent(): string | undefined {
    return this.#read().parent;
  }

  /** Digest of the history that was sent, without the answer, in hexadecimal. */
  get digest(): string {
    return this.#read().digest;
  }

  /** About how many bytes it adds to those it shares. */
  get bytes(): number {
    return this.#read().bytes;
  }

  /** About how many bytes it holds, those it shares included. */
  get allBytes(): number {
    return this.#read().allBytes;
  }

  /** Messages in its history. */
  get messages(): number {
    return this.#read().messages;
  }

  /** Ids of its prompt; null where the server rendered. */
  get tokens(): number | null {
    return this.#read().tokens ?? null;
  }

  /** The answer's message, as the client was given it. */
  answer(): unknown {
    return JSON.parse(this.#native.answer());
  }

  /** What it adds to its parent, as bytes to be kept: compressed, and bound to {@link id}. Made on another thread. */
  async record(): Promise<Uint8Array> {
    return take(await this.#native.record());
  }

  /** Read late: a record that was made by then has its id. */
  #read(): NativeArtifactInfo {
    this.#info ??= take(this.#native.info());
    return this.#info;
  }

  /** @internal */
  static handle(artifact: Artifact): NativeArtifact {
    return artifact.#native;
  }
}

/** What a store has of a conversation state. */
export interface Entry {
  /** Id of the artifact. */
  readonly id: string;
  /** Until when it may be used, in milliseconds of Unix time; `Infinity` for no end. */
  readonly expires: number;
  /**
   * The artifact, from a store in this process. Else its {@link Artifact.record | record} and those it grew from, the oldest
   * first, one right after another; without the ones up to `known`, where the caller named one of them.
   */
  readonly content: Artifact | Uint8Array;
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
  /** Where a conversation that this turn begins belongs; those that are known stay where they are. */
  readonly project?: string | undefined;
  readonly artifact: Artifact;
  /** Until when it may be used, in milliseconds of Unix time; `Infinity` for no end. */
  readonly expires: number;
  /** The conversation's version when the turn was planned; 0 where there was none. */
  readonly version: number;
  /** Whether the answer is a tool call: the head stays, and the round is what is appended to next. */
  readonly toolRound: boolean;
  /** The same for every attempt to record one turn, so that it is recorded once. */
  readonly turn: string;
}

/**
 * What became of a {@link Commit}:
 * - `committed`: recorded, and the conversation moved.
 * - `branched`: recorded, but another turn had moved the conversation first.
 */
export type CommitStatus = "committed" | "branched";

/** A conversation in a list. */
export interface ConversationInfo {
  readonly conversation: string;
  readonly project: string;
  readonly version: number;
  /** Messages of its tip's history; null where the store no longer has it. */
  readonly messages: number | null;
  /** Ids of its tip's prompt; null where the server rendered it, or the store no longer has it. */
  readonly tokens: number | null;
  /** Whether a tool round is open. */
  readonly toolRound: boolean;
  /** When it moved last, in milliseconds of Unix time. */
  readonly updated: number;
}

/** Which conversations to list. */
export interface ListOptions {
  /** Only those of this project. */
  readonly project?: string;
  /** Only those behind this one, in the order of their ids. */
  readonly after?: string;
  /** At most so many, up to 1,000. Default 100. */
  readonly limit?: number;
}

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
  /** Records that were damaged, or of another version, and so not used. */
  readonly refused: number;
}

/**
 * Records of conversations, by tenant. No call ever sees another tenant's records. Failures may be anything; a turn goes on
 * without the store then.
 *
 * Artifacts that went on from one another are one family. It leaves as a whole, so that no artifact is ever without its parent:
 * once all of it has expired, to stay within the store's bounds, or with the last conversation that went through it.
 */
export interface Store {
  /** Whether it gives artifacts rather than records: then a Seam need not keep those it used last itself. */
  readonly holdsArtifacts: boolean;
  /**
   * Where a conversation stands; undefined for one that is not known.
   *
   * @param known id of an artifact that the caller has: records up to it need not be read
   */
  load(tenant: string, conversation: string, known?: string): MaybePromise<Checkpoint | undefined>;
  /**
   * The newest artifact of the first of `digests` that has one, at most 1,000 of them. The digests are of histories, the
   * longest first.
   */
  find(tenant: string, digests: readonly string[], known?: string): MaybePromise<Entry | undefined>;
  /**
   * Records a turn, and moves its conversation if that still has the version it had. All of it or nothing, and once: a
   * repeated call gives what the first one gave.
   */
  commit(commit: Commit): MaybePromise<CommitStatus>;
  /** Closes the open tool round of a conversation without an answer: its head is its tip again. Tells whether there was one. */
  abandon(tenant: string, conversation: string): MaybePromise<boolean>;
  /** Conversations in the order of their ids. */
  list(tenant: string, options?: ListOptions): MaybePromise<readonly ConversationInfo[]>;
  /** Moves a conversation to another project of its tenant. Tells whether it was known. */
  move(tenant: string, conversation: string, project: string): MaybePromise<boolean>;
  /** Forgets a conversation and every artifact that only it needs. Tells whether it was known. */
  delete(tenant: string, conversation: string): MaybePromise<boolean>;
  /** Forgets a tenant and all that is its own, salts included. Tells how many artifacts that were. */
  deleteTenant(tenant: string): MaybePromise<number>;
  /**
   * Removes what has expired, and what is over the store's bounds. Tells how many artifacts that were. A conversation that has
   * lost all of its own is remembered for a while, so that a turn can say so (`artifact_miss`).
   */
  expire(): MaybePromise<number>;
  /**
   * The secret that keeps a tenant's prefixes in an engine's cache apart from everybody else's. Made at random when it is first
   * asked for, and the same from then on.
   *
   * @param domain the engines that share a cache
   */
  salt(tenant: string, domain: string): MaybePromise<string>;
  stats(): MaybePromise<StoreStats>;
  /** Lets go of files and connections of its own. What is under way is finished. */
  close(): MaybePromise<void>;
}
