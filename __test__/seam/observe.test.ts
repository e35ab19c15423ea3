/** `mode: "observe"`: the client's request goes out as it is, and the plans beside it are compared with the server's rendering. */

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  type ChatRequest,
  MemoryStore,
  type Model,
  Seam,
  type SeamOptions,
  VllmClient,
} from "../../ts/index.ts";
import { startTestServer, type TestServer } from "../../ts/testing/index.ts";
import { assistant, BARE, called, NOW, type Request, result, testModel, tool, user } from "./support.ts";
import { CHATML, tinyModel } from "./tiny-model.ts";

let model: Model;
let server: TestServer;
let client: VllmClient;
beforeAll(async () => {
  model = await tinyModel();
  server = await startTestServer({ model: testModel(model), answers: { text: "One." } });
  client = new VllmClient({ baseUrl: server.baseUrl });
});
afterEach(() => server.heal());
afterAll(async () => {
  await client.close();
  await server.close();
  model.close();
});

const conversation = "c";
const CHAT = "/v1/chat/completions";
const first: Request = { messages: [{ role: "system", content: "Be brief." }, user("One?")] };

function observing(options: Partial<SeamOptions> = {}): Seam {
  return new Seam({ model, client, ...BARE, mode: "observe", observeShare: 1, ...options });
}

function then(request: Request, ...messages: Request["messages"]): Request {
  return { ...request, messages: [...request.messages, ...messages] };
}

function since(from: number, path = CHAT) {
  return server.requests.slice(from).filter((request) => request.path === path);
}

async function streamed(
  seam: Seam,
  request: Request | Uint8Array,
): Promise<Awaited<ReturnType<Seam["prepare"]>>> {
  const turn = await seam.prepare(request, { now: NOW, conversation });
  for await (const _ of turn.stream());
  return turn;
}

/** Comparisons run beside the answer. */
async function compared(seam: Seam, count: number): Promise<void> {
  for (let wait = 0; wait < 100 && seam.stats().observed < count; wait++) await sleep(5);
}

const call = called("call00001", { reasoning: "I must look." });
const conversations: [string, Request[]][] = [
  ["of text", [first, then(first, assistant("One."), user("Two?"))]],
  [
    "with tools, settings and members that nobody knows",
    [
      {
        ...first,
        tools: [tool("read")],
        temperature: 0.3,
        max_tokens: 9,
        seed: 7,
        stop: ["x"],
        unknown: { a: [1, null] },
      },
      { ...then(first, call, result("call00001")), tools: [tool("read")], cache_salt: "pepper", user: "me" },
    ],
  ],
  ["of many words", [{ messages: [user("One? ".repeat(3_000))] }]],
];

describe.each(conversations)("a conversation %s", (_, requests) => {
  test.each(["object", "bytes"])("arrives as the client alone would send it, given as %s", async (form) => {
    const seam = observing();
    for (const request of requests) {
      const from = server.requests.length;
      await streamed(seam, form === "object" ? request : Buffer.from(JSON.stringify(request)));
      for await (const _ of client.chat(request as ChatRequest));
      const [ours, theirs, ...others] = since(from);
      expect(others).toEqual([]);
      expect(ours?.body).toEqual(theirs?.body);
      expect(ours?.bodyBytes).toBe(theirs?.bodyBytes);
      expect([...(ours?.ids ?? [])]).toEqual([...(theirs?.ids ?? [])]);
    }
  });
});

test("numbers of a request given as bytes are spelled as they were", async () => {
  const from = server.requests.length;
  const body = '{"messages":[{"role":"user","content":"One?"}],"seed":12345678901234567,"temperature":1.0}';
  await streamed(observing(), Buffer.from(body));
  // JSON.parse cannot tell; the length of what arrived can.
  const options = JSON.stringify({
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  });
  expect(since(from)[0]?.bodyBytes).toBe(body.length + options.length - 1);
});

test("reasoning that would be restored is not sent", async () => {
  const seam = observing({ omittedReasoning: "restore" });
  const { reasoning: _, ...bald } = call;
  const turn = await seam.prepare(first, { now: NOW, conversation });
  await turn.commit({ message: call });
  const request = then(first, bald as typeof call, result("call00001"));
  for (const form of [request, Buffer.from(JSON.stringify(request))]) {
    const from = server.requests.length;
    await streamed(seam, form);
    expect(since(from)[0]?.body?.["messages"]).toEqual(request.messages);
  }
});

