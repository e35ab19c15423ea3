/** What goes out: bodies, headers, events, and what errors keep to themselves. */

import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CHANNELS } from "../../ts/events.ts";
import { Prompt, PromptseamError, VllmClient } from "../../ts/index.ts";
import { startTestServer, type TestServer } from "../../ts/testing/index.ts";
import { recorded, startReplay } from "./replay.ts";

const SECRET = "sk-very-secret";
let server: TestServer;
let client: VllmClient;

beforeAll(async () => {
  server = await startTestServer({ apiKey: SECRET });
  client = new VllmClient({
    baseUrl: `${server.baseUrl}/v1/`,
    apiKey: SECRET,
    headers: { "X-Tenant": "acme" },
  });
});

afterAll(async () => {
  await client.close();
  await server.close();
});

const messages = [{ role: "user", content: "hi" }];
const prompt = Prompt.fromIds([1, 2, 3]);

describe("bodies", () => {
  test("every member of the request is passed through, and stream options are merged", async () => {
    const request = {
      messages,
      temperature: 0.5,
      chat_template_kwargs: { enable_thinking: false },
      stream_options: { include_usage: true, continuous_usage_stats: false },
      vendor: null,
    };
    await client.chat(request).collect();
    expect(server.requests.at(-1)?.body).toEqual({ ...request, stream: true });
    await client.chat(request, { stream: false }).collect();
    const { stream_options, ...whole } = request;
    expect(server.requests.at(-1)?.body).toEqual({ ...whole, stream: false });
  });

  test("ids take their place beside other transfer parameters, and replace ids given there", async () => {
    const transfer = { do_remote_decode: true, prompt_token_ids: [9] };
    await client.chat({ messages, kv_transfer_params: transfer }, { prompt }).collect();
    const { body } = server.requests.at(-1) ?? {};
    expect(body?.["kv_transfer_params"]).toEqual({ do_remote_decode: true, prompt_token_ids: [1, 2, 3] });
    expect(body?.["messages"]).toEqual(messages);
    expect(server.requests.at(-1)?.ids).toEqual(Uint32Array.of(1, 2, 3));
  });

  test("generate and completions", async () => {
    await client.generate(prompt, { max_tokens: 2 }, { cacheSalt: "s", outputMode: "tokens" }).collect();
    expect(server.requests.at(-1)?.body).toMatchObject({
      token_ids: [1, 2, 3],
      sampling_params: { max_tokens: 2 },
      cache_salt: "s",
      output_mode: "tokens",
    });
    await client.complete(prompt, { max_tokens: 2, prompt: "not this" }).collect();
    expect(server.requests.at(-1)?.body).toMatchObject({ prompt: [1, 2, 3], max_tokens: 2 });
  });

  test("a base URL may end in /v1; key, own headers and request id are sent", async () => {
    await client.chat({ messages }, { requestId: "turn-7", headers: { "x-extra": "1" } }).collect();
    const { path, headers } = server.requests.at(-1) ?? {};
    expect(path).toBe("/v1/chat/completions");
    expect(headers).toMatchObject({
      authorization: `Bearer ${SECRET}`,
      "x-tenant": "acme",
      "x-request-id": "turn-7",
      "x-extra": "1",
    });
  });

  test("nothing is sent before the answer is read", async () => {
    const before = server.requests.length;
    const answer = client.chat({ messages });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(server.requests.length).toBe(before);
    await answer.cancel();
    expect(() => answer[Symbol.asyncIterator]()).toThrow(/already/);
  });
});

describe("arguments that are refused at once", () => {
  const make = (options: object) => () => new VllmClient({ baseUrl: "http://h:1", ...options });
  test.each([
    ["no URL", make({ baseUrl: "nowhere" })],
    ["another scheme", make({ baseUrl: "ftp://h" })],
    ["credentials in the URL", make({ baseUrl: `http://user:${SECRET}@h` })],
    ["a key that no header can carry", make({ apiKey: `${SECRET}\n` })],
    ["a deadline of zero", make({ timeouts: { firstTokenMs: 0 } })],
    ["retries below zero", make({ retries: -1 })],
    ["no messages", () => client.chat({} as never)],
    ["a cycle", () => client.chat(cyclic() as never)],
  ])("%s", (_, work) => {
    let error: unknown;
    try {
      work();
    } catch (thrown) {
      error = thrown;
    }
    if (!PromptseamError.isInstance(error)) throw new Error(`not a PromptseamError: ${String(error)}`);
    expect(error.code).toMatch(/^PS_INVALID_/);
    expect(`${error.message}${error.stack}${String(error.cause)}`).not.toContain(SECRET);
  });
});

