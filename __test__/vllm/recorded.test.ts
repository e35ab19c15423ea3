/** Answers recorded from vLLM 0.32: what the client makes of the real server's bytes. */

import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Chunk, type ErrorCode, Prompt, PromptseamError, VllmClient } from "../../ts/index.ts";
import { type Recorded, recorded, startReplay } from "./replay.ts";

let replay: Awaited<ReturnType<typeof startReplay>>;
let client: VllmClient;

beforeAll(async () => {
  replay = await startReplay();
  client = new VllmClient({ baseUrl: replay.baseUrl });
});

afterAll(async () => {
  await client.close();
  await replay.close();
});

const messages = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Say hé." },
];
const PROMPT = [
  151644, 8948, 198, 3430, 9814, 13, 151645, 198, 151644, 872, 198, 45764, 87923, 13, 151645, 198, 151644,
  77091, 198,
];
const SAMPLED_TEXT = [39, 18503, 385, 75402, 21894, 102819, 61804, 235, 145375, 0, 151645];
const SAMPLED_REASONING = [
  151667, 198, 39814, 11, 3958, 75402, 21894, 61804, 235, 624, 151668, 271, 39, 18503, 385, 75402, 21894,
  102819, 61804, 235, 145375, 0, 151645,
];
const CALLS = [
  { name: "read_file", arguments: '{"path": "a.txt"}' },
  { name: "read_file", arguments: '{"path": "b é.txt"}' },
];
const prompt = Prompt.fromIds(PROMPT);

function ask(name: string) {
  replay.serve(recorded(name));
  const stream = name.includes("stream") || name === "gen-echo" || name === "chat-n2";
  if (name.startsWith("gen")) return client.generate(prompt, {}, { stream });
  if (name.startsWith("cmpl")) return client.complete(prompt, {}, { stream });
  return client.chat(name === "chat-n2" ? { messages, n: 2 } : { messages }, { stream });
}

describe("recorded answers", () => {
  test.each(["chat-stream-reasoning", "chat-stream-logprobs", "chat-full-logprobs"])(
    "reasoning: %s",
    async (name) => {
      const answer = await ask(name).collect();
      expect(answer.reasoning).toBe("\nSure, é 日本 👍.\n");
      expect(answer.text).toBe("\n\nHéllo 日本語 👍🏽!");
      expect(answer.finishReason).toBe("stop");
      expect([...(answer.facts.sampledIds() ?? [])]).toEqual(SAMPLED_REASONING);
      expect(answer.facts).toMatchObject({
        model: "qwen3",
        promptTokens: 19,
        completionTokens: 23,
        cachedTokens: 0,
        complete: true,
      });
    },
  );

  test.each(["chat-stream-tools", "chat-full-tools"])("tool calls: %s", async (name) => {
    const answer = await ask(name).collect();
    expect(answer.reasoning).toBe("\nHmm.\n");
    expect(answer.text).toBe("\n\nReading.\n");
    expect(answer.toolCalls.map(({ id, ...call }) => call)).toEqual(CALLS);
    expect(answer.toolCalls.every((call) => call.id?.startsWith("chatcmpl-tool-"))).toBe(true);
    expect(answer.finishReason).toBe("tool_calls");
    expect(answer.facts.sampledIds()?.length).toBe(51);
    expect(answer.facts.promptTokenIds?.length).toBe(150);
    expect(answer.facts.promptTokens).toBe(150);
    expect(answer.facts.reasoningTokens).toBe(3);
  });

  test.each(["gen-stream-text", "cmpl-stream", "cmpl-full"])("text: %s", async (name) => {
    const answer = await ask(name).collect();
    expect(answer.text).toBe("Héllo 日本語 👍🏽!");
    expect([...(answer.facts.sampledIds() ?? [])]).toEqual(SAMPLED_TEXT);
    expect(answer.finishReason).toBe("stop");
    expect(answer.facts).toMatchObject({ promptTokens: 19, completionTokens: 11, cachedTokens: 0 });
    expect(answer.facts.promptTokenIds?.equals(prompt) ?? null).toBe(name.startsWith("cmpl") ? true : null);
  });

  test.each(["gen-stream", "gen-full"])("ids without text: %s", async (name) => {
    const ids: number[] = [];
    for await (const chunk of ask(name)) if (chunk.type === "tokens") ids.push(...chunk.ids);
    expect(ids).toEqual(SAMPLED_TEXT);
  });

  test("cut off by max_tokens, in every form", async () => {
    const texts: string[] = [];
    for (const name of ["chat-ids-stream", "chat-ids-full", "gen-full-text", "cmpl-stream-lp"]) {
      const answer = await ask(name).collect();
      expect(answer.finishReason, name).toBe("length");
      texts.push(answer.reasoning + answer.text);
    }
    expect(texts).toEqual(["\nSure", "\nSure", "Héllo 日本", "Héllo"]);
  });

  test("the generate way's echo and its missing usage", async () => {
    const { facts } = await ask("gen-echo").collect();
    expect([...(facts.promptTokenIds?.tokenIds() ?? [])]).toEqual([1, 2, 3]);
    expect(facts.promptTokens).toBeNull();
    expect([...(facts.sampledIds() ?? [])]).toEqual([39, 18503]);
  });

  test("two choices stay apart", async () => {
    const answer = ask("chat-n2");
    const texts = ["", ""];
    for await (const chunk of answer) if (chunk.type === "reasoning") texts[chunk.index] += chunk.text;
    expect(texts).toEqual(["Héllo", "Héllo"]);
    expect([0, 1].map((index) => answer.facts.finishReason(index))).toEqual(["length", "length"]);
    expect([...(answer.facts.sampledIds(1) ?? [])]).toEqual([39, 18503, 385]);
    expect(answer.facts.completionTokens).toBe(6);
  });

  test("chunks come in order: start first, with the prompt's length, usage once and last", async () => {
    const chunks: Chunk[] = [];
    for await (const chunk of ask("chat-stream-reasoning")) chunks.push(chunk);
    expect(chunks[0]).toMatchObject({ type: "start", promptTokens: 19 });
    expect(chunks.filter((chunk) => chunk.type === "usage").length).toBe(1);
    expect(chunks.slice(-2).map((chunk) => chunk.type)).toEqual(["finish", "usage"]);
    expect(chunks.some((chunk) => chunk.type === "logprobs")).toBe(false);
  });

  test("the same chunks come out however the bytes arrive", async () => {
    const names = ["chat-stream-tools", "chat-stream-reasoning", "cmpl-stream", "gen-stream-text"];
    const chunksOf = async (name: string, cuts: readonly number[]) => {
      const answer = ask(name);
      replay.serve(recorded(name), cuts);
      const chunks: Chunk[] = [];
      for await (const chunk of answer) chunks.push(chunk);
      return chunks;
    };
    const whole = new Map<string, Chunk[]>();
    for (const name of names) whole.set(name, await chunksOf(name, []));
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names), fc.array(fc.nat(), { maxLength: 12 }), async (name, at) => {
        const { length } = recorded(name).body;
        const cuts = at.map((cut) => cut % length).sort((a, b) => a - b);
        expect(await chunksOf(name, cuts)).toEqual(whole.get(name));
      }),
      { numRuns: 60 },
    );
  });
});