test("outcomes are those that the turns would have had", async () => {
  const seams = [observing(), new Seam({ model, client, ...BARE })];
  const second = then(first, assistant("One."), user("Two?"));
  const outcomes = [];
  for (const seam of seams) {
    const turns = [];
    for (const request of [first, second, { ...second, tools: [tool("read")] }, { ...second, n: 2 }]) {
      turns.push((await streamed(seam, request)).outcome);
    }
    outcomes.push(turns);
  }
  expect(outcomes[0]).toEqual(outcomes[1]);
  expect(outcomes[0]?.map(({ kind }) => kind)).toEqual([
    "full_render",
    "certified_suffix",
    "aligned_render",
    "messages",
  ]);
  expect(seams[0]?.stats().outcomes).toEqual(seams[1]?.stats().outcomes);
});

test("turns are recorded, so that what comes next is known", async () => {
  const store = new MemoryStore();
  const seam = observing({ store });
  const turn = await streamed(seam, first);
  expect(await turn.committed).toEqual({ status: "committed" });
  const on = new Seam({ model, store, ...BARE });
  const next = await on.prepare({ append: [user("Two?")] }, { now: NOW, conversation });
  expect(next.outcome).toEqual({ kind: "certified_suffix" });
});

describe("plans are compared with what the server renders", () => {
  test("and are the same", async () => {
    const seam = observing();
    const from = server.requests.length;
    await streamed(seam, first);
    await streamed(seam, then(first, assistant("One."), user("Two?")));
    await compared(seam, 2);
    expect(seam.stats()).toMatchObject({ observed: 2, observedMismatches: 0 });
    expect(since(from, `${CHAT}/render`)).toHaveLength(2);
  });

  test("and are not, where the server has another template", async () => {
    const other = await tinyModel(CHATML.replaceAll("assistant", "model"));
    await using elsewhere = await startTestServer({ model: testModel(other) });
    await using theirs = new VllmClient({ baseUrl: elsewhere.baseUrl });
    const seam = observing({ client: theirs });
    const turn = await streamed(seam, first);
    await compared(seam, 1);
    expect(seam.stats()).toMatchObject({ observed: 1, observedMismatches: 1 });
    expect(await turn.committed).toEqual({ status: "committed" });
    other.close();
  });

  test("a share of them", async () => {
    const from = server.requests.length;
    const none = observing({ observeShare: 0 });
    for (let turn = 0; turn < 5; turn++) await streamed(none, first);
    expect(since(from, `${CHAT}/render`)).toHaveLength(0);
    const half = observing({ observeShare: 0.5 });
    for (let turn = 0; turn < 40; turn++) await streamed(half, first);
    await sleep(20);
    expect(half.stats().observed).toBeGreaterThan(5);
    expect(half.stats().observed).toBeLessThan(35);
  });

  test("a server that cannot be asked costs nothing but the comparison", async () => {
    const seam = observing();
    server.fail({ kind: "status", status: 500 }, { path: `${CHAT}/render` });
    const turn = await streamed(seam, first);
    expect(await turn.committed).toEqual({ status: "committed" });
    await sleep(20);
    expect(seam.stats()).toMatchObject({ observed: 0, observedMismatches: 0 });
  });
});

test("a plan that turns out wrong disturbs no request that did not use it", async () => {
  const odd = await tinyModel(
    `{% if messages | length > 10 %}<|im_start|>long<|im_end|>\n{% endif %}${CHATML}`,
  );
  await using server = await startTestServer({
    model: testModel(odd),
    answers: { text: "One.", firstTokenDelayMs: 50 },
  });
  await using theirs = new VllmClient({ baseUrl: server.baseUrl });
  const seam = new Seam({ model: odd, client: theirs, mode: "observe", observeShare: 1 });
  const messages = Array.from({ length: 11 }, (_, at) =>
    at % 2 === 0 ? user(`${at}?`) : assistant(`${at}.`),
  );
  const begun = await seam.prepare({ messages: messages.slice(0, 9) }, { now: NOW, conversation });
  await begun.commit({ message: assistant("9.") });
  const turn = await streamed(seam, { messages });
  expect(seam.stats().shadowMismatches).toBe(1);
  const chats = server.requests.filter(({ path }) => path === CHAT);
  expect(chats.map(({ aborted }) => aborted)).toEqual([false]);
  expect(await turn.committed).toEqual({ status: "committed" });
  odd.close();
});

test("a request that cannot be planned here is still the server's to refuse", async () => {
  const strict = await tinyModel(
    `{% if messages | length > 2 %}{{ raise_exception('no') }}{% endif %}${CHATML}`,
  );
  const seam = observing({ model: strict });
  const from = server.requests.length;
  await streamed(seam, then(first, assistant("One."), user("Two?")));
  expect(since(from)).toHaveLength(1);
  strict.close();
});