function cyclic(): object {
  const request: Record<string, unknown> = { messages };
  request["self"] = request;
  return request;
}

describe("errors keep the prompt to themselves", () => {
  const secretMessages = [
    { role: "user", content: 'my pin is 4711, keep it "safe"\nplease' },
    { role: "user", content: "swordfish" },
  ];
  test.each([
    ["whole", "Refused: my pin is 4711, keep it."],
    ["as Python prints it", `Cannot parse {'content': 'my pin is 4711, keep it "safe"\\nplease'}`],
    ["a short message", "Unexpected input swordfish at 3"],
    ["the key", `Bad key ${SECRET}`],
    ["cut short", "Error near: is 4711, keep …"],
  ])("%s", async (_, said) => {
    const replay = await startReplay();
    await using strict = new VllmClient({ baseUrl: replay.baseUrl, apiKey: SECRET });
    const body = JSON.stringify({
      error: { message: said, type: "BadRequestError", param: null, code: 400 },
    });
    for (const answer of [
      { status: 400, contentType: "application/json", body: Buffer.from(body) },
      {
        status: 200,
        contentType: "text/event-stream",
        body: Buffer.from(`data: ${body}\n\ndata: [DONE]\n\n`),
      },
      { status: 200, contentType: "text/event-stream", body: Buffer.from(`data: {"a": ${said}}\n\n`) },
      { status: 200, contentType: "text/html", body: Buffer.from(said) },
    ]) {
      replay.serve(answer);
      const error = await strict
        .chat({ messages: secretMessages })
        .collect()
        .catch((reason: unknown) => reason);
      const shown = `${String(error)}${(error as Error).stack}${String((error as Error).cause)}`;
      for (const word of ["4711", "swordfish", SECRET]) expect(shown).not.toContain(word);
      expect(PromptseamError.isInstance(error)).toBe(true);
    }
    await replay.close();
  });

  test("what is not the prompt's stays readable", async () => {
    const replay = await startReplay();
    await using plain = new VllmClient({ baseUrl: replay.baseUrl });
    replay.serve(recorded("maxtok"));
    const error = await plain
      .chat({ messages: secretMessages })
      .collect()
      .catch((reason: unknown) => reason);
    expect(String(error)).toContain("max_tokens=300000 cannot be greater than max_model_len=200000");
    await replay.close();
  });
});

describe("diagnostics channels", () => {
  async function eventsOf(work: () => Promise<unknown>): Promise<{ name: string; message: object }[]> {
    const events: { name: string; message: object }[] = [];
    const listener = (message: unknown, name: string | symbol) =>
      void events.push({ name: String(name), message: message as object });
    for (const name of Object.values(CHANNELS)) subscribe(name, listener);
    await work().catch(() => {});
    for (const name of Object.values(CHANNELS)) unsubscribe(name, listener);
    return events;
  }

  test("start, first token and end share an id and carry counts only", async () => {
    const events = await eventsOf(() => client.chat({ messages }, { prompt }).collect());
    expect(events.map((event) => event.name)).toEqual([
      CHANNELS.requestStart,
      CHANNELS.requestFirstToken,
      CHANNELS.requestEnd,
    ]);
    expect(new Set(events.map((event) => (event.message as { id: number }).id)).size).toBe(1);
    expect(events[0]?.message).toMatchObject({ way: "chat_ids", promptTokens: 3, stream: true });
    expect(events[2]?.message).toMatchObject({ bodyBytes: server.requests.at(-1)?.bodyBytes });
    expect(events[2]?.message).toMatchObject({
      attempts: 1,
      cancelled: false,
      promptTokens: 3,
      cachedTokens: 0,
    });
    expect(JSON.stringify(events)).not.toContain("hi");
  });

  test("a failure ends in error, a break in a cancelled end", async () => {
    server.fail({ kind: "status", status: 503 });
    const failed = await eventsOf(() => client.chat({ messages }).collect());
    expect(failed.at(-1)).toMatchObject({
      name: CHANNELS.requestError,
      message: { code: "PS_HTTP_STATUS", status: 503, attempts: 1 },
    });
    const broken = await eventsOf(async () => {
      for await (const _ of client.chat({ messages })) break;
    });
    expect(broken.at(-1)).toMatchObject({ name: CHANNELS.requestEnd, message: { cancelled: true } });
  });
});
