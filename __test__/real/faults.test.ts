/** What can be made to fail on a real server without harming it. */

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Model, Prompt, VllmClient } from "../../ts/index.ts";
import { BASE_URL, failure, loadModel } from "./support.ts";

let model: Model;
let client: VllmClient;

beforeAll(async () => {
  model = await loadModel();
  client = new VllmClient({ baseUrl: BASE_URL, retries: 2 });
});
afterAll(async () => {
  await client.close();
  model.close();
});

const messages = [{ role: "user", content: "hello there" }];
const TOO_LONG = 131_072;

/** Requests that the engine is working on; waits until there are so many. */
async function running(count: number): Promise<void> {
  for (let i = 0; i < 200; i++) {
    const metrics = await client.metrics();
    const now =
      (metrics.sum("vllm:num_requests_running") ?? 0) + (metrics.sum("vllm:num_requests_waiting") ?? 0);
    if (now === count) return;
    await sleep(50);
  }
  throw new Error(`the engine never had ${count} requests`);
}

describe("refusals are typed, quote nothing and are not retried", () => {
  const prompt = Prompt.fromIds([1, 2, 3]);
  const foreign = () => Prompt.fromIds([1, 0x7fff_ffff]);
  test.each<[string, () => Promise<unknown>, object]>([
    [
      "400 for a parameter",
      () => client.chat({ messages, max_tokens: 1, temperature: -1 }).collect(),
      { status: 400 },
    ],
    ["400 for messages", () => client.chat({ messages: [], max_tokens: 1 }).collect(), { status: 400 }],
    [
      "404 for a model",
      () => client.chat({ messages, max_tokens: 1, model: "none" }).collect(),
      { status: 404 },
    ],
    [
      "404 for a model, by ids",
      () => client.generate(prompt, { max_tokens: 1 }, { model: "none" }).collect(),
      { status: 404 },
    ],
    ["foreign ids, generate", () => client.generate(foreign(), { max_tokens: 1 }).collect(), { status: 400 }],
    [
      "foreign ids, generate, whole",
      () => client.generate(foreign(), { max_tokens: 1 }, { stream: false }).collect(),
      { status: 400 },
    ],
    [
      "foreign ids, completion",
      () => client.complete(foreign(), { max_tokens: 1 }).collect(),
      { status: 400 },
    ],
    [
      "foreign ids, chat",
      () => client.chat({ messages, max_tokens: 1 }, { prompt: foreign() }).collect(),
      { status: 400 },
    ],
  ])("%s", async (_, work, details) => {
    const error = await failure(work());
    expect(error.code).toMatch(/^PS_(HTTP_STATUS|SERVER)$/);
    expect(error.details).toMatchObject({ ...details, retryable: false });
    expect(error.message).not.toContain("hello there");
  });

  test("a prompt over the context: ids are not even sent, messages are the server's to count", async () => {
    const before = (await client.metrics()).sum("http_requests_total");
    const long = Prompt.fromIds(new Uint32Array(TOO_LONG).fill(100));
    for (const work of [
      client.generate(long, { max_tokens: 1 }),
      client.complete(long, { max_tokens: 1 }),
      client.chat({ messages, max_tokens: 1 }, { prompt: long }),
    ]) {
      const error = await failure(work.collect());
      expect(error.code).toBe("PS_CONTEXT_OVERFLOW");
      expect(error.details).toMatchObject({ promptTokens: TOO_LONG, maxModelLength: TOO_LONG });
    }
    expect(before).not.toBeNull();
    const text = "word ".repeat(140_000);
    const error = await failure(
      client.chat({ messages: [{ role: "user", content: text }], max_tokens: 1 }).collect(),
    );
    expect(error.code).toBe("PS_CONTEXT_OVERFLOW");
    expect(error.details.maxModelLength).toBe(TOO_LONG);
  });
});

describe("the caller stops, and the engine does too", () => {
  const endless = { messages, max_tokens: 20_000, ignore_eos: true };

  test.each<[string, (answer: AsyncIterator<unknown>, abort: () => void) => Promise<unknown>]>([
    [
      "before it is sent",
      async (answer, abort) => {
        abort();
        return answer.next();
      },
    ],
    [
      "while it waits",
      async (answer, abort) => {
        const next = answer.next();
        abort();
        return next;
      },
    ],
    [
      "after the first event",
      async (answer, abort) => {
        await answer.next();
        abort();
        return answer.next();
      },
    ],
    [
      "in the middle of the text",
      async (answer, abort) => {
        for (let i = 0; i < 20; i++) await answer.next();
        abort();
        return answer.next();
      },
    ],
  ])("%s", async (_, act) => {
    await running(0);
    const controller = new AbortController();
    const answer = client.chat(endless, { signal: controller.signal })[Symbol.asyncIterator]();
    expect((await failure(act(answer, () => controller.abort()))).code).toBe("PS_ABORTED");
    await running(0);
  });

  test("break", async () => {
    await running(0);
    for await (const chunk of client.generate(Prompt.fromIds([9, 9]), {
      max_tokens: 20_000,
      ignore_eos: true,
    })) {
      if (chunk.type === "text" || chunk.type === "tokens") break;
    }
    await running(0);
  });

  test("a deadline between sending and the first token", async () => {
    const prompt = Prompt.fromIds(Uint32Array.from({ length: 20_000 }, (_, i) => 1_000 + ((i * 7) % 9_000)));
    const work = client.generate(
      prompt,
      { max_tokens: 5 },
      { timeouts: { firstTokenMs: 50 }, cacheSalt: `${Date.now()}` },
    );
    const error = await failure(work.collect());
    expect(error.code).toBe("PS_TIMEOUT");
    expect(error.details.phase).toBe("first_token");
    await running(0);
  });

  test("by id, from elsewhere", async () => {
    await running(0);
    const answer = client.generate(Prompt.fromIds([9, 9]), { max_tokens: 20_000, ignore_eos: true });
    let reason: string | null = null;
    for await (const chunk of answer) {
      if (chunk.type === "start") {
        if (chunk.requestId === null) throw new Error("the server named no id");
        await client.abort([chunk.requestId]);
      }
      if (chunk.type === "finish") reason = chunk.reason;
    }
    expect(reason).toBe("abort");
    await running(0);
  });
});

test("thirty at once, a third of them left early: the others are whole", async () => {
  const prompt = await model.render({ messages });
  const results = await Promise.all(
    Array.from({ length: 30 }, async (_, i) => {
      const answer = client.generate(prompt, { max_tokens: 8, ignore_eos: true, seed: i });
      if (i % 3 > 0) return (await answer.collect()).facts.sampledIds()?.length;
      for await (const _ of answer) break;
      return "left";
    }),
  );
  expect(results.filter((result) => result === 8)).toHaveLength(20);
  await running(0);
});
