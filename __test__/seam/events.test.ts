/** The channels that a Seam publishes on: counts and times, never text. */

import diagnostics from "node:diagnostics_channel";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import {
  CHANNELS,
  MemoryStore,
  type Model,
  Seam,
  type SeamOptions,
  type Turn,
  VllmClient,
} from "../../ts/index.ts";
import { startTestServer, type TestServer } from "../../ts/testing/index.ts";
import { assistant, BARE, NOW, OddStore, promptOf, testModel, user } from "./support.ts";
import { CHATML, tinyModel } from "./tiny-model.ts";

const SECRETS = ["private words", "private answer", "private salt", "private conversation", "private tenant"];
const [WORDS, ANSWER, SALT, CONVERSATION, TENANT] = SECRETS as [string, string, string, string, string];

let model: Model;
let server: TestServer;
let client: VllmClient;
beforeAll(async () => {
  model = await tinyModel(`{% if messages | length > 10 %}<|im_start|>long<|im_end|>\n{% endif %}${CHATML}`);
  server = await startTestServer({
    model: testModel(model),
    answers: { text: ANSWER, firstTokenDelayMs: 5 },
  });
  client = new VllmClient({ baseUrl: server.baseUrl });
});
afterAll(async () => {
  await client.close();
  await server.close();
  model.close();
});

type Channel = keyof typeof CHANNELS;
let seen: { channel: Channel; payload: Record<string, unknown> }[] = [];
const listeners = (Object.keys(CHANNELS) as Channel[]).map((channel) => {
  const listener = (payload: unknown) => seen.push({ channel, payload: payload as Record<string, unknown> });
  return { channel, listener };
});
beforeEach(() => {
  seen = [];
  for (const { channel, listener } of listeners) diagnostics.subscribe(CHANNELS[channel], listener);
});
afterEach(() => {
  for (const { channel, listener } of listeners) diagnostics.unsubscribe(CHANNELS[channel], listener);
  const shown = JSON.stringify(seen);
  for (const secret of SECRETS) expect(shown).not.toContain(secret);
});

function published(channel: Channel): Record<string, unknown>[] {
  return seen.filter((event) => event.channel === channel).map(({ payload }) => payload);
}

const first = { messages: [{ role: "system", content: WORDS }, user(WORDS)], cache_salt: SALT };
const second = { ...first, messages: [...first.messages, assistant(ANSWER), user(WORDS)] };
const here = { now: NOW, conversation: CONVERSATION, tenant: TENANT };

const seamOf = (options: Partial<SeamOptions> = {}) => new Seam({ model, ...BARE, ...options });

async function read(turn: Turn): Promise<void> {
  for await (const _ of turn.stream());
}

const elapsedMs = expect.any(Number);

test("turn:planned, with what was planned", async () => {
  const seam = seamOf();
  const one = await seam.prepare(first, here);
  expect(published("turnPlanned")).toEqual([
    {
      outcome: "full_render/no_checkpoint",
      promptTokens: promptOf(one).length,
      prefixTokens: 0,
      drift: "unknown",
      elapsedMs,
    },
  ]);
  await one.commit({ message: assistant(ANSWER), sampledIds: await model.encode(`${ANSWER}<|im_end|>`) });
  const two = await seam.prepare(second, here);
  expect(published("turnPlanned").at(-1)).toEqual({
    outcome: "certified_suffix",
    promptTokens: promptOf(two).length,
    prefixTokens: two.prefixLength,
    drift: "none",
    elapsedMs,
  });
  await seam.prepare({ ...first, n: 2 }, here);
  expect(published("turnPlanned").at(-1)).toMatchObject({
    outcome: "messages/multiple_choices",
    promptTokens: null,
    prefixTokens: 0,
  });
});

