/** A server that asks for a key, dies, and comes back: one of its own, since nothing else survives it. */

import { execFileSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startVllm } from "../../scripts/vllm-server.mjs";
import { type AppendRequest, Prompt, Seam, type Turn, VllmClient } from "../../ts/index.ts";
import type { ChatRequest } from "../../ts/vllm/index.ts";
import { FAMILY, failure, loadModel } from "./support.ts";

const KEY = "sk-only-for-this-test";
// Not the context of the first start, so that what was known must be asked anew.
const options = (length: number) => ({
  flags: ["--max-model-len", String(length), "--api-key", KEY],
  env: { PROMPTSEAM_TTL_SECONDS: String(TTL_SECONDS) },
  port: 18_517,
});
/** How long prompt handles are kept, in seconds. */
const TTL_SECONDS = 5;
const STARTS_MS = 300_000;
const prompt = Prompt.fromIds([100, 101, 102]);

let server: Awaited<ReturnType<typeof startVllm>>;
let client: VllmClient;

beforeAll(async () => {
  server = await startVllm(FAMILY, options(4_096));
  client = new VllmClient({ baseUrl: server.baseUrl, apiKey: KEY });
}, STARTS_MS);
afterAll(async () => {
  await client.close();
  await server.stop();
}, STARTS_MS);

test("401, with a wrong key and without one", async () => {
  for (const apiKey of ["sk-wrong-key", undefined]) {
    await using stranger = new VllmClient({
      baseUrl: server.baseUrl,
      retries: 2,
      ...(apiKey === undefined ? {} : { apiKey }),
    });
    for (const work of [
      () => stranger.chat({ messages: [{ role: "user", content: "x" }], max_tokens: 1 }).collect(),
      () => stranger.generate(prompt, { max_tokens: 1 }).collect(),
      () => stranger.models(),
      () => stranger.capabilities(),
    ]) {
      const error = await failure(work());
      expect(error.code).toBe("PS_HTTP_STATUS");
      expect(error.details).toMatchObject({ status: 401, retryable: false });
      expect(`${error.message}${error.stack}`).not.toContain("sk-");
    }
  }
});

test("restarted between two requests: the same client goes on, and learns what is new", {
  timeout: STARTS_MS,
}, async () => {
  expect((await client.capabilities()).maxModelLength).toBe(4_096);
  expect(
    (await client.generate(prompt, { max_tokens: 3, ignore_eos: true }).collect()).facts.sampledIds(),
  ).toHaveLength(3);
  await server.stop();

  const refused = await failure(client.generate(prompt, { max_tokens: 1 }).collect());
  expect(refused.code).toBe("PS_CONNECT");
  expect(refused.details.retryable).toBe(true);

  server = await startVllm(FAMILY, options(8_192));
  const { facts } = await client.generate(prompt, { max_tokens: 3, ignore_eos: true }).collect();
  expect(facts.promptTokens).toBe(3);
  expect(facts.sampledIds()).toHaveLength(3);
  const renewed = await client.capabilities();
  expect(renewed.maxModelLength).toBe(8_192);
  const long = Prompt.fromIds(new Uint32Array(8_192).fill(100));
  expect((await failure(client.generate(long, { max_tokens: 1 }).collect())).details.maxModelLength).toBe(
    8_192,
  );
});

test("restarted while nobody looked: capabilities are asked anew, without an error in between", {
  timeout: STARTS_MS,
}, async () => {
  expect((await client.capabilities()).maxModelLength).toBe(8_192);
  const model = await loadModel();
  const seam = new Seam({ model, client, transport: "handle" });
  await takeTurn(seam, { messages: [{ role: "user", content: "One?" }], max_tokens: 4 });
  const held = await takeTurn(seam, { append: [{ role: "user", content: "Two?" }] });
  expect(held.facts).toMatchObject({ way: "handle", handleMisses: 0, attempts: 1 });

  await server.stop();
  server = await startVllm(FAMILY, options(4_096));
  expect((await client.capabilities()).maxModelLength).toBe(4_096);

  // Lost in the restart: one more request, and the engine's word that it saw all ids.
  const lost = await takeTurn(seam, { append: [{ role: "user", content: "Three?" }] });
  expect(lost.facts).toMatchObject({ way: "handle", handleMisses: 1, attempts: 2 });
  const after = await takeTurn(seam, { append: [{ role: "user", content: "Four?" }] });
  expect(after.facts).toMatchObject({ way: "handle", handleMisses: 0, attempts: 1 });
  // Expired: the same.
  await sleep(1000 * TTL_SECONDS + 100);
  const expired = await takeTurn(seam, { append: [{ role: "user", content: "Five?" }] });
  expect(expired.facts).toMatchObject({ way: "handle", handleMisses: 1, attempts: 2 });
  model.close();
});

/** Plays a turn; the engine must have seen the prompt that was planned. */
async function takeTurn(seam: Seam, request: ChatRequest | AppendRequest): Promise<Turn> {
  const turn = await seam.prepare(request, { conversation: "c" });
  for await (const _ of turn.stream());
  expect(await turn.committed).toEqual({ status: "committed" });
  expect(turn.facts?.promptTokens).toBe(turn.prompt?.length);
  return turn;
}

test("the engine killed in mid-stream: what was under way fails typed, and so does the next", {
  timeout: 120_000,
}, async () => {
  const work = failure(client.generate(prompt, { max_tokens: 4_000, ignore_eos: true }).collect());
  const pids = execFileSync("pgrep", ["-g", String(server.group), "-f", "EngineCore"], { encoding: "utf8" })
    .trim()
    .split("\n");
  expect(pids).not.toEqual([""]);
  await new Promise((resolve) => setTimeout(resolve, 500));
  for (const pid of pids) process.kill(Number(pid), "SIGKILL");
  const error = await work;
  expect(["PS_SERVER", "PS_STREAM_TRUNCATED", "PS_CONNECT"]).toContain(error.code);
  const next = await failure(client.generate(prompt, { max_tokens: 1 }).collect());
  expect(["PS_HTTP_STATUS", "PS_CONNECT", "PS_SERVER"]).toContain(next.code);
  if (next.code === "PS_HTTP_STATUS") expect([500, 503]).toContain(next.details.status);
  const health = await failure(client.health());
  expect(["PS_HTTP_STATUS", "PS_CONNECT"]).toContain(health.code);
});
