/** The store in memory: bounded in bytes, the least recently used conversations leave first. */

import { randomBytes } from "node:crypto";
import { PromptseamError } from "../errors.ts";
import { checkDigests, checkIds, listLimit } from "./limits.ts";
import type {
  Artifact,
  Checkpoint,
  Commit,
  CommitStatus,
  ConversationInfo,
  Entry,
  ListOptions,
  Store,
  StoreStats,
} from "./store.ts";

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
  readonly members: Set<Member>;
  readonly conversations: Set<string>;
  bytes: number;
}

interface Member {
  readonly family: Family;
  readonly artifact: Artifact;
  /** The newest turn that recorded it, what became of that, and until when it may be used. */
  turn: string;
  status: CommitStatus;
  expires: number;
}

interface Conversation {
  readonly id: string;
  project: string;
  version: number;
  head: string | undefined;
  round: string | undefined;
  updated: number;
  /** All that it ever went through: an edited history starts a new one. */
  readonly families: Set<Family>;
}

interface Tenant {
  readonly name: string;
  /** From the least to the most recently used. */
  readonly conversations: Map<string, Conversation>;
  /** Artifacts of each history, the newest last. */
  readonly histories: Map<string, Member[]>;
  readonly members: Map<string, Member>;
  /** By domain. Never evicted: another salt would cost the whole of an engine's cache. */
  readonly salts: Map<string, string>;
}

/**
 * A store in this process's memory.
 *
 * A conversation whose artifacts were removed is remembered, at some 400 bytes each, so that a turn can say why it could not go
 * on (`artifact_miss`); the oldest of these leave too once they alone exceed the bound.
 */
export class MemoryStore implements Store {
  readonly holdsArtifacts = true;
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
  #closed = false;

  /** @throws PromptseamError `PS_INVALID_ARGUMENT` */
  constructor(options: MemoryStoreOptions = {}) {
    const maxBytes = options.maxBytes ?? 256 * 1024 * 1024;
    if (!Number.isSafeInteger(maxBytes) || maxBytes < 1)
      throw new PromptseamError("PS_INVALID_ARGUMENT", "maxBytes must be a count of bytes.");
    this.#maxBytes = maxBytes;
  }

  load(tenant: string, conversation: string): Checkpoint | undefined {
    this.#check(tenant, conversation);
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
    const tip = tipOf(known, record);
    if (tip === undefined) this.#misses++;
    return { version: record.version, tip: tip && this.#hit(tip) };
  }

  find(tenant: string, digests: readonly string[]): Entry | undefined {
    this.#check(tenant);
    checkDigests(digests);
    const histories = this.#tenants.get(tenant)?.histories;
    for (const digest of digests) {
      const member = histories?.get(digest)?.at(-1);
      if (member !== undefined) return this.#hit(member);
    }
    this.#misses++;
    return undefined;
  }

  commit(commit: Commit): CommitStatus {
    const { conversation, version, artifact, turn } = commit;
    this.#check(commit.tenant, conversation, commit.project, turn);
    const tenant = this.#tenant(commit.tenant);
    const known = tenant.members.get(artifact.id);
    if (known?.turn === turn) return known.status;
    const record = conversation === undefined ? undefined : tenant.conversations.get(conversation);
    const moves = conversation === undefined || (record?.version ?? 0) === version;
    const status = moves ? "committed" : "branched";
    const family = this.#add(tenant, commit, status);
    if (record !== undefined) join(family, record);
    if (moves && conversation !== undefined)
      this.#advance(record ?? this.#begin(tenant, family, conversation, commit.project), commit);
    this.#evict();
    return status;
  }

  abandon(tenant: string, conversation: string): boolean {
    this.#check(tenant, conversation);
    const record = this.#tenants.get(tenant)?.conversations.get(conversation);
    if (record?.round === undefined) return false;
    record.round = undefined;
    // Turns that were planned on the round come second.
    record.version++;
    return true;
  }

  list(tenant: string, options: ListOptions = {}): readonly ConversationInfo[] {
    const { project, after } = options;
    this.#check(tenant, project, after);
    const limit = listLimit(options.limit);
    const known = this.#tenants.get(tenant);
    if (known === undefined) return [];
    return [...known.conversations.values()]
      .filter((record) => project === undefined || record.project === project)
      .filter(({ id }) => after === undefined || inOrder(after, id) < 0)
      .sort((a, b) => inOrder(a.id, b.id))
      .slice(0, limit)
      .map((record) => {
        const tip = tipOf(known, record)?.artifact;
        return {
          conversation: record.id,
          project: record.project,
          version: record.version,
          messages: tip?.messages ?? null,
          tokens: tip?.tokens ?? null,
          toolRound: record.round !== undefined,
          updated: record.updated,
        };
      });
  }

  move(tenant: string, conversation: string, project: string): boolean {
    this.#check(tenant, conversation, project);
    const record = this.#tenants.get(tenant)?.conversations.get(conversation);
    if (record === undefined) return false;
    record.project = project;
    return true;
  }

  delete(tenant: string, conversation: string): boolean {
    this.#check(tenant, conversation);
    const known = this.#tenants.get(tenant);
    const record = known?.conversations.get(conversation);
    if (known === undefined || record === undefined) return false;
    this.#forget(known, record);
    for (const family of record.families) if (family.conversations.size === 0) this.#drop(family);
    this.#dropEmpty(known);
    return true;
  }

  deleteTenant(tenant: string): number {
    this.#check(tenant);
    const known = this.#tenants.get(tenant);
    if (known === undefined) return 0;
    const removed = known.members.size;
    for (const record of known.conversations.values()) this.#forget(known, record);
    for (const { family } of known.members.values()) this.#drop(family);
    this.#tenants.delete(tenant);
    return removed;
  }

  expire(): number {
    this.#check();
    const before = this.#evictions;
    for (const family of this.#families) if (isOver(family)) this.#remove(family);
    this.#evict();
    return this.#evictions - before;
  }

  salt(tenant: string, domain: string): string {
    this.#check(tenant, domain);
    const { salts } = this.#tenant(tenant);
    const salt = salts.get(domain) ?? randomBytes(32).toString("base64url");
    salts.set(domain, salt);
    return salt;
  }

  stats(): StoreStats {
    this.#check();
    return {
      conversations: this.#conversations,
      artifacts: this.#artifacts,
      bytes: this.#bytes,
      hits: this.#hits,
      misses: this.#misses,
      evictions: this.#evictions,
      refused: 0,
    };
  }

  /** Lets go of everything. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#tenants.clear();
    this.#families.clear();
  }

  #check(...ids: readonly (string | undefined)[]): void {
    if (this.#closed) throw new PromptseamError("PS_CLOSED", "The store was closed.");
    checkIds(...ids);
  }

  #tenant(name: string): Tenant {
    let tenant = this.#tenants.get(name);
    if (tenant === undefined) {
      tenant = {
        name,
        conversations: new Map(),
        histories: new Map(),
        members: new Map(),
        salts: new Map(),
      };
      this.#tenants.set(name, tenant);
    }
    return tenant;
  }

  #hit({ family, artifact, expires }: Member): Entry {
    this.#hits++;
    this.#touch(family);
    return { id: artifact.id, expires, content: artifact };
  }

  #touch(family: Family): void {
    this.#families.delete(family);
    this.#families.add(family);
  }

  /** The family that the artifact is in from now on. */
  #add(tenant: Tenant, { artifact, turn, expires }: Commit, status: CommitStatus): Family {
    const known = tenant.members.get(artifact.id);
    if (known !== undefined) {
      Object.assign(known, { turn, status, expires });
      this.#touch(known.family);
      return known.family;
    }
    const parent = artifact.parent === undefined ? undefined : tenant.members.get(artifact.parent);
    const family = parent?.family ?? { tenant, members: new Set(), conversations: new Set(), bytes: 0 };
    const member = { family, artifact, turn, status, expires };
    const bytes = artifact.bytes + OVERHEAD;
    family.members.add(member);
    family.bytes += bytes;
    this.#bytes += bytes;
    this.#artifacts++;
    tenant.members.set(artifact.id, member);
    const others = tenant.histories.get(artifact.digest);
    if (others === undefined) tenant.histories.set(artifact.digest, [member]);
    else others.push(member);
    this.#touch(family);
    return family;
  }

  #begin(tenant: Tenant, family: Family, id: string, project = ""): Conversation {
    const record = {
      id,
      project,
      version: 0,
      head: undefined,
      round: undefined,
      updated: 0,
      families: new Set<Family>(),
    };
    tenant.conversations.set(id, record);
    this.#conversations++;
    this.#bytes += CONVERSATION_OVERHEAD;
    join(family, record);
    return record;
  }

