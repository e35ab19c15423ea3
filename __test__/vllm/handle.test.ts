/** Chats by prompt handle: what is sent, what is kept, and what follows from every reference that does not hold. */

import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { CHANNELS, Prompt, type PromptHandle, PromptseamError, VllmClient } from "../../ts/index.ts";
import { type RecordedRequest, startTestServer, type TestServer } from "../../ts/testing/index.ts";
import type { ChatRequest, HandleOptions } from "../../ts/vllm/index.ts";

const CHAT = "/inference/v1/prompt-handles/chat";
const messages = [{ role: "user", content: "a long history ".repeat(1_000) }];
const ids = Uint32Array.from({ length: 5_000 }, (_, i) => i % 200);
const tools = [{ type: "function", function: { name: "read", parameters: { type: "object" } } }];

let server: TestServer;
let client: VllmClient;

beforeEach(async () => {
  server = await startTestServer({ promptHandles: true, handleTtlMs: 60_000, answers: { text: "Yes." } });
  client = new VllmClient({ baseUrl: server.baseUrl });
});
afterEach(async () => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  await client.close();
  await server.close();
});

function generated(): RecordedRequest[] {
  return server.requests.filter(({ path }) => path === CHAT || path === "/v1/chat/completions");
}

async function send(prompt: Prompt, handle: HandleOptions = {}, request: Partial<ChatRequest> = {}) {
  const { facts } = await client
    .chat({ messages, tools, ...request }, { prompt, handle, sampledIds: "auto" })
    .collect();
  return facts;
}

/** What an answer kept; fails where it kept nothing. */
function kept(facts: { handle: PromptHandle | null }): PromptHandle {
  if (facts.handle === null) throw new Error("nothing was kept");
  return facts.handle;
}

/** A first turn that is kept, and the prompt of a second one. */
async function begun(handle: HandleOptions = {}, request: Partial<ChatRequest> = {}) {
  const from = kept(await send(Prompt.fromIds(ids), handle, request));
  return { from, next: from.prompt.continued([1, 2, 3]) };
}

test("a first turn sends all ids and is kept with what was sampled; the next sends only what is new", async () => {
  const { from, next } = await begun();
  const [first] = generated();
  expect(first?.body).toMatchObject({ prompt_cache_ref: null, append_token_ids: [...ids], tools });
  expect(JSON.stringify(first?.body?.["messages"]).length).toBeLessThan(100);
  expect(from.prompt.tokenIds()).toEqual(Uint32Array.from([...ids, ...Buffer.from("Yes."), 257]));
  expect(from.tokenCount).toBe(from.prompt.length);
  expect(from.tokenHash).toBe(from.prompt.hash());

  const facts = await send(next, { from });
  const second = generated()[1];
  expect(second?.body).toMatchObject({ append_token_ids: [1, 2, 3] });
  expect(second?.bodyBytes).toBeLessThan(1_000);
  expect(second?.ids).toEqual(next.tokenIds());
  expect(facts).toMatchObject({ way: "handle", handleMisses: 0, attempts: 1, promptTokens: next.length });
});

test("a prompt that leaves the kept one earlier names no more than they have in common", async () => {
  const { from } = await begun();
  const next = from.prompt.continued([9, 9], 4_000);
  await send(next, { from });
  expect(generated()[1]?.body).toMatchObject({
    prompt_cache_ref: { id: from.id, token_count: 4_000, token_hash: next.hash(4_000) },
    append_token_ids: [9, 9],
  });
  // The same prompt again, as for another sample: at least one id is appended.
  await send(Prompt.fromIds(ids), { from });
  expect(generated()[2]?.body).toMatchObject({ prompt_cache_ref: { token_count: 4_999 } });
  expect(generated()[2]?.ids).toEqual(ids);
  // Nothing in common: the reference says nothing.
  const other = Prompt.fromIds([199, 1]);
  await send(other, { from });
  expect(generated()[3]?.body).toMatchObject({ prompt_cache_ref: null, append_token_ids: [199, 1] });
});

test("not streamed, and without sampled ids: what is kept is known as far as the prompt", async () => {
  const { facts } = await client
    .chat({ messages }, { prompt: Prompt.fromIds(ids), handle: {}, stream: false, sampledIds: "auto" })
    .collect();
  expect(kept(facts).prompt.length).toBe(ids.length + 5);
  const bare = await client.chat({ messages }, { prompt: Prompt.fromIds(ids), handle: {} }).collect();
  expect(kept(bare.facts).tokenCount).toBe(ids.length + 5);
  expect(kept(bare.facts).prompt.length).toBe(ids.length);
  const again = await send(Prompt.fromIds([...ids, 7]), { from: kept(bare.facts) });
  expect(again).toMatchObject({ way: "handle", handleMisses: 0 });
});

