/** What the client learns of its server, and when it asks again. */

import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { Prompt, PromptseamError, VllmClient } from "../../ts/index.ts";
import { startTestServer, type TestServerOptions } from "../../ts/testing/index.ts";
import { Metrics } from "../../ts/vllm/metrics.ts";
import { EVERY_CAPABILITY } from "../support.ts";

async function start(options: TestServerOptions = {}) {
  const server = await startTestServer(options);
  const client = new VllmClient({ baseUrl: server.baseUrl });
  const generated = () => server.requests.filter(({ ids }) => ids !== null).length;
  return {
    server,
    client,
    generated,
    async [Symbol.asyncDispose]() {
      await client.close();
      await server.close();
    },
  };
}

async function failing(work: Promise<unknown>): Promise<PromptseamError> {
  const error = await work.then(
    () => new Error("it did not fail"),
    (reason: unknown) => reason,
  );
  if (!PromptseamError.isInstance(error)) throw error;
  return error;
}

describe("capabilities", () => {
  test("everything that the server shows, by asking it", async () => {
    await using at = await start({ maxModelLength: 9_000, promptHandles: true });
    expect(await at.client.capabilities()).toEqual({
      version: "0.32.0",
      model: "test",
      maxModelLength: 9_000,
      ...EVERY_CAPABILITY,
    });
    expect(at.generated()).toBe(5);
    // No tenant's prefix is touched, and none is left behind under a known salt.
    const salts = new Set(at.server.requests.flatMap(({ body }) => body?.["cache_salt"] ?? []));
    expect(salts.size).toBe(1);
  });

  test("what is missing has a reason", async () => {
    await using at = await start({ ignoresIds: true, scaleOut: false });
    const { transports } = await at.client.capabilities();
    expect(transports.messages).toEqual({ proved: true });
    expect(transports.completion_ids).toEqual({ proved: true });
    expect(transports.chat_ids).toMatchObject({ proved: false, because: /kv_transfer_params/ });
    expect(transports.generate_ids).toMatchObject({ proved: false, because: /404/ });
    expect(transports.handle).toMatchObject({ proved: false, because: /plugin/ });
  });

  test("a context shorter than the probe", async () => {
    await using at = await start({ maxModelLength: 100 });
    expect(await at.client.capabilities()).toMatchObject({
      maxModelLength: 100,
      transports: { generate_ids: { proved: true } },
    });
  });

  test("asked once, also by several at the same time, and one caller's abort is its own", async () => {
    await using at = await start();
    const controller = new AbortController();
    const aborted = failing(at.client.capabilities({ signal: controller.signal }));
    const others = [at.client.capabilities(), at.client.capabilities()];
    controller.abort();
    expect((await aborted).code).toBe("PS_ABORTED");
    const [one, two] = await Promise.all(others);
    expect(one).toBe(two);
    expect(await at.client.capabilities()).toBe(one);
    expect(at.generated()).toBe(4);
  });

  test("asked again after a failure of the server, not after a refusal", async () => {
    await using at = await start();
    const messages = [{ role: "user", content: "x" }];
    const first = await at.client.capabilities();
    await failing(at.client.chat({ messages, model: "none" }).collect());
    expect(await at.client.capabilities()).toBe(first);
    at.server.fail({ kind: "status", status: 500 });
    await failing(at.client.chat({ messages }).collect());
    expect(await at.client.capabilities()).not.toBe(first);
  });

  test("asked again after a restart, though no request failed; not after idle connections were closed", async () => {
    await using at = await start({ maxModelLength: 9_000 });
    const first = await at.client.capabilities();
    // A server that only closes idle connections is the same one.
    await sleep(10);
    expect(await at.client.capabilities()).toBe(first);
    await at.server.stop();
    await at.server.start();
    await sleep(20);
    expect(await at.client.capabilities()).not.toBe(first);
  });

  test("a failure while asking is the caller's to see, and not remembered", async () => {
    await using at = await start({ apiKey: "k" });
    expect((await failing(at.client.capabilities())).details.status).toBe(401);
    at.server.fail({ kind: "status", status: 503 });
    await using keyed = new VllmClient({ baseUrl: at.server.baseUrl, apiKey: "k" });
    expect((await failing(keyed.capabilities())).details.status).toBe(503);
    expect((await keyed.capabilities()).model).toBe("test");
    expect((await failing(keyed.capabilities({ model: "none" }))).code).toBe("PS_INVALID_ARGUMENT");
  });
});

