/** Prompt handles of the real plugin: what the engine saw, what is kept, and what follows from references that do not hold. */

import { setTimeout as sleep } from "node:timers/promises";
import { Agent, type Dispatcher } from "undici";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import {
  type AnswerFacts,
  type AppendRequest,
  type ChatMessage,
  type Chunk,
  type Model,
  Prompt,
  type PromptHandle,
  Seam,
  type Turn,
  VllmClient,
} from "../../ts/index.ts";
import type { ChatRequest, HandleOptions } from "../../ts/vllm/index.ts";
import {
  longText,
  messageOf,
  plainSession,
  play,
  type Step,
  script,
  TOOLS,
  toolSession,
} from "./sessions.ts";
import { BASE_URL, FAMILY, failure, loadModel } from "./support.ts";

const HANDLES = "/inference/v1/prompt-handles";

let model: Model;
let client: VllmClient;
/** What was sent, in order. */
const sent: { path: string; bytes: number }[] = [];

const recording: Dispatcher.DispatcherComposeInterceptor = (dispatch) => (options, handler) => {
  const { path, body } = options;
  if (body !== null && body !== undefined)
    sent.push({ path, bytes: Buffer.byteLength(body as string | Uint8Array) });
  return dispatch(options, handler);
};

beforeAll(async () => {
  model = await loadModel();
  client = new VllmClient({ baseUrl: BASE_URL, dispatcher: new Agent().compose(recording) });
});
afterAll(async () => {
  await client.close();
  model.close();
});

/** Asks the plugin itself; gives the status and the JSON. */
async function ask(route: string, body?: object): Promise<{ status: number; json: Record<string, unknown> }> {
  const answer = await fetch(`${BASE_URL}${HANDLES}${route}`, {
    ...(body === undefined ? {} : { method: "POST", body: JSON.stringify(body) }),
    headers: { "content-type": "application/json" },
  });
  return { status: answer.status, json: (await answer.json()) as Record<string, unknown> };
}

interface Played {
  readonly turn: Turn;
  readonly facts: AnswerFacts;
  readonly prompt: Prompt;
  /** The server's own rendering. */
  readonly theirs: Prompt;
  /** What the engine was made to sample. */
  readonly sampled: Uint32Array;
  readonly answer: ChatMessage;
  /** What the plugin says that it keeps. */
  readonly kept: unknown;
  readonly bytes: number;
}

let sessions = 0;

async function playSession(
  seam: Seam,
  steps: readonly Step[],
  tools: readonly object[] = TOOLS,
): Promise<Played[]> {
  const conversation = `handle ${++sessions}`;
  const cache_salt = `${Date.now()} ${conversation}`;
  const played: Played[] = [];
  const history: ChatMessage[] = [];
  for (const [at, step] of steps.entries()) {
    const before = played[at - 1]?.answer;
    if (before !== undefined) history.push(before);
    const added = step.add(before);
    history.push(...added);
    const sampled = await script(model, step.say);
    const members = { ...play(sampled), max_tokens: 500, cache_salt };
    const request = { messages: [...history], ...(tools.length > 0 ? { tools } : {}), ...members };
    const turn = await seam.prepare(
      at === 0 ? (request as ChatRequest) : ({ append: added, ...members } as AppendRequest),
      { conversation },
    );
    const chunks: Chunk[] = [];
    for await (const chunk of turn.stream()) chunks.push(chunk);
    expect(await turn.committed).toEqual({ status: "committed" });
    const bytes = sent.at(-1)?.bytes ?? Number.NaN;
    const facts = turn.facts as AnswerFacts;
    const id = facts.handle?.id ?? "none";
    const lookup = await ask("/lookup", { prompt_cache_ref: { id }, cache_salt });
    played.push({
      turn,
      facts,
      prompt: turn.prompt as Prompt,
      theirs: await client.render(request as ChatRequest),
      sampled,
      answer: messageOf(chunks),
      kept: lookup.json["prompt_cache_ref"],
      bytes,
    });
  }
  return played;
}

const TURNS = 30;

