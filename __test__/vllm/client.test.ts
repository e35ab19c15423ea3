import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Chunk, type ErrorCode, Prompt, PromptseamError, VllmClient } from "../../ts/index.ts";
import { type Fault, startTestServer, type TestServer } from "../../ts/testing/index.ts";

let server: TestServer;
let client: VllmClient;

const SECRET = "sk-very-secret";
const messages = [{ role: "user", content: "private words 日本" }];
const timeouts = { firstTokenMs: 400, betweenTokensMs: 400, answerMs: 400, controlMs: 400 };

beforeAll(async () => {
  server = await startTestServer({ apiKey: SECRET, maxModelLength: 5_000 });
  client = new VllmClient({ baseUrl: server.baseUrl, apiKey: SECRET });
});

afterEach(() => {
  server.heal();
  server.answer({ text: "ok" });
});

afterAll(async () => {
  await client.close();
  await settled();
  expect(server.openConnections).toBe(0);
  await server.close();
});

/** Sockets close in the background; an idle kept-alive one is the agent's until the client closes. */
async function settled(open = 0): Promise<void> {
  for (let i = 0; i < 50 && server.openConnections > open; i++) await sleep(20);
}

async function failing(work: Promise<unknown>): Promise<PromptseamError> {
  const error = await work.then(
    () => new Error("it did not fail"),
    (reason: unknown) => reason,
  );
  expect(PromptseamError.isInstance(error), String(error)).toBe(true);
  const shown =
    JSON.stringify(error, Object.getOwnPropertyNames(error)) + String((error as Error).cause ?? "");
  expect(shown).not.toContain(SECRET);
  expect(shown).not.toContain("private words");
  return error as PromptseamError;
}

async function read(answer: AsyncIterable<Chunk>): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for await (const chunk of answer) chunks.push(chunk);
  return chunks;
}

describe("answers", () => {
  test("every way, streamed and whole, gives the text, the ids that were sampled and the counts", async () => {
    server.answer({ text: "héllo 日本 👍" });
    const prompt = Prompt.fromIds([1, 2, 3]);
    for (const stream of [true, false]) {
      const options = { stream, sampledIds: "token_ids" } as const;
      const answers = {
        chat: await client.chat({ messages }, options).collect(),
        chatIds: await client.chat({ messages }, { ...options, prompt }).collect(),
        complete: await client.complete(prompt, { max_tokens: 99 }, options).collect(),
        generate: await client.generate(prompt, { max_tokens: 99 }, options).collect(),
      };
      for (const [way, answer] of Object.entries(answers)) {
        expect(answer.text, way).toBe("héllo 日本 👍");
        expect(answer.finishReason, way).toBe("stop");
        expect(answer.facts.sampledIds()?.at(-1), way).toBe(257);
        expect(answer.facts.complete, way).toBe(true);
        if (way !== "chat") expect(answer.facts.promptTokens, way).toBe(3);
      }
      expect(answers.chatIds.facts.promptTokenIds?.equals(prompt)).toBe(true);
    }
    expect(server.requests.at(-1)?.ids).toEqual(Uint32Array.of(1, 2, 3));
  });

  test("reasoning and tool calls come apart", async () => {
    server.answer({ reasoning: "hm", text: "so", toolCalls: [{ name: "f", arguments: { a: [1, "}"] } }] });
    const tools = [{ type: "function", function: { name: "f" } }];
    const answer = await client.chat({ messages, tools }).collect();
    expect(answer.reasoning.trim()).toBe("hm");
    expect(answer.text.trim()).toBe("so");
    expect(answer.toolCalls.map((call) => [call.name, JSON.parse(call.arguments)])).toEqual([
      ["f", { a: [1, "}"] }],
    ]);
    expect(answer.finishReason).toBe("tool_calls");
  });

  test("sampled ids come by logprobs without the echo of the prompt", async () => {
    const prompt = Prompt.fromIds(Uint32Array.from({ length: 1000 }, (_, i) => i % 200));
    const answer = await client.chat({ messages }, { prompt, sampledIds: "logprobs" }).collect();
    expect(answer.facts.sampledIds()).toEqual(Uint32Array.of(111, 107, 257));
    expect(answer.facts.promptTokenIds).toBeNull();
  });

  test("cached tokens grow with the conversation, and a salt keeps tenants apart", async () => {
    const ids = Uint32Array.from({ length: 400 }, (_, i) => i % 250);
    const cached = async (length: number, cache_salt: string) => {
      const prompt = Prompt.fromIds(ids.subarray(0, length));
      const answer = await client.chat({ messages, cache_salt }, { prompt }).collect();
      return answer.facts.cachedTokens;
    };
    expect(await cached(200, "a")).toBe(0);
    expect(await cached(400, "a")).toBe(192);
    expect(await cached(400, "a")).toBe(384);
    expect(await cached(400, "b")).toBe(0);
  });

  test("two at once do not mix", async () => {
    server.answer((body) => ({
      text: String((body["messages"] as { content: string }[])[0]?.content),
      tokenDelayMs: 1,
    }));
    const texts = ["first", "second", "third"];
    const answers = texts.map((content) => client.chat({ messages: [{ role: "user", content }] }).collect());
    expect((await Promise.all(answers)).map((answer) => answer.text)).toEqual(texts);
  });

  test("models, version and health", async () => {
    expect(await client.models()).toEqual([{ id: "test", maxModelLength: 5_000, root: "test" }]);
    expect(await client.version()).toBe("0.32.0");
    await client.health();
  });
});