describe("a prompt over the context", () => {
  const tooLong = Prompt.fromIds(new Uint32Array(100).fill(97));

  test("is not sent, whatever the way; one token less is", async () => {
    await using at = await start({ maxModelLength: 100 });
    const messages = [{ role: "user", content: "x" }];
    for (const send of [
      () => at.client.generate(tooLong, { max_tokens: 1 }),
      () => at.client.complete(tooLong, { max_tokens: 1 }),
      () => at.client.chat({ messages, max_tokens: 1 }, { prompt: tooLong }),
    ]) {
      const error = await failing(send().collect());
      expect(error.code).toBe("PS_CONTEXT_OVERFLOW");
      expect(error.details).toMatchObject({ promptTokens: 100, maxModelLength: 100 });
    }
    expect(at.server.requests.map(({ path }) => path)).toEqual(["/v1/models"]);
    const fits = Prompt.fromIds(new Uint32Array(99).fill(97));
    expect((await at.client.generate(fits, { max_tokens: 1 }).collect()).facts.promptTokens).toBe(99);
  });

  test("is the server's to refuse where it does not name its models", async () => {
    await using at = await start({ maxModelLength: 100 });
    at.server.fail({ kind: "status", status: 404 }, { path: "/v1/models" });
    expect((await failing(at.client.generate(tooLong).collect())).details).toMatchObject({
      status: 400,
      maxModelLength: 100,
    });
  });

  test("the question after the context does not outlive the caller's patience", async () => {
    await using at = await start();
    at.server.fail({ kind: "hang", when: "before_headers" }, { path: "/v1/models" });
    const controller = new AbortController();
    const work = failing(at.client.generate(tooLong, {}, { signal: controller.signal }).collect());
    await sleep(30);
    controller.abort();
    expect((await work).code).toBe("PS_ABORTED");
  });
});

test("render, tokenize, detokenize and abort", async () => {
  await using at = await start();
  const prompt = await at.client.render({ messages: [{ role: "user", content: "é" }] });
  expect(await at.client.detokenize(prompt)).toBe("<|im_start|>user\né<|im_end|>\n<|im_start|>assistant\n");
  expect((await at.client.tokenize("é")).tokenIds()).toEqual(Uint32Array.of(0xc3, 0xa9));
  at.server.answer({ text: "x".repeat(1_000), tokenDelayMs: 5 });
  const answer = at.client.generate(Prompt.fromIds([1]), { max_tokens: 1_000 }, { requestId: "turn" });
  let reason = "";
  for await (const chunk of answer) {
    if (chunk.type === "tokens" || chunk.type === "text")
      await at.client.abort([answer.facts.requestId ?? ""]);
    if (chunk.type === "finish") reason = chunk.reason;
  }
  expect(reason).toBe("abort");
  expect(answer.facts.requestId).toContain("turn");
});

test("errors of these calls quote neither text nor ids", async () => {
  await using at = await start();
  at.server.fail(
    { kind: "status", status: 400, body: '{"error":{"message":"bad: private words of a user"}}' },
    { path: "/tokenize" },
  );
  const error = await failing(at.client.tokenize("private words of a user"));
  expect(error.code).toBe("PS_HTTP_STATUS");
  expect(error.message).not.toContain("private words");
});

test("metrics are read as Prometheus writes them", () => {
  const metrics = new Metrics(
    [
      "# HELP a_total Help with a_total 7",
      "# TYPE a_total counter",
      'a_total{engine="0",name="x, \\"y\\" \\\\ {z}"} 1.5e3',
      'a_total{engine="1"} 2 1700000000000',
      "b +Inf",
      'c_bucket{le="+Inf"} 3',
      "not a metric line at all",
      "",
    ].join("\n"),
  );
  expect(metrics.sum("a_total")).toBe(1_502);
  expect(metrics.samples("a_total")[0]?.labels).toEqual({ engine: "0", name: 'x, "y" \\ {z}' });
  expect(metrics.sum("b")).toBe(Number.POSITIVE_INFINITY);
  expect(metrics.samples("c_bucket")[0]?.labels).toEqual({ le: "+Inf" });
  expect(metrics.sum("d")).toBeNull();
});