describe(`${FAMILY}: ${TURNS} turns with tool rounds, by handle`, { timeout: 240_000 }, () => {
  let seam: Seam;
  let played: Played[];

  beforeAll(async () => {
    seam = new Seam({ model, client, transport: "handle" });
    played = await playSession(seam, toolSession(FAMILY, Math.ceil(TURNS / 4)).slice(0, TURNS));
  }, 240_000);

  test("the session is what it should be: calls, results and reasoning out of the server's own parsers", () => {
    const calls = played.map(({ answer }) => (answer["tool_calls"] as unknown[] | undefined)?.length ?? 0);
    expect(calls.filter((count) => count > 0)).toHaveLength(2 * Math.ceil(TURNS / 4));
    expect(played.map(({ facts }) => facts.finishReason())).toEqual(
      calls.map((count) => (count > 0 ? "tool_calls" : "stop")),
    );
    const reasoned = played.filter(({ answer }) => answer["reasoning"] !== undefined);
    expect(reasoned).toHaveLength(FAMILY === "qwen3" ? TURNS : 0);
  });

  test("on every turn the engine sees the server's own rendering, though it was sent what is new", () => {
    for (const [at, { prompt, theirs, facts, sampled }] of played.entries()) {
      expect(prompt.equals(theirs), `turn ${at}`).toBe(true);
      expect(facts, `turn ${at}`).toMatchObject({
        way: "handle",
        promptTokens: theirs.length,
        attempts: 1,
        handleMisses: 0,
        idsIgnored: false,
      });
      expect(facts.sampledIds(), `turn ${at}`).toEqual(sampled);
    }
    expect(seam.stats()).toMatchObject({ byHandle: TURNS, handleMisses: 0, committed: TURNS });
  });

  test("what the plugin keeps is that rendering and what was sampled, id by id", () => {
    for (const [at, { theirs, sampled, kept, facts }] of played.entries()) {
      const whole = theirs.continued(sampled);
      expect(kept, `turn ${at}`).toEqual({
        id: facts.handle?.id,
        token_count: whole.length,
        token_hash: whole.hash(),
      });
      expect(facts.handle?.prompt.equals(whole), `turn ${at}`).toBe(true);
    }
  });

  test("the engine finds more and more in its cache", () => {
    const cached = played.map(({ facts }) => facts.cachedTokens ?? Number.NaN);
    expect(cached[0]).toBe(0);
    expect(Math.max(...cached)).toBeGreaterThan((played.at(-1)?.prompt.length ?? 0) / 2);
    for (const [at, { turn }] of played.entries()) {
      if (at > 0 && turn.outcome.kind === "certified_suffix")
        expect(cached[at], `turn ${at}`).toBeGreaterThanOrEqual(cached[at - 1] ?? 0);
    }
  });
});

test("a turn of 30,000 tokens without tools is a request of less than 6 kB", {
  timeout: 240_000,
}, async () => {
  const seam = new Seam({ model, client });
  const [first, ...others] = plainSession(FAMILY, 3);
  const text = await longText(model, 30_000);
  const long: Step = { add: () => [{ role: "user", content: text }], say: first?.say ?? "" };
  const played = await playSession(seam, [long, ...others], []);
  expect(played[0]?.bytes).toBeGreaterThan(100_000);
  for (const { bytes, facts, theirs, prompt } of played.slice(1)) {
    expect(prompt.length).toBeGreaterThan(29_000);
    expect(prompt.equals(theirs)).toBe(true);
    expect(facts).toMatchObject({ way: "handle", promptTokens: theirs.length, handleMisses: 0 });
    expect(bytes).toBeLessThan(6_000);
  }
});