test("sampled ids come without an echo of the prompt, and without log probabilities", async () => {
  const facts = await send(Prompt.fromIds(ids));
  expect(generated()[0]?.body).toMatchObject({ return_token_ids: true });
  expect(generated()[0]?.body?.["logprobs"]).toBeUndefined();
  expect(facts.promptTokenIds).toBeNull();
  expect([...(facts.sampledIds() ?? [])]).toEqual([...Buffer.from("Yes."), 257]);
});

test("a request that was spelled by its client keeps its members, and can bring none of ours", async () => {
  const spelled = {
    members: [
      '{"temperature": 1.50, "append_token_ids": [5], "prompt_cache_ref": {"id": "x"}, "kv_transfer_params": {"prompt_token_ids": [6], "a": 1}}',
    ],
    messages: () => JSON.stringify(messages),
    isLong: true,
  };
  const request = {
    messages: [],
    append_token_ids: [5],
    prompt_cache_ref: { id: "x" },
    kv_transfer_params: { prompt_token_ids: [6], a: 1 },
  };
  for (const with_ of [{ spelled }, {}]) {
    await client
      .chat(
        { ...request, messages: "spelled" in with_ ? [] : messages },
        { prompt: Prompt.fromIds(ids), handle: {}, ...with_ },
      )
      .collect();
    const last = generated().at(-1);
    expect(last?.path).toBe(CHAT);
    expect(last?.ids).toEqual(ids);
    expect(last?.body).toMatchObject({ prompt_cache_ref: null, kv_transfer_params: { a: 1 } });
    expect(last?.body?.["kv_transfer_params"]).not.toHaveProperty("prompt_token_ids");
  }
});

describe("a reference that does not hold is noticed before anything runs, and all ids are sent once", () => {
  test.each<[string, (from: PromptHandle) => PromptHandle | Promise<PromptHandle>]>([
    // The ids that the client takes for kept are not those that are.
    ["wrong hash", (from) => ({ ...from, prompt: from.prompt.continued([1, 2, 3, 4], 100) })],
    ["wrong count", (from) => ({ ...from, prompt: from.prompt.continued([1, 2, 3]) })],
    ["unknown", (from) => ({ ...from, id: "A".repeat(32) })],
    [
      "expired",
      (from) => {
        vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 60_001 });
        return from;
      },
    ],
    [
      "dropped",
      async (from) => {
        const body = JSON.stringify({ prompt_cache_ref: { id: from.id } });
        const at = `${server.baseUrl}/inference/v1/prompt-handles/drop`;
        const answer = await fetch(at, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body,
        });
        expect(await answer.json()).toEqual({ dropped: true });
        return from;
      },
    ],
    [
      "lost in a restart",
      async (from) => {
        await server.stop();
        await server.start();
        // The client learns of the closed connection.
        await sleep(20);
        return from;
      },
    ],
  ])("%s", async (_, disturb) => {
    const { from } = await begun();
    const named = await disturb(from);
    const next = named.prompt.continued([1, 2, 3, 4, 5]);
    const before = generated().length;
    const misses: unknown[] = [];
    const listener = (event: unknown) => misses.push(event);
    subscribe(CHANNELS.handleMiss, listener);
    const facts = await send(next, { from: named });
    unsubscribe(CHANNELS.handleMiss, listener);
    expect(misses).toMatchObject([{ promptTokens: next.length, named: true }]);
    expect(facts).toMatchObject({ way: "handle", handleMisses: 1, attempts: 2, idsIgnored: false });
    const [first, second, ...others] = generated().slice(before);
    expect(others).toEqual([]);
    expect(first?.ids).toBeNull();
    expect(second?.body).toMatchObject({ prompt_cache_ref: null });
    expect(second?.ids).toEqual(next.tokenIds());
    // It is kept anew.
    const after = await send(next.continued([8]), { from: kept(facts) });
    expect(after).toMatchObject({ way: "handle", handleMisses: 0, attempts: 1 });
  });

  test.each<[string, HandleOptions, Partial<ChatRequest>]>([
    ["another tenant", { tenant: "b" }, { cache_salt: "s" }],
    ["no tenant", {}, { cache_salt: "s" }],
    ["another salt", { tenant: "a" }, { cache_salt: "t" }],
    ["no salt", { tenant: "a" }, {}],
  ])("%s", async (_, handle, request) => {
    const { from, next } = await begun({ tenant: "a" }, { cache_salt: "s" });
    const facts = await send(next, { ...handle, from }, request);
    expect(facts).toMatchObject({ way: "handle", handleMisses: 1, attempts: 2, promptTokens: next.length });
    // Its owner still has it.
    const owners = await send(next, { tenant: "a", from }, { cache_salt: "s" });
    expect(owners).toMatchObject({ handleMisses: 0 });
  });

  test("another model", async () => {
    const { from, next } = await begun();
    const error = await send(next, { from }, { model: "other" }).then(
      () => null,
      (reason: unknown) => reason,
    );
    // Missed, then refused by handle and by chat ids: the server does not have that model.
    expect(PromptseamError.isInstance(error) && error.details.status).toBe(404);
    expect(
      generated()
        .slice(1)
        .map(({ path }) => path),
    ).toEqual([CHAT, CHAT, "/v1/chat/completions"]);
    expect(
      generated()
        .slice(1)
        .every(({ ids }) => ids === null),
    ).toBe(true);
    // That says nothing about the handles.
    expect(await send(next, { from })).toMatchObject({ way: "handle", handleMisses: 0 });
  });
});