describe("a survivable fault changes nothing", () => {
  test.each<Fault>([
    { kind: "chunked", bytes: 1 },
    { kind: "chunked", bytes: 7 },
    { kind: "cut_characters" },
    { kind: "buffered" },
    { kind: "missing_done" },
    { kind: "long_comment", bytes: 100_000 },
  ])("%o", async (fault) => {
    server.answer({ text: "日本 👍 ok" });
    server.fail(fault);
    const answer = await client.chat({ messages }).collect();
    expect(answer.text).toBe("日本 👍 ok");
    expect(answer.facts.complete).toBe(fault.kind !== "missing_done");
  });

  test("a 10 MB line", async () => {
    server.fail({ kind: "long_line", bytes: 10_000_000 });
    expect((await client.chat({ messages }).collect()).text.length).toBe(10_000_002);
  });
});

describe("a fatal fault is a typed error", () => {
  test.each<[Fault, ErrorCode, Partial<PromptseamError["details"]>]>([
    [{ kind: "reset", when: "before_headers" }, "PS_CONNECT", { retryable: true }],
    [{ kind: "reset", when: "after_headers" }, "PS_CONNECT", {}],
    [{ kind: "reset", when: "mid_stream" }, "PS_STREAM_TRUNCATED", {}],
    [{ kind: "hang", when: "before_headers" }, "PS_TIMEOUT", { phase: "first_token" }],
    [{ kind: "hang", when: "first_token" }, "PS_TIMEOUT", { phase: "first_token" }],
    [{ kind: "hang", when: "between_tokens" }, "PS_TIMEOUT", { phase: "between_tokens" }],
    [{ kind: "only_comments", delayMs: 20 }, "PS_TIMEOUT", { phase: "first_token" }],
    [{ kind: "html" }, "PS_PROTOCOL", {}],
    [{ kind: "html", status: 502 }, "PS_HTTP_STATUS", { status: 502 }],
    [{ kind: "status", status: 400 }, "PS_HTTP_STATUS", { status: 400, type: "BadRequestError" }],
    [{ kind: "status", status: 401 }, "PS_HTTP_STATUS", { status: 401 }],
    [{ kind: "status", status: 404 }, "PS_HTTP_STATUS", { status: 404 }],
    [{ kind: "status", status: 500 }, "PS_HTTP_STATUS", { status: 500, retryable: true }],
    [{ kind: "status", status: 503 }, "PS_HTTP_STATUS", { status: 503, retryable: true }],
    [{ kind: "error_event" }, "PS_SERVER", {}],
    [{ kind: "truncated_json" }, "PS_PROTOCOL", {}],
    [{ kind: "missing_done", afterEvents: 2 }, "PS_STREAM_TRUNCATED", {}],
    [{ kind: "content_type", value: "text/plain" }, "PS_PROTOCOL", {}],
  ])("%o gives %s", async (fault, code, details) => {
    server.answer({ text: "some words that are long enough" });
    server.fail(fault);
    const before = server.requests.length;
    const error = await failing(client.chat({ messages }, { timeouts }).collect());
    expect(error.code).toBe(code);
    expect(error.details).toMatchObject(details);
    expect(server.requests.length).toBe(before + 1);
    expect((await client.chat({ messages }).collect()).text.length).toBeGreaterThan(0);
  });

  test("a refused connection", async () => {
    await using nobody = new VllmClient({ baseUrl: "http://127.0.0.1:9", timeouts });
    expect((await failing(nobody.health())).code).toBe("PS_CONNECT");
  });

  test("vLLM's own refusals", async () => {
    const long = Prompt.fromIds(new Uint32Array(6_000));
    expect((await failing(client.generate(long).collect())).code).toBe("PS_CONTEXT_OVERFLOW");
    expect((await failing(client.chat({ messages, model: "other" }).collect())).details.status).toBe(404);
    const foreign = Prompt.fromIds([1, 999]);
    expect((await failing(client.generate(foreign).collect())).details.status).toBe(400);
    await using stranger = new VllmClient({ baseUrl: server.baseUrl, apiKey: "wrong" });
    expect((await failing(stranger.models())).details.status).toBe(401);
  });
});

