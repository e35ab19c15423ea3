/** Every way in against the real engine: the ids it sees, the ids it samples, and what it makes of them. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Answer, type GenerateOptions, type Model, Prompt, VllmClient } from "../../ts/index.ts";
import { EVERY_CAPABILITY } from "../support.ts";
import { BASE_URL, FAMILY, loadModel, longRequest } from "./support.ts";

let model: Model;
let client: VllmClient;

beforeAll(async () => {
  model = await loadModel();
  client = new VllmClient({ baseUrl: BASE_URL, timeouts: { firstTokenMs: 120_000 } });
});
afterAll(async () => {
  await client.close();
  model.close();
});

const TOOLS = [
  {
    type: "function",
    function: {
      name: "read_file",
      description: "Reads a file.",
      parameters: { type: "object", properties: { path: { type: "string" } }, required: ["path"] },
    },
  },
];
const request = {
  messages: [
    { role: "user", content: "Was steht in der Datei? 日本 👍" },
    { role: "assistant", content: "Welche?" },
    { role: "user", content: `a.txt, which is long: ${"one two three, ".repeat(200)}` },
  ],
  tools: TOOLS,
};

/** Ids for the engine to sample: the tokens of a text, then the token that ends the answer. */
async function script(text: string): Promise<Uint32Array> {
  const stop = model.info.stopTokenIds[0];
  if (stop === undefined) throw new Error("the model names no stop token");
  return Uint32Array.from([...(await model.encode(text)), stop]);
}

const play = (ids: Uint32Array) => ({ vllm_xargs: { script: ids.join(" ") } });

type Way = (prompt: Prompt, ids: Uint32Array, options: GenerateOptions) => Answer;

const WAYS: Record<string, Way> = {
  messages: (_, ids, options) => client.chat({ ...request, ...play(ids), max_tokens: 100 }, options),
  "chat ids": (prompt, ids, options) =>
    client.chat({ ...request, ...play(ids), max_tokens: 100 }, { ...options, prompt }),
  "chat ids beside the real messages": (prompt, ids, options) =>
    client.chat({ ...request, ...play(ids), max_tokens: 100 }, { ...options, prompt, sendMessages: true }),
  "completion ids": (prompt, ids, options) =>
    client.complete(prompt, { ...play(ids), max_tokens: 100 }, options),
  "generate ids": (prompt, ids, options) =>
    client.generate(prompt, { max_tokens: 100, extra_args: { script: ids.join(" ") } }, options),
};

describe.each(Object.entries(WAYS))("%s", (name, send) => {
  describe.each([true, false])("streamed: %s", (stream) => {
    test.each(["token_ids", "logprobs"] as const)("sampled ids by %s", async (sampledIds) => {
      const prompt = await model.render(request);
      const ids = await script("Äpfel, 苹果 and 🍎.");
      const answer = send(prompt, ids, { stream, sampledIds });
      const { facts, text, reasoning, finishReason } = await answer.collect();
      expect(finishReason).toBe("stop");
      expect(facts.promptTokens).toBe(prompt.length);
      expect(facts.complete).toBe(true);
      expect(facts.idsIgnored).toBe(false);
      expect(facts.attempts).toBe(1);
      // Log probabilities leave the stop token out on some ways; the ids never do.
      const sampled = facts.sampledIds() ?? new Uint32Array();
      if (sampledIds === "token_ids" || name === "generate ids") expect(sampled).toEqual(ids);
      else expect(sampled).toEqual(ids.subarray(0, sampled.length));
      expect(sampled.length).toBeGreaterThanOrEqual(ids.length - 1);
      // Qwen3's parser takes what no </think> follows for reasoning.
      if (name !== "generate ids" || text !== "") expect(reasoning + text).toBe("Äpfel, 苹果 and 🍎.");
      // The engine's own word for what it saw.
      if (sampledIds === "token_ids" && name !== "generate ids") {
        const { promptTokenIds } = facts;
        if (promptTokenIds === null) throw new Error("the server echoed no prompt");
        expect(promptTokenIds.equals(prompt)).toBe(true);
      }
    });
  });
});

test("after the first way the engine finds the prompt in its cache on every other", async () => {
  const prompt = await model.render({
    messages: [{ role: "user", content: `${Date.now()} ${"word ".repeat(600)}` }],
  });
  const ids = await script("x");
  const cached: (number | null)[] = [];
  for (const name of ["completion ids", "chat ids", "generate ids"]) {
    const { facts } = await (WAYS[name] as Way)(prompt, ids, {}).collect();
    cached.push(facts.cachedTokens);
  }
  expect(cached[0]).toBe(0);
  // Whole blocks, and never the last token.
  const [, second, third] = cached;
  expect(second).toBeGreaterThan(prompt.length - 2 * 128);
  expect(third).toBe(second);
});