test("after the first event nothing is a miss any more, whatever the server says", async () => {
  let requests = 0;
  const events = [
    { id: "x", choices: [{ index: 0, delta: { content: "Y" } }], usage: { prompt_tokens: ids.length } },
    { error: { message: "No prompt is kept.", type: "PromptHandleMiss", param: null, code: 404 } },
  ];
  const odd = createServer((request, response) => {
    if (request.method === "POST") requests++;
    response.writeHead(request.method === "POST" ? 200 : 404, { "content-type": "text/event-stream" });
    response.end(events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join(""));
  });
  await new Promise<void>((resolve) => odd.listen(0, "127.0.0.1", resolve));
  const baseUrl = `http://127.0.0.1:${(odd.address() as AddressInfo).port}`;
  await using theirs = new VllmClient({ baseUrl, retries: 3 });
  const answer = theirs.chat({ messages }, { prompt: Prompt.fromIds(ids), handle: {} });
  const texts: string[] = [];
  const reading = (async () => {
    for await (const chunk of answer) if (chunk.type === "text") texts.push(chunk.text);
  })();
  await expect(reading).rejects.toMatchObject({ code: "PS_SERVER" });
  expect(texts).toEqual(["Y"]);
  expect(answer.facts).toMatchObject({ attempts: 1, handleMisses: 0 });
  expect(requests).toBe(1);
  odd.close();
});

test("missed twice: the ids go beside the messages", async () => {
  const { from, next } = await begun();
  server.fail({ kind: "handle_miss" }, { times: 2 });
  const facts = await send(next, { from });
  expect(facts).toMatchObject({ way: "chat_ids", handleMisses: 2, attempts: 3, handle: null });
  expect(generated().at(-1)?.ids).toEqual(next.tokenIds());
});

test.each<[string, () => void]>([
  [
    "the plugin vanishes",
    () => {
      server.handles.loaded = false;
    },
  ],
  [
    "a proxy forbids the route",
    () => server.fail({ kind: "status", status: 403 }, { path: CHAT, times: Number.POSITIVE_INFINITY }),
  ],
])("%s: the ids go beside the messages, and the server is not asked again", async (_, disturb) => {
  expect(await client.promptHandles()).toMatchObject({ models: ["test"] });
  const { from, next } = await begun();
  disturb();
  const facts = await send(next, { from });
  expect(facts).toMatchObject({ way: "chat_ids", handleMisses: 0, attempts: 2 });
  expect(generated().at(-1)?.ids).toEqual(next.tokenIds());
  const before = server.requests.length;
  expect(await client.promptHandles()).toBeNull();
  expect(server.requests.length).toBe(before);
});

test("what only chat ids take goes that way: a refusal of the route is no refusal of the request", async () => {
  const facts = await send(Prompt.fromIds(ids), {}, { use_beam_search: true });
  expect(facts).toMatchObject({ way: "chat_ids", attempts: 2, handleMisses: 0 });
  expect(await client.promptHandles()).not.toBeNull();
});

test("a server that counts another prompt is aborted, and the messages are sent", async () => {
  server.fail({ kind: "ids_ignored" });
  const facts = await send(Prompt.fromIds(ids));
  expect(facts).toMatchObject({ way: "chat", idsIgnored: true, attempts: 2, handle: null });
  expect(generated()[1]?.body?.["messages"]).toEqual(messages);
});

