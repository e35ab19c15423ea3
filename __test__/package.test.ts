import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { expect, expectTypeOf, test } from "vitest";
import * as root from "../ts/index.ts";
import { ERROR_CODES, type Model, Prompt, PromptseamError } from "../ts/index.ts";
import * as postgres from "../ts/store/postgres/index.ts";
import * as testing from "../ts/testing/index.ts";
import * as vllm from "../ts/vllm/index.ts";
import { modelFolder } from "./support.ts";

const path = (relative: string) => fileURLToPath(new URL(`../${relative}`, import.meta.url));

test("the public exports are these", () => {
  expect(Object.keys(root).sort()).toEqual(
    [
      "Answer",
      "BlockHashes",
      "CHANNELS",
      "DecodeStream",
      "ERROR_CODES",
      "MemoryStore",
      "Model",
      "Prompt",
      "PromptseamError",
      "Seam",
      "SqliteStore",
      "VllmClient",
      "publish",
    ].sort(),
  );
  expect(Object.keys(vllm).sort()).toEqual(["Answer", "VllmClient"]);
  expect(Object.keys(postgres)).toEqual(["PostgresStore"]);
  expect(Object.keys(testing).sort()).toEqual(["byteModel", "startTestServer", "storeConformance"]);
});

test("the compiled package exports the same, under the names that package.json gives", async () => {
  const { exports } = JSON.parse(readFileSync(path("package.json"), "utf8")) as {
    exports: Record<string, { default?: string } | string>;
  };
  const names = Object.keys(exports).filter((name) => name !== "./package.json");
  expect(names).toEqual([".", "./vllm", "./store/postgres", "./testing"]);
  for (const [name, source] of [
    [".", root],
    ["./vllm", vllm],
    ["./store/postgres", postgres],
    ["./testing", testing],
  ] as const) {
    const entry = exports[name] as { default: string };
    const built = (await import(path(entry.default))) as object;
    expect(Object.keys(built).sort()).toEqual(Object.keys(source).sort());
  }
});

test("the types are what the documentation says", () => {
  expectTypeOf<Model["render"]>().returns.resolves.toEqualTypeOf<Prompt>();
  expectTypeOf<Model["encode"]>().returns.resolves.toEqualTypeOf<Uint32Array>();
  expectTypeOf<Prompt["diff"]>().returns.toHaveProperty("commonPrefix");
  expectTypeOf<PromptseamError["code"]>().toEqualTypeOf<(typeof ERROR_CODES)[number]>();
});

test("every error code is documented, and every native one is known here", () => {
  const errors = readFileSync(path("ts/errors.ts"), "utf8");
  const core = readFileSync(path("crates/promptseam/src/error.rs"), "utf8");
  for (const code of ERROR_CODES) expect(errors).toContain(`- \`${code}\`:`);
  for (const [code] of core.matchAll(/PS_[A-Z_]+/g)) expect(ERROR_CODES).toContain(code);
});

test("an error of another copy of the package is recognized", () => {
  const foreign = Object.assign(new Error("x"), { [Symbol.for("promptseam.error")]: true });
  expect(PromptseamError.isInstance(foreign)).toBe(true);
  expect(PromptseamError.isInstance(new Error("x"))).toBe(false);
});

test("models and prompts work in worker threads, and threads end while work is under way", async () => {
  const source = `
    const { parentPort } = require("node:worker_threads");
    (async () => {
      const { Model, Prompt } = await import(${JSON.stringify(path("dist/index.js"))});
      const model = await Model.load(${JSON.stringify(modelFolder("qwen3"))});
      const prompt = await model.render({ messages: [{ role: "user", content: "x" }] });
      for (let i = 0; i < 8; i++) model.render({ messages: [{ role: "user", content: "word ".repeat(20000) }] }).catch(() => {});
      parentPort.postMessage([prompt.length, Prompt.fromIds([1, 2]).length]);
    })();`;
  const results = await Promise.all(
    Array.from({ length: 2 }, async () => {
      const worker = new Worker(source, { eval: true });
      const message = await new Promise((resolve, reject) =>
        worker.once("message", resolve).once("error", reject),
      );
      await worker.terminate();
      return message;
    }),
  );
  for (const result of results) expect(result).toEqual([9, 2]);
  expect(Prompt.fromIds([1]).length).toBe(1);
});

test("V8 knows what prompts hold: dropped ones are collected although their JavaScript side is tiny", async () => {
  const ids = new Uint32Array(250_000);
  const before = process.memoryUsage().rss;
  let highest = 0;
  for (let index = 0; index < 2_000; index++) {
    Prompt.fromIds(ids);
    if (index % 20 === 0) {
      await new Promise(setImmediate);
      highest = Math.max(highest, process.memoryUsage().rss - before);
    }
  }
  // All of them together are 2.2 GB.
  expect(highest).toBeLessThan(800_000_000);
});
