/** Turns by prompt handle: every prompt stays the full render, whatever becomes of what the server keeps. */

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import {
  type ChatMessage,
  type Chunk,
  MemoryStore,
  type Model,
  type PrepareOptions,
  Seam,
  type SeamOptions,
  type Turn,
  VllmClient,
} from "../../ts/index.ts";
import { type RecordedRequest, startTestServer, type TestServer } from "../../ts/testing/index.ts";
import { assistant, fullRender, NOW, promptOf, type Request, testModel, tool, user } from "./support.ts";
import { tinyModel } from "./tiny-model.ts";

const CHAT = "/inference/v1/prompt-handles/chat";
const CHAT_IDS = "/v1/chat/completions";
const conversation = "c";
const system: ChatMessage = { role: "system", content: "Be brief. ".repeat(600) };
const first: Request = { messages: [system, user("One?")], tools: [tool("read")] };

let model: Model;
let server: TestServer;
let client: VllmClient;
let seam: Seam;

beforeAll(async () => {
  model = await tinyModel();
});
afterAll(() => model.close());
beforeEach(async () => {
  server = await startTestServer({
    model: testModel(model),
    modelName: "test",
    promptHandles: true,
    handleTtlMs: 60_000,
    answers: { text: "One." },
  });
  client = new VllmClient({ baseUrl: server.baseUrl });
  seam = bySeam();
});
afterEach(async () => {
  vi.useRealTimers();
  await client.close();
  await server.close();
});

function bySeam(options: Partial<SeamOptions> = {}): Seam {
  return new Seam({ model, client, transport: "handle", ...options });
}

function generated(): RecordedRequest[] {
  return server.requests.filter(({ path }) => path === CHAT || path === CHAT_IDS);
}

/** The request after `request`, whose answer was "One.". */
function next(request: Request, content = "And two?"): Request {
  return { ...request, messages: [...request.messages, assistant("One."), user(content)] };
}

async function read(turn: Turn): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for await (const chunk of turn.stream()) chunks.push(chunk);
  return chunks;
}

/** Plays a turn; the engine must have seen the full render, and the answer must be right. */
async function play(request: Request, options: PrepareOptions = {}, on = seam): Promise<Turn> {
  const turn = await on.prepare(request, { now: NOW, conversation, ...options });
  const chunks = await read(turn);
  expect(chunks.flatMap((chunk) => (chunk.type === "text" ? chunk.text : [])).join("")).toBe("One.");
  expect([...promptOf(turn).tokenIds()]).toEqual(await fullRender(model, request));
  expect(generated().at(-1)?.ids).toEqual(promptOf(turn).tokenIds());
  return turn;
}

/** How many ids the last request carried. */
function carried(): number {
  const ids = generated().at(-1)?.body?.["append_token_ids"];
  return Array.isArray(ids) ? ids.length : Number.NaN;
}

test("from the second turn on a request carries only what is new, whatever the client gives", async () => {
  const begun = await play(first);
  expect(begun.facts).toMatchObject({ way: "handle", attempts: 1 });
  expect(carried()).toBe(promptOf(begun).length);

  const appended = await seam.prepare({ append: [user("And two?")] }, { now: NOW, conversation });
  await read(appended);
  expect([...promptOf(appended).tokenIds()]).toEqual(await fullRender(model, next(first)));
  expect(generated().at(-1)?.ids).toEqual(promptOf(appended).tokenIds());
  expect(carried()).toBeLessThan(60);

  // A stateless client: found by its history alone.
  const whole = Buffer.from(JSON.stringify(next(next(first), "Three?")));
  const found = await seam.prepare(whole, { now: NOW });
  await read(found);
  expect(found.outcome).toEqual({ kind: "certified_suffix" });
  expect(generated().at(-1)?.ids).toEqual(promptOf(found).tokenIds());
  expect(carried()).toBeLessThan(60);
  expect(generated().at(-1)?.body?.["tools"]).toEqual(first["tools"]);
  expect(seam.stats()).toMatchObject({ byHandle: 3, handleMisses: 0, committed: 3 });
});

test("an edited history names as much of what is kept as still holds", async () => {
  await play(first);
  await play(next(first));
  const edited = { ...first, messages: [...first.messages, assistant("Two."), user("Why?")] };
  const turn = await play(edited);
  expect(turn.facts).toMatchObject({ way: "handle", handleMisses: 0 });
  const cached = generated().at(-1)?.body?.["prompt_cache_ref"] as { token_count: number };
  expect(cached.token_count).toBeGreaterThan(6_000);
  expect(cached.token_count + carried()).toBe(promptOf(turn).length);
});

