/** The store in memory: bounded in bytes, the least recently used conversations leave first. */

import { PromptseamError } from "../errors.ts";
import type { Checkpoint, Commit, CommitStatus, Entry, Store, StoreStats } from "./store.ts";

/** Options of {@link MemoryStore}. */
export interface MemoryStoreOptions {
  /** Bytes of artifacts that are kept. Default 256 MiB. */
  readonly maxBytes?: number;
}

/** Bytes of this store's own for each artifact: map entries, strings and handles, by a heap snapshot. */
const OVERHEAD = 900;
/** Bytes of a conversation's own. */
const CONVERSATION_OVERHEAD = 400;

/**
 * Artifacts that went on from one another, their branches included. They share ids and messages, so that dropping one alone
 * would free little: they leave together.
 */
interface Family {
  readonly tenant: Tenant;
  readonly members: Map<string, Member>;
  readonly conversations: Set<string>;
  bytes: number;
}

interface Member {
  /** Another one where the same turn is recorded again: it may be used for longer. */
  entry: Entry;
  readonly family: Family;
}

interface Conversation {
  version: number;
  head: string | undefined;
  round: string | undefined;
  /** All that it ever went through: an edited history starts a new one. */
  readonly families: Set<Family>;
  lastTurn: string;
}

interface Tenant {
  readonly name: string;
  readonly conversations: Map<string, Conversation>;
  /** Artifacts of each history, the newest last. */
  readonly histories: Map<string, Member[]>;
  readonly members: Map<string, Member>;
}

/**
 * A store in this process's memory.
 *
 * A conversation whose artifacts were removed is remembered, at some 400 bytes each, so that a turn can say why it could not go
 * on (`artifact_miss`); the oldest of these leave too once they alone exceed the bound.
 */
export class MemoryStore implements Store {
  readonly #maxBytes: number;
  readonly #tenants = new Map<string, Tenant>();
  /** From the least to the most recently used. */
  readonly #families = new Set<Family>();
  #bytes = 0;
  #conversations = 0;
  #artifacts = 0;
  #hits = 0;
  #misses = 0;
  #evictions = 0;

  /** @throws PromptseamError `PS_INVALID_ARGUMENT` */
  constructor(options: MemoryStoreOptions = {}) {
    const maxBytes = options.maxBytes ?? 256 * 1024 * 1024;
    if (!Number.isSafeInteger(maxBytes) || maxBytes < 1)
      throw new PromptseamError("PS_INVALID_ARGUMENT", "maxBytes must be a count of bytes.");
    this.#maxBytes = maxBytes;
  }

  load(tenant: string, conversation: string): Checkpoint | undefined {
    const known = this.#tenants.get(tenant);
    const record = known?.conversations.get(conversation);
    if (known === undefined || record === undefined) {
      this.#misses++;
      return undefined;
    }
    // Touched, as its family is.
    known.conversations.delete(conversation);
    known.conversations.set(conversation, record);
    // Not the head where a round is over: what the client appends belongs behind the round.
    const tip = this.#get(known, record.round ?? record.head);
    if (tip === undefined) this.#misses++;
    else this.#hit(tip);
    return { version: record.version, tip: tip?.entry };
  }

  find(tenant: string, digests: readonly string[]): Entry | undefined {
    const known = this.#tenants.get(tenant);
    for (const digest of digests) {
      const member = known?.histories.get(digest)?.at(-1);
      if (member === undefined) continue;
      this.#hit(member);
      return member.entry;
    }
    this.#misses++;
    return undefined;
  }

  commit(commit: Commit): CommitStatus {
    const tenant = this.#tenant(commit.tenant);
    this.#add(tenant, commit);
    const status = this.#move(tenant, commit);
    this.#evict();
    return status;
  }

  delete(tenant: string, conversation: string): boolean {
    const known = this.#tenants.get(tenant);
    const record = known?.conversations.get(conversation);
    if (known === undefined || record === undefined) return false;
    this.#forget(known, conversation, record);
    for (const family of record.families) if (family.conversations.size === 0) this.#drop(family);
    this.#dropEmpty(known);
    return true;
  }

  stats(): StoreStats {
    return {
      conversations: this.#conversations,
      artifacts: this.#artifacts,
      bytes: this.#bytes,
      hits: this.#hits,
      misses: this.#misses,
      evictions: this.#evictions,
    };
  }