/** A call as each family's model writes it, and as its parser reads it. */
const CALLS: Record<string, string> = {
  qwen3: '<tool_call>\n{"name": "read_file", "arguments": {"path": "ä.txt"}}\n</tool_call>',
  llama3: '{"name": "read_file", "parameters": {"path": "ä.txt"}}',
  mistral: '[TOOL_CALLS][{"name": "read_file", "arguments": {"path": "ä.txt"}}]',
};

describe.each(["messages", "chat ids"])("%s: what the server parses", (name) => {
  test.each([true, false])("a tool call, streamed: %s", async (stream) => {
    const prompt = await model.render(request);
    const ids = await script(CALLS[FAMILY] ?? "");
    const { toolCalls, finishReason, facts } = await (WAYS[name] as Way)(prompt, ids, {
      stream,
      sampledIds: "token_ids",
    }).collect();
    expect(toolCalls).toHaveLength(1);
    expect(toolCalls[0]?.name).toBe("read_file");
    expect(toolCalls[0]?.id).toBeTruthy();
    expect(JSON.parse(toolCalls[0]?.arguments ?? "")).toEqual({ path: "ä.txt" });
    expect(finishReason).toBe("tool_calls");
    expect(facts.sampledIds()).toEqual(ids);
  });

  // The other families are served without a reasoning parser.
  if (FAMILY !== "qwen3") return;
  test.each([true, false])("reasoning, then a call, streamed: %s", async (stream) => {
    const prompt = await model.render(request);
    const ids = await script(`<think>\nI must read it. 読む\n</think>\n\nLet me look.\n${CALLS["qwen3"]}`);
    const { reasoning, text, toolCalls, facts } = await (WAYS[name] as Way)(prompt, ids, {
      stream,
      sampledIds: "token_ids",
    }).collect();
    expect(reasoning.trim()).toBe("I must read it. 読む");
    expect(text.trim()).toBe("Let me look.");
    expect(toolCalls.map((call) => call.name)).toEqual(["read_file"]);
    expect(facts.sampledIds()).toEqual(ids);
  });
});

test("28k tokens by every way: the engine sees the same ids, and a stand-in saves the messages", {
  timeout: 300_000,
}, async () => {
  const long = await longRequest(model, 28_000);
  const prompt = await model.render(long);
  const ids = await script("Done.");
  const asked = { ...long, ...play(ids), max_tokens: 10 };
  const answers = [
    client.chat(asked, { sampledIds: "token_ids" }),
    client.chat(asked, { sampledIds: "token_ids", prompt }),
    client.complete(prompt, { ...play(ids), max_tokens: 10 }, { sampledIds: "token_ids" }),
  ];
  for (const answer of answers) {
    const { facts } = await answer.collect();
    expect(facts.promptTokenIds?.equals(prompt)).toBe(true);
    expect(facts.sampledIds()).toEqual(ids);
  }
  const withMessages = client.chat(asked, { prompt, sendMessages: true });
  await withMessages.collect();
  expect((withMessages.bodyBytes ?? 0) - ((answers[1] as Answer).bodyBytes ?? 0)).toBeGreaterThan(40_000);
});

test("capabilities: everything that this server can do, found out once", async () => {
  await using fresh = new VllmClient({ baseUrl: BASE_URL });
  const found = await fresh.capabilities();
  expect(found).toEqual({
    version: expect.stringMatching(/^0\.\d+/),
    model: FAMILY,
    maxModelLength: 131_072,
    ...EVERY_CAPABILITY,
  });
  const before = (await fresh.metrics()).sum("vllm:prompt_tokens_total");
  expect(await fresh.capabilities()).toBe(found);
  expect((await fresh.metrics()).sum("vllm:prompt_tokens_total")).toBe(before);
});

test("tokenize and detokenize agree with the model", async () => {
  const text = "Ein Text, 日本語, 👩‍👩‍👧, <|im_end|> [INST]";
  const prompt = await client.tokenize(text);
  expect(prompt.tokenIds()).toEqual(await model.encode(text));
  expect(await client.detokenize(prompt)).toBe(model.decode(prompt));
});

test("models, health and metrics", async () => {
  expect(await client.models()).toEqual([{ id: FAMILY, maxModelLength: 131_072, root: expect.any(String) }]);
  await client.health();
  const metrics = await client.metrics();
  expect(metrics.sum("vllm:prefix_cache_queries_total")).toBeGreaterThan(0);
  expect(metrics.samples("vllm:cache_config_info")[0]?.labels["enable_prefix_caching"]).toBe("True");
});

test("a prompt of any ids, the vocabulary's last one too, comes to the engine as it is", async () => {
  const ids = Uint32Array.from([0, 1, 2, model.info.idLimit - 1, 5, 5, 5]);
  const { facts } = await client
    .complete(Prompt.fromIds(ids), { max_tokens: 1 }, { sampledIds: "token_ids" })
    .collect();
  expect(facts.promptTokenIds?.tokenIds()).toEqual(ids);
});