describe("retries", () => {
  test.each<[Fault, number]>([
    [{ kind: "status", status: 503 }, 2],
    [{ kind: "status", status: 500 }, 2],
    [{ kind: "reset", when: "before_headers" }, 2],
    [{ kind: "status", status: 400 }, 1],
    [{ kind: "status", status: 401 }, 1],
    [{ kind: "status", status: 404 }, 1],
    [{ kind: "error_event", afterEvents: 0 }, 2],
    [{ kind: "error_event", afterEvents: 2 }, 1],
    [{ kind: "reset", when: "mid_stream", afterEvents: 2 }, 1],
    [{ kind: "hang", when: "first_token" }, 1],
  ])("%o is sent %i times", async (fault, times) => {
    server.fail(fault);
    const before = server.requests.length;
    const answer = client.chat({ messages }, { retries: 1, timeouts }).collect();
    if (times === 1) await failing(answer);
    else expect((await answer).facts.attempts).toBe(2);
    expect(server.requests.length - before).toBe(times);
  });
});

describe("aborting", () => {
  test.each<[string, Fault | null]>([
    ["before the headers", { kind: "hang", when: "before_headers" }],
    ["before the first token", { kind: "hang", when: "first_token" }],
    ["between tokens", { kind: "hang", when: "between_tokens" }],
    ["in mid-stream", null],
  ])("%s rejects and lets the server know", async (_, fault) => {
    server.answer({ text: "x".repeat(500), tokenDelayMs: 5 });
    if (fault !== null) server.fail(fault);
    const controller = new AbortController();
    const running = failing(client.chat({ messages }, { signal: controller.signal }).collect());
    await sleep(60);
    controller.abort("enough");
    const error = await running;
    expect(error.code).toBe("PS_ABORTED");
    expect(error.cause).toBe("enough");
    await sleep(30);
    expect(server.requests.at(-1)?.aborted).toBe(true);
  });

  test("an aborted signal sends nothing", async () => {
    const before = server.requests.length;
    await failing(client.chat({ messages }, { signal: AbortSignal.abort() }).collect());
    expect(server.requests.length).toBe(before);
  });

  test("break stops the server's work", async () => {
    server.answer({ text: "x".repeat(500), tokenDelayMs: 5 });
    const chunks: Chunk[] = [];
    for await (const chunk of client.chat({ messages })) {
      chunks.push(chunk);
      if (chunk.type === "text") break;
    }
    expect(chunks[0]?.type).toBe("start");
    await sleep(30);
    expect(server.requests.at(-1)?.aborted).toBe(true);
  });

  test("closing the client stops what runs", async () => {
    const closing = new VllmClient({ baseUrl: server.baseUrl, apiKey: SECRET });
    server.fail({ kind: "hang", when: "first_token" });
    const running = failing(read(closing.chat({ messages })));
    await sleep(30);
    await closing.close();
    await closing.close();
    expect((await running).code).toBe("PS_CLOSED");
  });

  test("an unread answer does not fill the memory", async () => {
    server.answer({ text: "x".repeat(200_000) });
    const answer = client.complete(Prompt.fromIds([1]), { max_tokens: 4_999 });
    const iterator = answer[Symbol.asyncIterator]();
    await iterator.next();
    await sleep(50);
    await iterator.return?.();
    expect(server.requests.at(-1)?.ids?.length).toBe(1);
  });
});

test("a server that restarts between two requests answers the second one", async () => {
  expect((await client.chat({ messages }).collect()).text).toBe("ok");
  await server.stop();
  await server.start();
  expect((await client.chat({ messages }, { retries: 1, timeouts }).collect()).text).toBe("ok");
});