  #advance(record: Conversation, { artifact, toolRound }: Commit): void {
    record.version++;
    record.updated = Math.max(record.updated, Date.now());
    record.round = toolRound ? artifact.id : undefined;
    if (!toolRound) record.head = artifact.id;
  }

  #evict(): void {
    for (const family of this.#families) {
      if (this.#bytes <= this.#maxBytes && !isOver(family)) break;
      this.#remove(family);
    }
    if (this.#bytes <= this.#maxBytes) return;
    for (const tenant of this.#tenants.values()) {
      for (const record of tenant.conversations.values()) {
        if (this.#bytes <= this.#maxBytes) return;
        this.#forget(tenant, record);
      }
      this.#dropEmpty(tenant);
    }
  }

  #remove(family: Family): void {
    this.#evictions += family.members.size;
    this.#drop(family);
    this.#dropEmpty(family.tenant);
  }

  #drop(family: Family): void {
    const { tenant, members, conversations, bytes } = family;
    for (const member of members) {
      const { id, digest } = member.artifact;
      tenant.members.delete(id);
      const others = tenant.histories.get(digest)?.filter((other) => other !== member) ?? [];
      if (others.length === 0) tenant.histories.delete(digest);
      else tenant.histories.set(digest, others);
    }
    for (const conversation of conversations) {
      tenant.conversations.get(conversation)?.families.delete(family);
    }
    this.#artifacts -= members.size;
    this.#bytes -= bytes;
    this.#families.delete(family);
  }

  #forget(tenant: Tenant, { id, families }: Conversation): void {
    for (const family of families) family.conversations.delete(id);
    tenant.conversations.delete(id);
    this.#conversations--;
    this.#bytes -= CONVERSATION_OVERHEAD;
  }

  #dropEmpty({ name, members, conversations, salts }: Tenant): void {
    if (members.size === 0 && conversations.size === 0 && salts.size === 0) this.#tenants.delete(name);
  }
}

/** A family goes with the last conversation that went through it. */
function join(family: Family, { id, families }: Conversation): void {
  family.conversations.add(id);
  families.add(family);
}

function tipOf({ members }: Tenant, { round, head }: Conversation): Member | undefined {
  const id = round ?? head;
  return id === undefined ? undefined : members.get(id);
}

/** Whether nothing of a family may be used any longer. */
function isOver(family: Family): boolean {
  const now = Date.now();
  for (const { expires } of family.members) if (expires > now) return false;
  return true;
}

/** By code points, as databases order text that is written as UTF-8. */
function inOrder(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
