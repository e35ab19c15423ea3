import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ErrorCode, Model, Prompt, PromptseamError } from "../ts/index.ts";
import { golden, modelFolder } from "./support.ts";

let model: Model;
let scratch: string;

beforeAll(async () => {
  model = await Model.load(modelFolder("qwen3"));
  scratch = mkdtempSync(join(tmpdir(), "promptseam-model-"));
});

afterAll(() => {
  model.close();
  rmSync(scratch, { recursive: true });
});

async function failing(work: Promise<unknown> | (() => unknown)): Promise<PromptseamError> {
  try {
    await (typeof work === "function" ? work() : work);
  } catch (error) {
    expect(PromptseamError.isInstance(error), String(error)).toBe(true);
    return error as PromptseamError;
  }
  throw new Error("it did not fail");
}

const user = (content: unknown) => ({ messages: [{ role: "user", content }] });

describe("render", () => {
  test("gives vLLM's ids for golden requests, as object and as bytes, whole and after the line before", async () => {
    let previous: Prompt | undefined;
    const lines = golden("qwen3").slice(0, 24);
    expect(lines.length).toBe(24);
    for (const line of lines) {
      const now = new Date(`${line.now}T12:00:00Z`);
      const bytes = Buffer.from(JSON.stringify(line.request));
      const expected = Uint32Array.from(line.token_ids);
      const whole = await model.render(line.request, { now });
      expect(whole.tokenIds()).toEqual(expected);
      const after = await model.render(bytes, { now, ...(previous === undefined ? {} : { previous }) });
      expect(after.tokenIds()).toEqual(expected);
      expect(after.equals(whole)).toBe(true);
      previous = after;
    }
  });

  test("gives vLLM's ids for gpt-oss, which has no chat template", async () => {
    const harmony = await Model.load(modelFolder("gpt-oss"));
    expect(harmony.info.hasChatTemplate).toBe(true);
    let previous: Prompt | undefined;
    for (const line of golden("gpt-oss").slice(0, 24)) {
      const now = new Date(`${line.now}T12:00:00Z`);
      const prompt = await harmony.render(line.request, {
        now,
        ...(previous === undefined ? {} : { previous }),
      });
      expect(prompt.tokenIds()).toEqual(Uint32Array.from(line.token_ids));
      previous = prompt;
    }
    const text = await harmony.renderText(user("<|end|>"), { now: new Date(0) });
    expect(text.endsWith("<|start|>user<|message|><|end|><|end|><|start|>assistant")).toBe(true);
    harmony.close();
  });

  test("keeps the ids of the turn before", async () => {
    const first = await model.render(user("word ".repeat(3000)));
    const messages = [...user("word ".repeat(3000)).messages, { role: "assistant", content: "yes" }];
    const request = { messages: [...messages, { role: "user", content: "more" }] };
    const second = await model.render(request, { previous: first });
    const diff = first.diff(second);
    expect(second.reused).toBeGreaterThan(3000);
    expect(diff.commonPrefix).toBeGreaterThanOrEqual(second.reused);
    expect(diff.boundary).toBe(second.reused);
    expect(diff.removed + diff.commonPrefix).toBe(first.length);
    expect(second.equals(await model.render(request))).toBe(true);
  });

  test("a prompt of another model is no help and no harm", async () => {
    await using other = await Model.load(modelFolder("mistral"));
    const foreign = await other.render(user("hello"));
    const prompt = await model.render(user("hello"), { previous: foreign });
    expect(prompt.reused).toBe(0);
    expect(prompt.equals(await model.render(user("hello")))).toBe(true);
  });

  test.each<[string, unknown, ErrorCode]>([
    ["HTML", Buffer.from("<html>"), "PS_INVALID_JSON"],
    ["nothing", Buffer.alloc(0), "PS_INVALID_JSON"],
    ["invalid UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]), "PS_INVALID_JSON"],
    ["deep JSON", Buffer.from(`{"messages":${"[".repeat(200_000)}`), "PS_INVALID_JSON"],
    ["a list", Buffer.from("[]"), "PS_INVALID_REQUEST"],
    ["no messages", {}, "PS_INVALID_REQUEST"],
    ["messages of a wrong type", { messages: [7] }, "PS_INVALID_REQUEST"],
    ["a lone surrogate", user("\ud800"), "PS_INVALID_UNICODE"],
    ["an image", user([{ type: "image_url", image_url: { url: "data:," } }]), "PS_UNSUPPORTED_CONTENT"],
    ["a number", 7, "PS_INVALID_ARGUMENT"],
    ["a BigInt inside", { messages: [{ role: "user", content: 1n }] }, "PS_INVALID_REQUEST"],
  ])("refuses %s", async (_, request, code) => {
    const error = await failing(() => model.render(request as Uint8Array));
    expect(error.code).toBe(code);
    expect(error.message.length).toBeGreaterThan(10);
  });

  test("takes NUL, NaN, duplicate keys and 10,000 messages", async () => {
    expect((await model.render(user("a\0b"))).length).toBeGreaterThan(5);
    const odd = Buffer.from('{"temperature":NaN,"messages":[],"messages":[{"role":"user","content":"x"}]}');
    expect((await model.render(odd)).equals(await model.render(user("x")))).toBe(true);
    const messages = Array.from({ length: 10_000 }, (_, index) => ({
      role: index % 2 ? "assistant" : "user",
      content: "x",
    }));
    expect(
      (await model.render({ messages: [...messages, { role: "user", content: "y" }] })).length,
    ).toBeGreaterThan(50_000);
  });

  test("refuses what is over the limits, in words that name them", async () => {
    await using small = await Model.load(modelFolder("qwen3"), { maxModelLength: 100, maxBytes: 10_000 });
    const long = await failing(small.render(user("word ".repeat(200))));
    expect(long.code).toBe("PS_CONTEXT_OVERFLOW");
    expect(long.message).toMatch(/100/);
    const large = await failing(small.render(user("word ".repeat(20_000))));
    expect(large.code).toBe("PS_TOO_LARGE");
    expect(large.message).toMatch(/10000/);
    expect((await failing(small.encode("x".repeat(20_000)))).code).toBe("PS_TOO_LARGE");
  });

  test("the template's own words reach the caller", async () => {
    await using llama = await Model.load(modelFolder("mistral"));
    const error = await failing(
      llama.render({
        messages: [
          { role: "assistant", content: "x" },
          { role: "assistant", content: "y" },
        ],
      }),
    );
    expect(error.code).toBe("PS_TEMPLATE_RAISED");
    expect(error.message).toMatch(/alternat/);
  });

  test("prints the date it is given", async () => {
    await using dated = await Model.load(modelFolder("qwen3"), {
      chatTemplate: "{{ strftime_now('%Y-%m-%d') }} {{ messages[0].content }}",
    });
    expect(await dated.renderText(user("x"), { now: new Date(2025, 1, 3, 4) })).toBe("2025-02-03 x");
    expect((await failing(dated.renderText(user("x"), { now: new Date(Number.NaN) }))).code).toBe(
      "PS_INVALID_ARGUMENT",
    );
  });
});

describe("bodies", () => {
  test("written ahead, aside or at once, they are the same bytes", async () => {
    for (const content of ["short", "a longer text, 日本 ".repeat(4_000)]) {
      const plain = await model.render(user(content));
      const ids = `[${plain.tokenIds().join()}]`;
      // The last one has no room before the ids.
      for (const before of ['{"a":', '{"ü":"日本","ids":', `{"tools":"${"x".repeat(40_000)}","ids":`]) {
        const ahead = await model.render(user(content), { forSending: true });
        const expected = `${before}${ids}}}`;
        expect((await ahead.toBody(before, "}}")).toString()).toBe(expected);
        // Only the first body finds them written.
        expect((await ahead.toBody(before, "}}")).toString()).toBe(expected);
        expect((await plain.toBody(before, "}}")).toString()).toBe(expected);
        expect(plain.writeJson(before, "}}").toString()).toBe(expected);
      }
    }
  });

  test("a closed prompt has none, written ahead or not", async () => {
    for (const forSending of [true, false]) {
      const prompt = await model.render(user("x"), { forSending });
      prompt.close();
      expect((await failing(prompt.toBody("{", "}"))).code).toBe("PS_CLOSED");
    }
  });
});

describe("cancelling and overload", () => {
  test("an aborted signal stops a call before it starts", async () => {
    const error = await failing(model.render(user("x"), { signal: AbortSignal.abort("because") }));
    expect(error.code).toBe("PS_ABORTED");
    expect(error.cause).toBe("because");
  });

  test("an abort while it waits rejects at once, and the model lives on", async () => {
    const controller = new AbortController();
    const running = model.render(user("word ".repeat(200_000)), { signal: controller.signal });
    setTimeout(() => controller.abort(), 1);
    expect((await failing(running)).code).toBe("PS_ABORTED");
    expect((await model.render(user("x"))).length).toBeGreaterThan(3);
  });

  test("a full queue is a typed error, and what was queued still runs", async () => {
    await using narrow = await Model.load(modelFolder("qwen3"), { threads: 1, queueLimit: 2 });
    const body = Buffer.from(JSON.stringify(user("word ".repeat(50_000))));
    const calls = await Promise.allSettled(Array.from({ length: 20 }, () => narrow.render(body)));
    const refused = calls
      .filter((call) => call.status === "rejected")
      .map((call) => (call.reason as PromptseamError).code);
    expect(new Set(refused)).toEqual(new Set(["PS_OVERLOADED"]));
    expect(calls.filter((call) => call.status === "fulfilled").length).toBeGreaterThanOrEqual(2);
  });

  test("a closed model refuses; calls under way still answer; closing twice is fine", async () => {
    const closing = await Model.load(modelFolder("qwen3"));
    const running = closing.render(user("word ".repeat(20_000)));
    closing.close();
    closing.close();
    expect((await running).length).toBeGreaterThan(20_000);
    expect((await failing(closing.render(user("x")))).code).toBe("PS_CLOSED");
    expect((await failing(() => closing.decode([1]))).code).toBe("PS_CLOSED");
  });
});

describe("encode and decode", () => {
  test("special tokens are recognized, or taken as plain text", async () => {
    const text = "a<|im_start|>b<tool_call>";
    const recognized = await model.encode(text);
    const plain = await model.encode(text, { special: "text" });
    const added = new Set(model.info.boundaries.map((boundary) => boundary.id));
    expect(recognized.filter((id) => added.has(id)).length).toBe(2);
    expect(plain.some((id) => added.has(id))).toBe(false);
    expect(model.decode(recognized)).toBe(text);
    expect(model.decode(plain)).toBe(text);
    expect(model.decode(recognized, { skipSpecial: true })).toBe("ab<tool_call>");
  });

  test("a stream never gives half a character", async () => {
    const text = "日本語 👨‍👩‍👧 é ✓ <|im_end|> done";
    const stream = model.decodeStream();
    const pieces = [...(await model.encode(text))].map((id) => stream.push([id]));
    for (const piece of pieces) expect(piece).not.toMatch(/\ufffd/);
    expect(pieces.join("") + stream.finish()).toBe(text);
    expect((await failing(() => stream.push([1]))).code).toBe("PS_CLOSED");
  });

  test("looks tokens up both ways", () => {
    expect(model.tokenToId("<|im_start|>")).toBe(151644);
    expect(model.idToToken(151644)).toBe("<|im_start|>");
    expect(model.tokenToId("no such token at all")).toBeUndefined();
    expect(model.idToToken(4_000_000_000)).toBeUndefined();
  });

  test("refuses ids outside the vocabulary and text that is no Unicode", async () => {
    expect((await failing(() => model.decode([1, 4_000_000]))).code).toBe("PS_INVALID_TOKEN_ID");
    expect((await failing(() => model.decode([-1]))).code).toBe("PS_INVALID_TOKEN_ID");
    expect((await failing(() => model.decode([1.5]))).code).toBe("PS_INVALID_TOKEN_ID");
    expect((await failing(model.encode("\udfff"))).code).toBe("PS_INVALID_UNICODE");
  });

  test("20 MB of one character end in bounded time", async () => {
    const start = performance.now();
    const ids = await model.encode("a".repeat(20_000_000));
    expect(ids.length).toBeGreaterThan(100_000);
    expect(performance.now() - start).toBeLessThan(60_000);
  });
});

describe("load", () => {
  test("says what it found", () => {
    expect(model.info.engine).toBe("fast");
    expect(model.info.fallback).toBeUndefined();
    expect(model.info.vocabSize).toBe(151669);
    expect(model.info.stopTokenIds).toEqual([151645]);
    expect(model.info.boundaries.filter((boundary) => !boundary.safe)).toEqual([]);
  });

  test("names a missing folder, a missing file and a broken file", async () => {
    const missing = await failing(Model.load(join(scratch, "nowhere")));
    expect(missing.code).toBe("PS_MODEL_NOT_FOUND");
    expect((await failing(Model.load("no-such-org/no-such-model"))).code).toBe("PS_MODEL_NOT_FOUND");
    expect((await failing(Model.load(scratch))).code).toBe("PS_MODEL_FILE");
    writeFileSync(join(scratch, "tokenizer.json"), "{");
    expect((await failing(Model.load(scratch))).message).toMatch(/tokenizer\.json/);
    writeFileSync(join(scratch, "tokenizer.json"), '{"model":{"type":"Strange"}}');
    expect((await failing(Model.load(scratch))).code).toBe("PS_TOKENIZER_UNSUPPORTED");
    expect((await failing(Model.load(""))).code).toBe("PS_MODEL_NOT_FOUND");
  });

  test("takes explicit files, and works without a template until one is needed", async () => {
    await using bare = await Model.load({ tokenizer: join(modelFolder("qwen3"), "tokenizer.json") });
    expect(bare.info.hasChatTemplate).toBe(false);
    expect(await bare.encode("hello")).toEqual(await model.encode("hello"));
    expect((await failing(bare.render(user("x")))).code).toBe("PS_TEMPLATE_MISSING");
  });

  test("a template that does not parse names its line", async () => {
    const error = await failing(Model.load(modelFolder("qwen3"), { chatTemplate: "a\n{% if %}" }));
    expect(error.code).toBe("PS_TEMPLATE_SYNTAX");
    expect(error.message).toMatch(/line 2/);
  });

  test("bad options are refused", async () => {
    expect((await failing(Model.load(modelFolder("qwen3"), { threads: 0 }))).code).toBe(
      "PS_INVALID_ARGUMENT",
    );
    expect((await failing(Model.load(modelFolder("qwen3"), { maxBytes: 1.5 }))).code).toBe(
      "PS_INVALID_ARGUMENT",
    );
  });
});

describe("Prompt", () => {
  test("diffs and fingerprints plain token arrays", () => {
    const a = Prompt.fromIds([1, 2, 3, 4]);
    const b = Prompt.fromIds(Uint32Array.of(1, 2, 9));
    expect(a.diff(b)).toEqual({ commonPrefix: 2, boundary: 0, removed: 2, appended: 1 });
    expect(a.fingerprint(2)).toBe(b.fingerprint(2));
    expect(a.fingerprint()).not.toBe(b.fingerprint());
    expect(a.fingerprint()).toMatch(/^[0-9a-f]{32}$/);
    expect(b.hasPrefix(a.fingerprint(2), 2)).toBe(true);
    expect(b.hasPrefix(a.fingerprint(3), 3)).toBe(false);
    expect(a.continued([5], 2).tokenIds()).toEqual(Uint32Array.of(1, 2, 5));
    expect(a.writeJson('{"x":', "}").toString()).toBe('{"x":[1,2,3,4]}');
    expect(a.writeJson('{"x":', "}", 3).toString()).toBe('{"x":[4]}');
  });

  test("the hash of a prefix is BLAKE3 over little-endian words, as Python's blake3 has it", async () => {
    const prompt = Prompt.fromIds(Uint32Array.from({ length: 2_600 }, (_, at) => at * 7_919 * 31));
    // From blake3 1.0.11 over struct.pack("<I", ...).
    for (const [tokens, hash] of [
      [0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"],
      [3, "ad10fe48fa6708c88b2a0a04c3e47c74b394437adcb07d3d830b3c24691ffceb"],
      [2_500, "7c2de9ecbb0f15665ee47a1b54f9b5a185a45f5929c3d014a0fcde166289c0a4"],
    ] as const) {
      expect(prompt.hash(tokens)).toBe(hash);
      expect(Prompt.fromIds(prompt.tokenIds().subarray(0, tokens)).hash()).toBe(hash);
    }
    expect((await failing(() => prompt.hash(2_601))).code).toBe("PS_INVALID_ARGUMENT");
  });

  test("refuses what are no ids", async () => {
    for (const ids of [[1.5], [-1], [2 ** 32], [Number.NaN], ["1"]] as number[][]) {
      expect((await failing(() => Prompt.fromIds(ids))).code).toBe("PS_INVALID_TOKEN_ID");
    }
    expect((await failing(() => Prompt.fromIds("1" as unknown as number[]))).code).toBe(
      "PS_INVALID_ARGUMENT",
    );
    expect((await failing(() => Prompt.fromIds([1]).fingerprint(-1))).code).toBe("PS_INVALID_ARGUMENT");
    const prompt = Prompt.fromIds([1]);
    expect((await failing(() => prompt.hasPrefix("no hex", 1))).code).toBe("PS_INVALID_ARGUMENT");
  });

  test("a closed prompt knows its length only; closing twice is fine", async () => {
    const prompt = Prompt.fromIds([1, 2, 3]);
    prompt.close();
    prompt.close();
    expect(prompt.length).toBe(3);
    expect((await failing(() => prompt.tokenIds())).code).toBe("PS_CLOSED");
    expect((await failing(model.render(user("x"), { previous: prompt }))).code).toBe("PS_CLOSED");
  });
});