test("handle_miss: the rung stays, all ids are sent once more, and the next turn names what was kept then", async () => {
  await play(first);
  server.handles.clear();
  const turn = await play(next(first));
  expect(turn.outcome).toEqual({ kind: "certified_suffix" });
  expect(turn.facts).toMatchObject({ way: "handle", handleMisses: 1, attempts: 2, idsIgnored: false });
  expect(await turn.committed).toEqual({ status: "committed" });
  expect(seam.stats()).toMatchObject({ byHandle: 2, handleMisses: 1 });
  const after = await play(next(next(first)));
  expect(after.facts).toMatchObject({ handleMisses: 0, attempts: 1 });
  expect(carried()).toBeLessThan(60);
});

test("expired, and a server that was restarted between two turns: one more request each", async () => {
  await play(first);
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 60_001 });
  expect((await play(next(first))).facts).toMatchObject({ handleMisses: 1, attempts: 2 });
  vi.useRealTimers();
  await server.stop();
  await server.start();
  await sleep(20);
  expect((await play(next(next(first)))).facts).toMatchObject({ handleMisses: 1, attempts: 2 });
  expect((await play(next(next(next(first))))).facts).toMatchObject({ handleMisses: 0, attempts: 1 });
});

test("missed twice: the ids go beside the messages", async () => {
  await play(first);
  server.fail({ kind: "handle_miss" }, { times: 2 });
  expect((await play(next(first))).facts).toMatchObject({ way: "chat_ids", handleMisses: 2, attempts: 3 });
  expect((await play(next(next(first)))).facts).toMatchObject({ way: "handle", handleMisses: 0 });
});

test("a Seam that was restarted sends all ids once, and no error", async () => {
  const store = new MemoryStore();
  await play(first, {}, bySeam({ store }));
  const again = bySeam({ store });
  const turn = await play(next(first), {}, again);
  expect(turn.outcome).toEqual({ kind: "certified_suffix" });
  expect(turn.facts).toMatchObject({ way: "handle", handleMisses: 0, attempts: 1 });
  expect(carried()).toBe(promptOf(turn).length);
  await play(next(next(first)), {}, again);
  expect(carried()).toBeLessThan(60);
});

test("the plugin vanishes: chat ids, at once from then on", async () => {
  await play(first);
  server.handles.loaded = false;
  expect((await play(next(first))).facts).toMatchObject({ way: "chat_ids", attempts: 2, handleMisses: 0 });
  expect((await play(next(next(first)))).facts).toMatchObject({ way: "chat_ids", attempts: 1 });
});

test("a conversation that is continued twice at once: both are right, and both can go on", async () => {
  await play(first);
  server.answer({ text: "One.", tokenDelayMs: 5 });
  const requests = [next(first, "Two?"), next(first, "Three?")];
  const turns = await Promise.all(
    requests.map((request) => seam.prepare(request, { now: NOW, conversation })),
  );
  await Promise.all(turns.map(read));
  const seen = generated()
    .slice(1)
    .map(({ ids }) => ids);
  for (const turn of turns) {
    expect(turn.facts).toMatchObject({ way: "handle", handleMisses: 0 });
    expect(seen).toContainEqual(promptOf(turn).tokenIds());
  }
  const statuses = await Promise.all(turns.map(({ committed }) => committed));
  expect(statuses.map(({ status }) => status).sort()).toEqual(["branched", "committed"]);
  for (const request of requests) {
    expect((await play(next(request))).facts).toMatchObject({ way: "handle", handleMisses: 0 });
    expect(carried()).toBeLessThan(60);
  }
});

test("cancelled in mid-stream: nothing is kept, and the next turn goes on from what was kept before", async () => {
  await play(first);
  server.answer({ text: "A long answer.", tokenDelayMs: 5 });
  const left = await seam.prepare(next(first), { now: NOW, conversation });
  for await (const chunk of left.stream()) if (chunk.type === "text") break;
  await expect(left.committed).rejects.toMatchObject({ code: "PS_ABORTED" });
  await vi.waitFor(() => expect(generated().at(-1)?.aborted).toBe(true));
  expect(server.handles.size).toBe(1);
  server.answer({ text: "One." });
  expect((await play(next(first))).facts).toMatchObject({ way: "handle", handleMisses: 0 });
  expect(carried()).toBeLessThan(60);
});