test("a connection that breaks before the first event is tried again by the same handle", async () => {
  const { from, next } = await begun();
  server.fail({ kind: "reset", when: "before_headers" });
  const { facts } = await client
    .chat({ messages }, { prompt: next, handle: { from }, retries: 1, sampledIds: "auto" })
    .collect();
  expect(facts).toMatchObject({ way: "handle", handleMisses: 0, attempts: 2 });
  expect(generated().at(-1)?.body).toMatchObject({ append_token_ids: [1, 2, 3] });
});

test("left in mid-stream: nothing is kept of it, and the next goes on from what there was", async () => {
  const { from, next } = await begun();
  server.answer({ text: "a long answer", tokenDelayMs: 5 });
  const answer = client.chat({ messages }, { prompt: next, handle: { from }, sampledIds: "auto" });
  for await (const chunk of answer) if (chunk.type === "text") break;
  expect(answer.facts).toMatchObject({ way: "handle", handle: null });
  await vi.waitFor(() => expect(generated().at(-1)?.aborted).toBe(true));
  expect(server.handles.size).toBe(1);
  expect(await send(next, { from })).toMatchObject({ way: "handle", handleMisses: 0 });
});

test("two at once from one handle: each has its own prompt, and a handle of its own", async () => {
  const { from } = await begun();
  const prompts = [1, 2].map((id) => from.prompt.continued([id]));
  const both = await Promise.all(prompts.map((prompt) => send(prompt, { from })));
  expect(both.map(({ handleMisses }) => handleMisses)).toEqual([0, 0]);
  expect(new Set(both.map((facts) => kept(facts).id)).size).toBe(2);
  const seen = generated()
    .slice(1)
    .map(({ ids }) => ids?.at(-1));
  expect(seen.sort()).toEqual([1, 2]);
});

test("a tenant's name never leaves: the server is told a digest, whatever the name is", async () => {
  const names = ["acme", "acme\r\nx-evil: 1", "ÄÖ 日本", "a".repeat(5_000), "acme "];
  const keys = new Set<unknown>();
  for (const tenant of names) {
    await client
      .chat(
        { messages },
        {
          prompt: Prompt.fromIds(ids),
          handle: { tenant },
          // Not even a header of the call's own can say who it is.
          headers: { "X-Promptseam-Tenant": "acme" },
        },
      )
      .collect();
    const { headers } = generated().at(-1) as RecordedRequest;
    expect(headers["x-promptseam-tenant"]).toMatch(/^[0-9a-f]{64}$/);
    expect(headers["x-evil"]).toBeUndefined();
    keys.add(headers["x-promptseam-tenant"]);
  }
  expect(keys.size).toBe(names.length);
});

describe("the handshake", () => {
  test("a server without the plugin is asked once", async () => {
    server.handles.loaded = false;
    expect(await client.promptHandles()).toBeNull();
    expect(await client.promptHandles()).toBeNull();
    expect(server.requests.map(({ method, path }) => `${method} ${path}`)).toEqual([
      "GET /inference/v1/prompt-handles",
    ]);
  });

  test.each<[string, Parameters<TestServer["fail"]>[0]]>([
    ["forbidden by a proxy", { kind: "status", status: 403 }],
    ["a proxy's page", { kind: "html" }],
    ["another protocol", { kind: "status", status: 200, body: '{"promptseam": 2}' }],
  ])("%s: no handles", async (_, fault) => {
    server.fail(fault, { path: "/inference/v1/prompt-handles" });
    expect(await client.promptHandles()).toBeNull();
  });

  test("a failure is not an answer, and not remembered", async () => {
    server.fail({ kind: "status", status: 503 }, { path: "/inference/v1/prompt-handles" });
    await expect(client.promptHandles()).rejects.toMatchObject({ details: { status: 503 } });
    expect(await client.promptHandles()).not.toBeNull();
  });

  test("a plugin that came with a restart is found, a minute after it was not there", async () => {
    server.handles.loaded = false;
    expect(await client.promptHandles()).toBeNull();
    await server.stop();
    server.handles.loaded = true;
    await server.start();
    await sleep(20);
    expect(await client.promptHandles()).toBeNull();
    const later = performance.now() + 61_000;
    vi.spyOn(performance, "now").mockReturnValue(later);
    expect(await client.promptHandles()).not.toBeNull();
  });

  test("is part of the capabilities, with a prompt that it must keep", async () => {
    const { transports } = await client.capabilities();
    expect(transports.handle).toEqual({ proved: true });
    await server.stop();
    await server.start();
    await sleep(20);
    server.fail({ kind: "handle_miss" }, { path: CHAT });
    const again = await client.capabilities();
    expect(again.transports.handle).toMatchObject({ proved: false, because: /did not take/ });
  });
});
