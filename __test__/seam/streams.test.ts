/** Turns that are streamed: recorded before the caller sees their end, or not at all. */

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  type Chunk,
  MemoryStore,
  type Model,
  Seam,
  type SeamOptions,
  type Turn,
  VllmClient,
} from "../../ts/index.ts";
import { startTestServer, type TestServer } from "../../ts/testing/index.ts";
import {
  assistant,
  BARE,
  expectFullRender,
  NOW,
  OddStore,
  promptOf,
  result,
  testModel,
  tool,
  user,
} from "./support.ts";
import { tinyModel } from "./tiny-model.ts";

let model: Model;
let server: TestServer;
let client: VllmClient;
beforeAll(async () => {
  model = await tinyModel();
  server = await startTestServer({ model: testModel(model) });
  client = new VllmClient({ baseUrl: server.baseUrl });
});
afterEach(() => {
  server.heal();
  server.answer({ text: "One." });
});
afterAll(async () => {
  await client.close();
  await server.close();
  model.close();
});

const conversation = "c";
const here = { now: NOW, conversation };
const first = { messages: [user("One?")] };

function seamOn(store: SeamOptions["store"], options: Partial<SeamOptions> = {}): Seam {
  return new Seam({ model, client, ...BARE, ...(store === undefined ? {} : { store }), ...options });
}

async function read(turn: Turn, options: Parameters<Turn["stream"]>[0] = {}): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for await (const chunk of turn.stream(options)) chunks.push(chunk);
  return chunks;
}

function chats() {
  return server.requests.filter(({ path }) => path === "/v1/chat/completions");
}

/** What the engine was given last. */
function seen(): number[] {
  return [...(chats().at(-1)?.ids ?? [])];
}

/** The conversation is as if the turn had never been. */
function expectNothingMoved(store: MemoryStore, seam: Seam): void {
  expect(store.stats()).toMatchObject({ conversations: 0, artifacts: 0 });
  expect(seam.stats()).toMatchObject({ committed: 0, abandoned: 1 });
}

test("the engine is given the planned prompt, and the next turn goes on from the answer", async () => {
  const seam = seamOn(undefined);
  server.answer([{ text: "One.", reasoning: "hm" }, { text: "Two." }]);
  const turn = await seam.prepare(first, here);
  await read(turn);
  expect(seen()).toEqual([...promptOf(turn).tokenIds()]);
  const second = await seam.prepare({ append: [user("Two?")] }, here);
  expect(second.outcome).toEqual({ kind: "certified_suffix" });
  await read(second);
  const answer = assistant("One.", { reasoning: "hm" });
  // The parser leaves the line feeds around reasoning where they were.
  const { messages } = JSON.parse((await second.body("messages")).toString());
  expect({
    ...messages[1],
    content: messages[1].content.trim(),
    reasoning: messages[1].reasoning.trim(),
  }).toEqual(answer);
  await expectFullRender(model, second, { messages });
  expect(seen()).toEqual([...promptOf(second).tokenIds()]);
});

test("the turn is recorded before its last chunks are given out", async () => {
  const store = new MemoryStore();
  const turn = await seamOn(store).prepare(first, here);
  const artifacts: [string, number][] = [];
  for await (const { type } of turn.stream()) artifacts.push([type, store.stats().artifacts]);
  const of = (type: string) => artifacts.filter(([each]) => each === type).map(([, count]) => count);
  expect(new Set(of("text"))).toEqual(new Set([0]));
  expect(of("finish")).toEqual([1]);
  expect(await turn.committed).toEqual({ status: "committed" });
});

test("tool calls open a round, whose results are appended", async () => {
  const seam = seamOn(undefined);
  const request = { ...first, tools: [tool("read")] };
  server.answer({ toolCalls: [{ name: "read", arguments: { path: "a" } }] });
  const turn = await seam.prepare(request, here);
  const chunks = await read(turn);
  const id = chunks.find((chunk) => chunk.type === "toolCall")?.id as string;
  server.answer({ text: "It says 42." });
  const second = await seam.prepare({ append: [result(id)] }, here);
  expect(second.outcome).toEqual({ kind: "certified_suffix" });
  await read(second);
  const call = { id, type: "function", function: { name: "read", arguments: '{"path":"a"}' } };
  const messages = [...first.messages, { role: "assistant", content: null, tool_calls: [call] }, result(id)];
  await expectFullRender(model, second, { ...request, messages });
});