describe("recorded refusals", () => {
  test.each<[string, ErrorCode, Partial<PromptseamError["details"]>]>([
    ["overflow-ids", "PS_CONTEXT_OVERFLOW", { status: 400, promptTokens: 200_001, maxModelLength: 200_000 }],
    [
      "overflow-msgs",
      "PS_CONTEXT_OVERFLOW",
      { promptTokens: 200_001, maxModelLength: 200_000, param: "input_tokens" },
    ],
    ["overflow-gen", "PS_CONTEXT_OVERFLOW", { promptTokens: 200_001, maxModelLength: 200_000 }],
    ["unknown-model", "PS_HTTP_STATUS", { status: 404, type: "NotFoundError", param: "model" }],
    ["oov", "PS_HTTP_STATUS", { status: 400, param: "kv_transfer_params.prompt_token_ids" }],
    ["nonint", "PS_HTTP_STATUS", { status: 400, param: "kv_transfer_params.prompt_token_ids" }],
    ["gen-str", "PS_HTTP_STATUS", { status: 400, type: "Bad Request", param: "body.token_ids.1" }],
    ["malformed", "PS_HTTP_STATUS", { status: 400 }],
    ["unauthorized", "PS_HTTP_STATUS", { status: 401 }],
    ["404", "PS_HTTP_STATUS", { status: 404 }],
    ["405", "PS_HTTP_STATUS", { status: 405 }],
  ])("%s is %s", async (name, code, details) => {
    const error = await rejection(name);
    expect(error.code).toBe(code);
    expect(error.details).toMatchObject({ retryable: false, ...details });
  });

  test.each(["gen-oov-stream", "cmpl-oov-stream"])("inside a stream with status 200: %s", async (name) => {
    const error = await rejection(name);
    expect(error.code).toBe("PS_SERVER");
    expect(error.details).toMatchObject({ retryable: false, status: 400, type: "BadRequestError" });
    expect(error.message).toContain("Token id 999999 is out of vocabulary");
  });

  test("a context overflow is one inside a stream too", async () => {
    const { body } = recorded("overflow-gen");
    const stream = Buffer.from(`data: ${body.toString()}\n\ndata: [DONE]\n\n`);
    const error = await rejectionOf({ status: 200, contentType: "text/event-stream", body: stream });
    expect(error.code).toBe("PS_CONTEXT_OVERFLOW");
    expect(error.details).toMatchObject({ promptTokens: 200_001, maxModelLength: 200_000, retryable: false });
  });

  test("messages say what the server said, without the input that it quotes", async () => {
    expect((await rejection("oov")).message).toContain("Token id 999999 is out of vocabulary");
    expect((await rejection("unknown-model")).message).toContain("`nope` does not exist");
    expect((await rejection("nomsg")).message).toContain("body.messages: Field required");
    expect((await rejection("gen-neg")).message).toContain("token_ids must not contain negative values");
    const quoting = await rejection("badrole");
    expect(recorded("badrole").body.toString()).toContain("hello there secret prompt");
    expect(quoting.message).toContain("body.messages: Input should be a valid list");
    expect(quoting.message).not.toContain("secret prompt");
  });
});

function rejection(name: string): Promise<PromptseamError> {
  return rejectionOf(recorded(name));
}

async function rejectionOf(answer: Recorded): Promise<PromptseamError> {
  replay.serve(answer);
  const error = await client
    .chat({ messages })
    .collect()
    .catch((reason: unknown) => reason);
  if (!PromptseamError.isInstance(error)) throw new Error(`not a PromptseamError: ${String(error)}`);
  return error;
}