describe("a reference that does not hold: nothing runs, and all ids are sent once", () => {
  const request = { messages: [{ role: "user", content: "Hi." }], max_tokens: 2, cache_salt: "handles" };
  const ids = Uint32Array.from({ length: 2_000 }, (_, at) => 100 + (at % 400));
  let from: PromptHandle;

  async function send(prompt: Prompt, handle: HandleOptions, members: Partial<ChatRequest> = {}) {
    const { facts } = await client
      .chat({ ...request, ...members }, { prompt, handle, sampledIds: "auto" })
      .collect();
    return facts;
  }

  /** How many requests the engine was given. */
  async function run(): Promise<number> {
    return (await client.metrics()).sum("vllm:request_success_total") ?? Number.NaN;
  }

  beforeAll(async () => {
    const facts = await send(Prompt.fromIds(ids), { tenant: "acme" });
    if (facts.handle === null) throw new Error("nothing was kept");
    from = facts.handle;
    expect(from.tokenHash).toBe(from.prompt.hash());
  });

  test.each<[string, () => HandleOptions, Partial<ChatRequest>]>([
    ["wrong count", () => ({ tenant: "acme", from: { ...from, prompt: from.prompt.continued([7, 7]) } }), {}],
    [
      "wrong hash",
      () => ({ tenant: "acme", from: { ...from, prompt: from.prompt.continued([7, 7], 900) } }),
      {},
    ],
    ["unknown id", () => ({ tenant: "acme", from: { ...from, id: "A".repeat(32) } }), {}],
    ["another tenant", () => ({ tenant: "other", from }), {}],
    ["no tenant", () => ({ from }), {}],
    ["another salt", () => ({ tenant: "acme", from }), { cache_salt: "other" }],
  ])("%s", async (_, handle, members) => {
    const options = handle();
    const next = (options.from as PromptHandle).prompt.continued([5, 6, 7]);
    const before = await run();
    const facts = await send(next, options, members);
    expect(facts).toMatchObject({
      way: "handle",
      handleMisses: 1,
      attempts: 2,
      promptTokens: next.length,
      idsIgnored: false,
    });
    expect(facts.handle?.tokenHash).toBe(facts.handle?.prompt.hash());
    // What missed never got to the engine.
    await vi.waitFor(async () => expect((await run()) - before).toBe(1));
    // Its owner's is untouched.
    expect(await send(from.prompt.continued([1]), { tenant: "acme", from })).toMatchObject({
      handleMisses: 0,
      attempts: 1,
    });
  });

  test("dropped", async () => {
    const own = (await send(Prompt.fromIds(ids), {})).handle as PromptHandle;
    const drop = { prompt_cache_ref: { id: own.id }, cache_salt: request.cache_salt };
    expect((await ask("/drop", drop)).json).toEqual({ dropped: true });
    expect((await ask("/lookup", drop)).status).toBe(404);
    const next = own.prompt.continued([5]);
    const facts = await send(next, { from: own });
    expect(facts).toMatchObject({ way: "handle", handleMisses: 1, attempts: 2, promptTokens: next.length });
  });

  test("another model: refused by every route", async () => {
    const error = await failure(send(from.prompt.continued([1]), { from }, { model: "none" }));
    expect(error.details.status).toBe(404);
    expect(await client.promptHandles()).not.toBeNull();
  });

  test("two at once from one handle: each is kept by itself", async () => {
    const prompts = [1, 2, 3].map((id) => from.prompt.continued([id]));
    const all = await Promise.all(prompts.map((prompt) => send(prompt, { tenant: "acme", from })));
    expect(all.map(({ handleMisses }) => handleMisses)).toEqual([0, 0, 0]);
    expect(new Set(all.map(({ handle }) => handle?.id)).size).toBe(3);
    for (const { handle } of all) expect(handle?.tokenHash).toBe(handle?.prompt.hash());
  });

  test("left in mid-stream: nothing is kept of it, and what it went on from is still there", async () => {
    const kept = async () => (await ask("/stats")).json["handles"];
    const own = (await send(Prompt.fromIds(ids), {})).handle as PromptHandle;
    const prompt = own.prompt.continued([5, 6]);
    const leave = async (): Promise<{ inTime: boolean; before: unknown }> => {
      const before = await kept();
      const started = performance.now();
      const answer = client.chat(
        { ...request, max_tokens: 2_000, ignore_eos: true },
        { prompt, handle: { from: own }, sampledIds: "auto" },
      );
      let pieces = 0;
      for await (const chunk of answer)
        if ((chunk.type === "text" || chunk.type === "reasoning") && ++pieces === 3) break;
      expect(answer.facts).toMatchObject({ way: "handle", handle: null });
      return { inTime: performance.now() - started < 1_000, before };
    };
    // An engine that takes all cores for itself may be done before anybody else gets to leave: seconds later, not milliseconds.
    let left = await leave();
    for (let again = 0; again < 10 && !left.inTime; again++) left = await leave();
    expect(left.inTime).toBe(true);
    await sleep(300);
    expect(await kept()).toBe(left.before);
    expect(await send(prompt, { from: own })).toMatchObject({ way: "handle", handleMisses: 0, attempts: 1 });
  }, 180_000);
});

test("the handshake names what is served, and the capability is proved", async () => {
  expect(await client.promptHandles()).toMatchObject({ models: [FAMILY] });
  const { transports } = await client.capabilities();
  expect(transports.handle).toEqual({ proved: true });
});