test("the ids that were sampled are compared with the history form of the answer", async () => {
  const seam = seamOn(undefined);
  // The tokens of "the" one by one, which no encoding gives.
  const [t, h, e] = [..."the"].map((character) => model.tokenToId(character) as number);
  for (const [ids, drift] of [
    [[...(await model.encode("the"))], "none"],
    [[t, h, e], "drifted"],
  ] as const) {
    server.answer({ ids: [...ids, model.info.stopTokenIds[0]] as number[] });
    const turn = await seam.prepare(first, { now: NOW });
    await read(turn);
    const next = await seam.prepare(
      { messages: [...first.messages, assistant("the"), user("Two?")] },
      { now: NOW },
    );
    expect(next.drift).toBe(drift);
    server.answer({ text: "Two." });
  }
});

describe("nothing is moved by a stream that", () => {
  const slow = { text: "a rather long answer of many words", tokenDelayMs: 5 };

  test("is left early", async () => {
    const store = new MemoryStore();
    const seam = seamOn(store);
    server.answer(slow);
    const turn = await seam.prepare(first, here);
    for await (const chunk of turn.stream()) if (chunk.type === "text") break;
    await expect(turn.committed).rejects.toMatchObject({ code: "PS_ABORTED" });
    expectNothingMoved(store, seam);
    await sleep(30);
    expect(chats().at(-1)?.aborted).toBe(true);
  });

  test("is cancelled by its signal", async () => {
    const store = new MemoryStore();
    const seam = seamOn(store);
    server.answer(slow);
    const turn = await seam.prepare(first, here);
    const controller = new AbortController();
    const reading = read(turn, { signal: controller.signal });
    setTimeout(() => controller.abort("enough"), 20);
    await expect(reading).rejects.toMatchObject({ code: "PS_ABORTED" });
    await expect(turn.committed).rejects.toMatchObject({ code: "PS_ABORTED" });
    expectNothingMoved(store, seam);
  });

  test.each([
    ["fails in the middle", { kind: "error_event", afterEvents: 3 }, "PS_SERVER"],
    ["is cut", { kind: "reset", when: "mid_stream", afterEvents: 3 }, "PS_STREAM_TRUNCATED"],
    ["is refused", { kind: "status", status: 500 }, "PS_HTTP_STATUS"],
  ] as const)("%s", async (_, fault, code) => {
    const store = new MemoryStore();
    const seam = seamOn(store);
    server.answer(slow);
    server.fail(fault);
    const turn = await seam.prepare(first, here);
    await expect(read(turn)).rejects.toMatchObject({ code });
    await expect(turn.committed).rejects.toMatchObject({ code });
    expectNothingMoved(store, seam);
  });

  test("is abandoned while it is read", async () => {
    const store = new MemoryStore();
    const seam = seamOn(store);
    server.answer(slow);
    const turn = await seam.prepare(first, here);
    const reading = (async () => {
      for await (const chunk of turn.stream()) if (chunk.type === "text") turn.abandon("enough");
    })().catch(() => {});
    await expect(turn.committed).rejects.toMatchObject({ code: "PS_ABORTED" });
    await reading;
    expectNothingMoved(store, seam);
    await sleep(30);
    expect(chats().at(-1)?.aborted).toBe(true);
  });
});