test("turn:committed, with how", async () => {
  const store = new OddStore(new MemoryStore());
  const seam = seamOf({ store });
  const [one, two, three] = await Promise.all([1, 2, 3].map(() => seam.prepare(first, here)));
  await one?.commit({ message: assistant(ANSWER) });
  await two?.commit({ message: assistant(ANSWER) });
  store.odd.commit = () => Promise.reject(new Error(WORDS));
  await three?.commit({ message: assistant(ANSWER) });
  expect(published("turnCommitted")).toEqual(
    ["committed", "branched", "not_durable"].map((status) => ({ status, elapsedMs })),
  );
  const left = await seam.prepare(first, here);
  left.abandon();
  expect(published("turnCommitted")).toHaveLength(3);
});

test("request:*, for the one request of a turn", async () => {
  const turn = await seamOf({ client }).prepare(first, here);
  await read(turn);
  const promptTokens = promptOf(turn).length;
  const chat = published("requestStart").filter(({ way }) => way !== "control");
  expect(chat).toEqual([expect.objectContaining({ way: "chat_ids", promptTokens, stream: true })]);
  expect(published("requestEnd").filter(({ id }) => id === chat[0]?.["id"])).toEqual([
    expect.objectContaining({ promptTokens, attempts: 1, cancelled: false, idsIgnored: false }),
  ]);
});

test("store:trouble, with what was asked and how long it took", async () => {
  const store = new OddStore(new MemoryStore());
  const seam = seamOf({ store, storeTimeoutMs: 20 });
  const broken = () => {
    throw new Error(WORDS);
  };
  store.odd = {
    load: broken,
    find: () => new Promise<never>(() => {}),
    commit: () => Promise.reject(new Error(WORDS)),
  };
  const turn = await seam.prepare(first, here);
  await turn.commit({ message: assistant(ANSWER) });
  const events = published("storeTrouble");
  expect(events.map(({ operation, timedOut }) => [operation, timedOut]).sort()).toEqual([
    ["commit", false],
    ["find", true],
    ["load", false],
  ]);
  for (const event of events)
    expect(event).toEqual({
      operation: expect.any(String),
      elapsedMs,
      timedOut: expect.any(Boolean),
      code: null,
    });
});

test("shadow:mismatch, with the lengths of what was planned", async () => {
  const messages = Array.from({ length: 11 }, (_, at) => (at % 2 === 0 ? user(WORDS) : assistant(ANSWER)));
  const seam = new Seam({ model });
  const begun = await seam.prepare({ messages: messages.slice(0, 9) }, here);
  await begun.commit({ message: assistant(ANSWER) });
  await seam.prepare({ messages }, here);
  expect(published("shadowMismatch")).toEqual([
    { promptTokens: expect.any(Number), prefixTokens: expect.any(Number) },
  ]);
  const [{ promptTokens, prefixTokens }] = published("shadowMismatch") as [
    { promptTokens: number; prefixTokens: number },
  ];
  expect(prefixTokens).toBe(begun.seam);
  expect(promptTokens).toBeGreaterThan(prefixTokens);
});

test("turn:observed, with whether the server renders the same", async () => {
  const seam = seamOf({ client, mode: "observe", observeShare: 1 });
  await read(await seam.prepare(first, here));
  for (let wait = 0; wait < 100 && seam.stats().observed === 0; wait++) await sleep(5);
  expect(published("turnObserved")).toEqual([{ outcome: "full_render/no_checkpoint", equal: true }]);
});

test("a listener that throws does not fail a turn", async () => {
  const uncaught: unknown[] = [];
  const before = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (error) => uncaught.push(error));
  const throwing = () => {
    throw new Error("listener");
  };
  diagnostics.subscribe(CHANNELS.turnPlanned, throwing);
  try {
    const turn = await seamOf().prepare(first, here);
    expect(await turn.commit({ message: assistant(ANSWER) })).toEqual({ status: "committed" });
    await sleep(5);
  } finally {
    diagnostics.unsubscribe(CHANNELS.turnPlanned, throwing);
    process.removeAllListeners("uncaughtException");
    for (const listener of before) process.on("uncaughtException", listener);
  }
  expect(uncaught).toHaveLength(1);
});