  #tenant(name: string): Tenant {
    let tenant = this.#tenants.get(name);
    if (tenant === undefined) {
      tenant = { name, conversations: new Map(), histories: new Map(), members: new Map() };
      this.#tenants.set(name, tenant);
    }
    return tenant;
  }

  #get(tenant: Tenant, id: string | undefined): Member | undefined {
    return id === undefined ? undefined : tenant.members.get(id);
  }

  #hit(member: Member): void {
    this.#hits++;
    this.#touch(member.family);
  }

  #touch(family: Family): void {
    this.#families.delete(family);
    this.#families.add(family);
  }

  #add(tenant: Tenant, { entry, parent }: Commit): void {
    const { id, digest, bytes } = entry.artifact;
    const known = tenant.members.get(id);
    if (known !== undefined) {
      known.entry = entry;
      this.#touch(known.family);
      return;
    }
    const family = this.#get(tenant, parent)?.family ?? {
      tenant,
      members: new Map(),
      conversations: new Set(),
      bytes: 0,
    };
    const member = { entry, family };
    family.members.set(id, member);
    family.bytes += bytes + OVERHEAD;
    this.#bytes += bytes + OVERHEAD;
    this.#artifacts++;
    tenant.members.set(id, member);
    const others = tenant.histories.get(digest);
    if (others === undefined) tenant.histories.set(digest, [member]);
    else others.push(member);
    this.#touch(family);
  }

  #move(tenant: Tenant, commit: Commit): CommitStatus {
    const { conversation, version, toolRound, turn, entry } = commit;
    if (conversation === undefined) return "committed";
    const known = tenant.conversations.get(conversation);
    if (known?.lastTurn === turn) return "committed";
    const family = tenant.members.get(entry.artifact.id)?.family;
    if (known !== undefined && family !== undefined) join(family, conversation, known);
    if ((known?.version ?? 0) !== version) return "branched";
    const record = known ?? {
      version: 0,
      head: undefined,
      round: undefined,
      families: new Set<Family>(),
      lastTurn: turn,
    };
    if (known === undefined) {
      tenant.conversations.set(conversation, record);
      this.#conversations++;
      this.#bytes += CONVERSATION_OVERHEAD;
      if (family !== undefined) join(family, conversation, record);
    }
    record.version++;
    record.lastTurn = turn;
    record.round = toolRound ? entry.artifact.id : undefined;
    if (!toolRound) record.head = entry.artifact.id;
    return "committed";
  }

  #evict(): void {
    for (const family of this.#families) {
      if (this.#bytes <= this.#maxBytes && !isOver(family)) break;
      this.#evictions += family.members.size;
      this.#drop(family);
    }
    if (this.#bytes <= this.#maxBytes) return;
    for (const tenant of this.#tenants.values()) {
      for (const [conversation, record] of tenant.conversations) {
        if (this.#bytes <= this.#maxBytes) return;
        this.#forget(tenant, conversation, record);
      }
      this.#dropEmpty(tenant);
    }
  }

  #drop(family: Family): void {
    const { tenant } = family;
    for (const [id, member] of family.members) {
      tenant.members.delete(id);
      const { digest } = member.entry.artifact;
      const others = tenant.histories.get(digest)?.filter((other) => other !== member) ?? [];
      if (others.length === 0) tenant.histories.delete(digest);
      else tenant.histories.set(digest, others);
    }
    for (const conversation of family.conversations) {
      tenant.conversations.get(conversation)?.families.delete(family);
    }
    this.#artifacts -= family.members.size;
    this.#bytes -= family.bytes;
    this.#families.delete(family);
    this.#dropEmpty(tenant);
  }

  #forget(tenant: Tenant, conversation: string, record: Conversation): void {
    for (const family of record.families) family.conversations.delete(conversation);
    tenant.conversations.delete(conversation);
    this.#conversations--;
    this.#bytes -= CONVERSATION_OVERHEAD;
  }

  #dropEmpty(tenant: Tenant): void {
    if (tenant.members.size === 0 && tenant.conversations.size === 0) this.#tenants.delete(tenant.name);
  }
}

/** A family goes with the last conversation that went through it. */
function join(family: Family, conversation: string, record: Conversation): void {
  family.conversations.add(conversation);
  record.families.add(family);
}

/** Whether nothing of a family may be used any longer. */
function isOver(family: Family): boolean {
  const now = Date.now();
  for (const { entry } of family.members.values()) if (entry.expires > now) return false;
  return true;
}