test("a stream that is abandoned as it begins is not sent, or stopped at once", async () => {
  const seam = seamOn(undefined);
  await read(await seam.prepare(first, here));
  const sent = chats().length;
  const turn = await seam.prepare({ append: [user("Two?")] }, here);
  const stream = turn.stream();
  const beginning = stream.next();
  turn.abandon();
  const chunks: Chunk[] = [];
  const reading = (async () => {
    for (let { done, value } = await beginning; !done; { done, value } = await stream.next())
      chunks.push(value as Chunk);
  })().catch(() => {});
  await reading;
  await sleep(20);
  expect(chunks).toEqual([]);
  expect(
    chats()
      .slice(sent)
      .every(({ aborted }) => aborted),
  ).toBe(true);
  await expect(turn.committed).rejects.toMatchObject({ code: "PS_ABORTED" });
});

test("a stream can be read once, and not after a commit", async () => {
  const seam = seamOn(undefined);
  const streamed = await seam.prepare(first, here);
  await read(streamed);
  await expect(read(streamed)).rejects.toMatchObject({ code: "PS_CLOSED" });
  await expect(streamed.commit({ message: assistant("One.") })).rejects.toMatchObject({ code: "PS_CLOSED" });
  const committed = await seam.prepare(first, here);
  await committed.commit({ message: assistant("One.") });
  const sent = chats().length;
  await expect(read(committed)).rejects.toMatchObject({ code: "PS_CLOSED" });
  expect(chats().length).toBe(sent);
});

test("without a client there is nothing to stream with, and the turn can still be committed", async () => {
  const turn = await new Seam({ model, ...BARE }).prepare(first, here);
  await expect(read(turn)).rejects.toMatchObject({ code: "PS_INVALID_ARGUMENT" });
  expect(await turn.commit({ message: assistant("One.") })).toEqual({ status: "committed" });
});

test.each([{ text: "" }, { ids: [] }])("an empty answer is recorded: %o", async (answer) => {
  const seam = seamOn(undefined);
  server.answer(answer);
  const turn = await seam.prepare(first, here);
  const chunks = await read(turn).catch((error: unknown) => error);
  if (!Array.isArray(chunks)) return;
  expect(await turn.committed).toEqual({ status: "committed" });
  const next = await seam.prepare({ append: [user("Two?")] }, here);
  await expectFullRender(model, next, { messages: [...first.messages, assistant(""), user("Two?")] });
});

test("an answer cut by its length is recorded as far as it came", async () => {
  const seam = seamOn(undefined);
  server.answer({ text: "abcdefgh" });
  const turn = await seam.prepare({ ...first, max_tokens: 4 }, here);
  const chunks = await read(turn);
  expect(chunks.find(({ type }) => type === "finish")).toMatchObject({ reason: "length" });
  const next = await seam.prepare({ append: [user("Go on.")] }, here);
  expect(next.outcome).toEqual({ kind: "certified_suffix" });
  expect(next.drift).toBe("none");
  await expectFullRender(model, next, { messages: [...first.messages, assistant("abcd"), user("Go on.")] });
});

test("not_durable: the answer stands where the store fails", async () => {
  const store = new OddStore(new MemoryStore());
  const seam = seamOn(store, { storeTimeoutMs: 20 });
  store.odd.commit = () => Promise.reject(new Error("full"));
  const turn = await seam.prepare(first, here);
  const chunks = await read(turn);
  expect(chunks.at(-1)?.type).toBe("usage");
  expect(await turn.committed).toEqual({ status: "not_durable" });
});

test("a long history is made only if the server needs it", async () => {
  const seam = seamOn(undefined);
  const long = { messages: [user("One? ".repeat(2_000))] };
  const turn = await seam.prepare(long, here);
  await read(turn);
  expect(chats().at(-1)?.body?.["messages"]).toEqual([{ role: "user", content: "" }]);
  expect(seen()).toEqual([...promptOf(turn).tokenIds()]);

  server.fail({ kind: "ids_ignored" });
  const second = await seam.prepare({ append: [user("Two?")] }, here);
  await read(second);
  expect(chats().at(-1)?.body?.["messages"]).toEqual([...long.messages, assistant("One."), user("Two?")]);
  expect(second.outcome).toEqual({ kind: "messages", reason: "ids_ignored" });
});
