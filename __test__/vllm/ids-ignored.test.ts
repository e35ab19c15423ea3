/** A server that does not take the ids beside the messages: noticed before anything of its answer is given out. */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Chunk, Prompt, VllmClient } from "../../ts/index.ts";
import { startTestServer, type TestServer } from "../../ts/testing/index.ts";

let server: TestServer;
let client: VllmClient;

beforeAll(async () => {
  server = await startTestServer({ answers: (_, number) => ({ text: `answer ${number}` }) });
  client = new VllmClient({ baseUrl: server.baseUrl });
});
afterEach(() => {
  server.heal();
  server.answer((_, number) => ({ text: `answer ${number}` }));
});
afterAll(async () => {
  await client.close();
  await server.close();
});

const short = [{ role: "user", content: "hi" }];
const long = [{ role: "user", content: "a long history ".repeat(1_000) }];
const prompt = Prompt.fromIds(Uint32Array.from({ length: 5_000 }, (_, i) => i % 200));

function sent(from: number) {
  return server.requests.slice(from).filter(({ path }) => path === "/v1/chat/completions");
}

describe.each([true, false])("streamed: %s", (stream) => {
  test("the request is aborted and the messages are sent, once, and only their answer is seen", async () => {
    const before = server.requests.length;
    // Slow enough that the first request is still under way when it is aborted.
    server.answer((_, number) => ({ text: `answer ${number}`, tokenDelayMs: 10 }));
    server.fail({ kind: "ids_ignored" });
    const answer = client.chat({ messages: long }, { prompt, stream, sampledIds: "token_ids" });
    const chunks: Chunk[] = [];
    for await (const chunk of answer) chunks.push(chunk);
    const text = chunks.flatMap((chunk) => (chunk.type === "text" ? chunk.text : [])).join("");
    expect(text).toBe("answer 1");
    expect(chunks.filter((chunk) => chunk.type === "start")).toHaveLength(1);
    expect(chunks.filter((chunk) => chunk.type === "finish")).toHaveLength(1);
    const { facts } = answer;
    expect(facts).toMatchObject({ idsIgnored: true, attempts: 2, complete: true });
    // The counts and ids are those of the answer that was given out.
    expect(Buffer.from(facts.sampledIds()?.slice(0, -1) ?? []).toString()).toBe("answer 1");
    const [first, second, ...others] = sent(before);
    expect(others).toEqual([]);
    if (stream) expect(first?.aborted).toBe(true);
    expect(second?.body?.["messages"]).toEqual(long);
    expect(second?.body?.["kv_transfer_params"]).toBeUndefined();
    expect(facts.promptTokens).toBe(second?.ids?.length);
  });

  test("taken ids: a stand-in goes beside them where the messages are long", async () => {
    const before = server.requests.length;
    const { facts } = await client.chat({ messages: long }, { prompt, stream }).collect();
    expect(facts).toMatchObject({ idsIgnored: false, attempts: 1, promptTokens: 5_000 });
    await client.chat({ messages: long }, { prompt, stream, sendMessages: true }).collect();
    await client.chat({ messages: short }, { prompt, stream }).collect();
    const [standIn, real, brief] = sent(before);
    expect(JSON.stringify(standIn?.body?.["messages"]).length).toBeLessThan(100);
    expect(standIn?.ids).toEqual(prompt.tokenIds());
    expect(real?.body?.["messages"]).toEqual(long);
    expect(brief?.body?.["messages"]).toEqual(short);
  });
});

test("a server that counts too late has not shown that it took the ids: no stand-in is trusted", async () => {
  const before = server.requests.length;
  server.fail({ kind: "late_usage" });
  const { facts, text } = await client.chat({ messages: long }, { prompt }).collect();
  expect(facts.idsIgnored).toBe(true);
  expect(text).toBe("answer 1");
  expect(sent(before)[1]?.body?.["messages"]).toEqual(long);

  // With the real messages beside the ids nothing can go wrong unnoticed.
  server.fail({ kind: "late_usage" });
  const real = await client.chat({ messages: long }, { prompt, sendMessages: true }).collect();
  expect(real.facts).toMatchObject({ idsIgnored: false, attempts: 1 });
});

test("where the caller wants no usage, the messages go beside the ids", async () => {
  const before = server.requests.length;
  await client.chat({ messages: long, stream_options: { include_usage: false } }, { prompt }).collect();
  expect(sent(before)[0]?.body?.["messages"]).toEqual(long);
});

test("it is no retry: the one that is allowed is still there for the messages", async () => {
  server.fail({ kind: "ids_ignored" });
  server.fail({ kind: "status", status: 503 });
  const { facts } = await client
    .chat({ messages: long }, { prompt, retries: 1, timeouts: { firstTokenMs: 5_000 } })
    .collect();
  expect(facts).toMatchObject({ idsIgnored: true, attempts: 3 });
});

test("aborted while the messages are sent", async () => {
  server.fail({ kind: "ids_ignored" });
  server.fail({ kind: "hang", when: "first_token" });
  const controller = new AbortController();
  const work = client.chat({ messages: long }, { prompt, signal: controller.signal }).collect();
  setTimeout(() => controller.abort(), 100);
  await expect(work).rejects.toMatchObject({ code: "PS_ABORTED" });
});