describe("what one owner is kept, no other names", () => {
  test.each<[string, PrepareOptions, Record<string, string>]>([
    ["tenant", { tenant: "b" }, {}],
    ["adapter", { tenant: "a", lora: "adapter" }, {}],
    ["salt", { tenant: "a" }, { cache_salt: "own" }],
    ["model", { tenant: "a" }, { model: "test" }],
  ])("another %s", async (_, options, members) => {
    await play(first, { tenant: "a" });
    const turn = await play({ ...next(first), ...members }, options);
    expect(turn.facts).toMatchObject({ way: "handle", handleMisses: 0, attempts: 1 });
    expect(generated().at(-1)?.body?.["prompt_cache_ref"]).toBeNull();
    expect(carried()).toBe(promptOf(turn).length);
    // Where it was is untouched.
    const owners = await play(next(first), { tenant: "a", conversation: "again" });
    expect(owners.facts).toMatchObject({ handleMisses: 0 });
  });

  test("tenants have keys of their own, and no request holds a name", async () => {
    const names = ["acme", "acme\r\nx-evil: 1"];
    for (const tenant of names) await play(first, { tenant, conversation: tenant });
    const keys = generated().map(({ headers }) => headers["x-promptseam-tenant"]);
    expect(new Set(keys).size).toBe(2);
    expect(JSON.stringify(generated().map(({ headers, body }) => [headers, body]))).not.toContain("acme");
  });
});

describe("the choice of the transport", () => {
  test("auto: by handle from 4,096 tokens on", async () => {
    const auto = bySeam({ transport: "auto" });
    const short = { messages: [user("One?")] };
    expect((await play(short, { conversation: "short" }, auto)).facts).toMatchObject({ way: "chat_ids" });
    // Not even asked for.
    expect(server.requests.filter(({ path }) => path.includes("prompt-handles"))).toEqual([]);
    expect((await play(first, {}, auto)).facts).toMatchObject({ way: "handle" });
  });

  test("auto: a server without the plugin is asked once", async () => {
    server.handles.loaded = false;
    const auto = bySeam({ transport: "auto" });
    expect((await play(first, {}, auto)).facts).toMatchObject({ way: "chat_ids", attempts: 1 });
    expect((await play(next(first), {}, auto)).facts).toMatchObject({ way: "chat_ids", attempts: 1 });
    const asked = server.requests.filter(({ path }) => path === "/inference/v1/prompt-handles");
    expect(asked).toHaveLength(1);
  });

  test("chat_ids: handles are left alone", async () => {
    const turn = await play(first, {}, bySeam({ transport: "chat_ids" }));
    expect(turn.facts).toMatchObject({ way: "chat_ids" });
    expect(server.requests.filter(({ path }) => path.includes("prompt-handles"))).toEqual([]);
  });

  test("a server that cannot be asked is sent chat ids, and asked again by the next turn", async () => {
    server.fail({ kind: "status", status: 500 }, { path: "/inference/v1/prompt-handles" });
    expect((await play(first)).facts).toMatchObject({ way: "chat_ids" });
    expect((await play(next(first))).facts).toMatchObject({ way: "handle" });
  });

  test("a transport that is none", () => {
    expect(() => bySeam({ transport: "smoke" as never })).toThrow(/transport/);
  });
});

describe("handles that keep missing", () => {
  test("are left alone for a minute, then tried again", async () => {
    await play(first);
    let request = first;
    const ways: (string | null | undefined)[] = [];
    for (let at = 0; at < 13; at++) {
      server.handles.clear();
      request = next(request);
      ways.push((await play(request)).facts?.way);
    }
    // Eleven misses are more than half of the twenty that are looked back on.
    expect(ways).toEqual([...Array(11).fill("handle"), "chat_ids", "chat_ids"]);
    expect(seam.stats().handleMisses).toBe(11);
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 61_000 });
    for (let at = 0; at < 3; at++) {
      request = next(request);
      expect((await play(request)).facts).toMatchObject({ way: "handle", handleMisses: 0 });
    }
  });

  test("a miss now and then does not matter", async () => {
    await play(first);
    let request = first;
    for (let at = 0; at < 30; at++) {
      if (at % 3 === 0) server.handles.clear();
      request = next(request);
      expect((await play(request)).facts?.way).toBe("handle");
    }
    expect(seam.stats()).toMatchObject({ byHandle: 31, handleMisses: 10 });
  });

  test("a restart under many conversations is noticed by the second: the others send all ids at once", async () => {
    const names = Array.from({ length: 15 }, (_, at) => `conversation ${at}`);
    const opened = (name: string) => ({ ...first, messages: [system, user(name)] });
    for (const name of names) await play(opened(name), { conversation: name });
    server.handles.clear();
    const attempts: unknown[] = [];
    for (const name of names) {
      const { facts } = await play(next(opened(name)), { conversation: name });
      expect(facts?.way).toBe("handle");
      attempts.push(facts?.attempts);
    }
    expect(attempts).toEqual([2, 2, ...Array(13).fill(1)]);
  });
});
