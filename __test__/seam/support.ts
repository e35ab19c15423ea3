/** What the tests of the Seam share: short messages, a fixed time, and the full render to compare with. */

import { expect } from "vitest";
import type {
  ChatMessage,
  Checkpoint,
  Commit,
  Entry,
  ListOptions,
  MaybePromise,
  MemoryStore,
  Model,
  Prompt,
  Seam,
  Store,
  Turn,
  TurnAnswer,
} from "../../ts/index.ts";
import type { TestModel } from "../../ts/testing/index.ts";

/** Noon, so that no time zone makes another date of it. */
export const NOW = new Date(2026, 2, 14, 12);
export const NEXT_DAY = new Date(2026, 2, 15, 12);

/** Nothing is hidden by the shadow check. */
export const BARE = { shadow: { first: 0, share: 0 } } as const;

export interface Request {
  readonly messages: readonly ChatMessage[];
  readonly [member: string]: ChatMessage[string] | readonly ChatMessage[];
}

export function user(content: ChatMessage["content"]): ChatMessage {
  return { role: "user", content: content ?? null };
}

export function assistant(content: string, more: Partial<ChatMessage> = {}): ChatMessage {
  return { role: "assistant", content, ...more };
}

/** An assistant's call of a tool; nine characters of id, as Mistral's template insists on. */
export function called(id: string, more: Partial<ChatMessage> = {}): ChatMessage {
  const call = { id, type: "function", function: { name: "read", arguments: '{"path": "a"}' } };
  return assistant("", { tool_calls: [call], ...more });
}

export function result(id: string, content = "42"): ChatMessage {
  return { role: "tool", tool_call_id: id, content };
}

export function tool(name: string, description = `Does ${name}.`) {
  const parameters = { type: "object", properties: { path: { type: "string" } } };
  return { type: "function", function: { name, description, parameters } };
}

/** The prompt of a turn that is not left to the server. */
export function promptOf(turn: Turn): Prompt {
  if (turn.prompt === null) throw new Error(`no prompt: ${JSON.stringify(turn.outcome)}`);
  return turn.prompt;
}

/** The ids of `request` as the whole of it renders. */
export async function fullRender(model: Model, request: Request, now = NOW): Promise<number[]> {
  const prompt = await model.render(request, { now });
  return [...prompt.tokenIds()];
}

/** Fails unless the turn has the ids that the whole request renders to. */
export async function expectFullRender(model: Model, turn: Turn, request: Request, now = NOW): Promise<void> {
  expect([...promptOf(turn).tokenIds()], JSON.stringify(turn.outcome)).toEqual(
    await fullRender(model, request, now),
  );
}

/** Prepares a turn, checks its ids, and commits `answer`. */
export async function take(
  seam: Seam,
  model: Model,
  request: Request,
  answer: ChatMessage | TurnAnswer,
  options: Parameters<Seam["prepare"]>[1] = {},
): Promise<Turn> {
  const turn = await seam.prepare(request, { now: NOW, ...options });
  await expectFullRender(model, turn, request, options.now);
  await turn.commit("message" in answer ? (answer as TurnAnswer) : { message: answer });
  return turn;
}

/** The model as the test server's, which renders at the same time as the tests do. */
export function testModel(model: Model): TestModel {
  return {
    render: (request) => model.render(request as unknown as Request, { now: NOW }),
    encode: (text, options) => model.encode(text, options),
    decode: (ids) => model.decode(ids),
  };
}

/** A store whose calls can be made to behave otherwise. */
export class OddStore implements Store {
  readonly holdsArtifacts = true;
  readonly inner: MemoryStore;
  /** In place of the store's own answers, where there is one. */
  odd: {
    load?: (tenant: string, conversation: string) => MaybePromise<Checkpoint | undefined>;
    find?: (tenant: string, digests: readonly string[]) => MaybePromise<Entry | undefined>;
    commit?: () => never | Promise<never>;
  } = {};

  constructor(inner: MemoryStore) {
    this.inner = inner;
  }

  load(tenant: string, conversation: string) {
    const { load } = this.odd;
    return load === undefined ? this.inner.load(tenant, conversation) : load(tenant, conversation);
  }

  find(tenant: string, digests: readonly string[]) {
    return this.odd.find === undefined ? this.inner.find(tenant, digests) : this.odd.find(tenant, digests);
  }

  commit(commit: Commit) {
    return this.odd.commit?.() ?? this.inner.commit(commit);
  }

  abandon(tenant: string, conversation: string) {
    return this.inner.abandon(tenant, conversation);
  }

  list(tenant: string, options?: ListOptions) {
    return this.inner.list(tenant, options);
  }

  move(tenant: string, conversation: string, project: string) {
    return this.inner.move(tenant, conversation, project);
  }

  delete(tenant: string, conversation: string) {
    return this.inner.delete(tenant, conversation);
  }

  deleteTenant(tenant: string) {
    return this.inner.deleteTenant(tenant);
  }

  expire() {
    return this.inner.expire();
  }

  salt(tenant: string, domain: string) {
    return this.inner.salt(tenant, domain);
  }

  stats() {
    return this.inner.stats();
  }

  close() {
    this.inner.close();
  }
}
