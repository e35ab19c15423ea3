/** A template that misbehaves where no probe looked: the shadow check sees it, and nobody is sent the wrong prompt. */

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  type ChatMessage,
  type Chunk,
  type Model,
  Seam,
  type SeamOptions,
  VllmClient,
} from "../../ts/index.ts";
import { startTestServer, type TestServer } from "../../ts/testing/index.ts";
import {
  assistant,
  expectFullRender,
  fullRender,
  NEXT_DAY,
  NOW,
  promptOf,
  type Request,
  take,
  testModel,
  user,
} from "./support.ts";
import { CHATML, tinyModel } from "./tiny-model.ts";

/** More messages than any probe of such a class has. */
const MANY = 10;

let model: Model;
let server: TestServer;
let client: VllmClient;
beforeAll(async () => {
  model = await tinyModel(
    `{% if messages | length > ${MANY} %}<|im_start|>long<|im_end|>\n{% endif %}${CHATML}`,
  );
  server = await startTestServer({ model: testModel(model) });
  client = new VllmClient({ baseUrl: server.baseUrl });
});
afterEach(() => server.answer({ text: "ok" }));
afterAll(async () => {
  await client.close();
  await server.close();
  model.close();
});

function history(length: number): Request {
  const messages: ChatMessage[] = [];
  for (let at = 0; at < length; at++)
    messages.push(at % 2 === 0 ? user(`Question ${at}?`) : assistant(`Answer ${at}.`));
  return { messages };
}

/** A Seam with a turn behind it from which the next one is the first to be printed otherwise. */
async function begun(options: Partial<SeamOptions> = {}, on = model): Promise<Seam> {
  const seam = new Seam({ model: on, ...options });
  const turn = await seam.prepare(history(MANY - 1), { now: NOW });
  await turn.commit({ message: assistant(`Answer ${MANY - 1}.`) });
  return seam;
}

const wrong = history(MANY + 1);
/** The turn after it, which is printed as the one before. */
const after = history(MANY + 3);

function chatsSince(from: number) {
  return server.requests.slice(from).filter(({ path }) => path === "/v1/chat/completions");
}

test("without a client, what prepare gives is right already", async () => {
  const seam = await begun();
  const turn = await seam.prepare(wrong, { now: NOW });
  expect(turn.outcome).toEqual({ kind: "full_render", reason: "shadow_mismatch" });
  expect([turn.prefixLength, turn.certificate]).toEqual([0, null]);
  await expectFullRender(model, turn, wrong);
  expect(seam.stats()).toMatchObject({ shadowChecks: 1, shadowMismatches: 1 });
});

test("the class is not certified any more, and the turns after it are right", async () => {
  const seam = await begun();
  await take(seam, model, wrong, assistant(`Answer ${MANY + 1}.`));
  const next = await take(seam, model, after, assistant("Done."));
  expect(next.outcome).toEqual({ kind: "aligned_render", reason: "shadow_mismatch" });
  const again = await seam.prepare(wrong, { now: NOW });
  await expectFullRender(model, again, wrong);
  expect(seam.stats()).toMatchObject({ shadowChecks: 1, shadowMismatches: 1 });
});

describe.each([
  ["at once", 0],
  ["late", 50],
])("streamed, the first token coming %s", (_, firstTokenDelayMs) => {
  test("nothing of the answer to the wrong prompt is seen, and the right one is sent", async () => {
    const seam = await begun({ client });
    const from = server.requests.length;
    server.answer((_, number) => ({ text: `answer ${number}`, firstTokenDelayMs, tokenDelayMs: 5 }));
    const turn = await seam.prepare(wrong, { now: NOW, conversation: "c" });
    expect(turn.outcome).toEqual({ kind: "certified_suffix" });
    const planned = [...promptOf(turn).tokenIds()];
    const chunks: Chunk[] = [];
    for await (const chunk of turn.stream()) chunks.push(chunk);

    await sleep(20);
    // The first one may have been given up before it reached the server.
    const sent = chatsSince(from);
    const given = sent.slice(0, -1);
    expect(given.length).toBeLessThanOrEqual(1);
    expect(given.map(({ aborted, ids }) => [aborted, [...(ids ?? [])]])).toEqual(
      given.map(() => [true, planned]),
    );
    expect([...(sent.at(-1)?.ids ?? [])]).toEqual(await fullRender(model, wrong));
    const text = chunks.flatMap((chunk) => (chunk.type === "text" ? chunk.text : [])).join("");
    expect(text).toBe(`answer ${given.length}`);
    expect(chunks.filter(({ type }) => type === "start")).toHaveLength(1);

    expect(turn.outcome).toEqual({ kind: "full_render", reason: "shadow_mismatch" });
    await expectFullRender(model, turn, wrong);
    expect(await turn.committed).toEqual({ status: "committed" });
    const next = await seam.prepare({ append: [user("More?")] }, { now: NOW, conversation: "c" });
    await expectFullRender(model, next, {
      messages: [...wrong.messages, assistant(text), user("More?")],
    });
    expect(seam.stats()).toMatchObject({ shadowMismatches: 1, committed: 2 });
  });
});

test("a body for a client of the caller's own has the right ids", async () => {
  const seam = await begun({ client });
  const turn = await seam.prepare(wrong, { now: NOW });
  const body = JSON.parse((await turn.body("chat_ids")).toString());
  expect(body.kv_transfer_params.prompt_token_ids).toEqual(await fullRender(model, wrong));
});

describe("how much is checked", () => {
  /** Certified turns of one class, all of them right. */
  async function checksOf(turns: number, shadow: SeamOptions["shadow"]): Promise<number> {
    const seam = new Seam({ model, ...(shadow === undefined ? {} : { shadow }) });
    await take(seam, model, history(1), assistant("Answer 1."));
    for (let at = 0; at < turns; at++) {
      const turn = await seam.prepare(history(3), { now: NOW, tenant: "" });
      expect(turn.outcome).toEqual({ kind: "certified_suffix" });
    }
    expect(seam.stats().shadowMismatches).toBe(0);
    return seam.stats().shadowChecks;
  }

  test("all of a class until as many as were asked for have passed", async () => {
    expect(await checksOf(10, { first: 4, share: 0 })).toBe(4);
    expect(await checksOf(10, { first: 0, share: 0 })).toBe(0);
  });

  test("then a share of them", async () => {
    expect(await checksOf(10, { first: 0, share: 1 })).toBe(10);
    expect(await checksOf(40, { first: 0, share: 1 / 4 })).toBe(10);
    expect(await checksOf(20, { first: 0, share: 0.7 })).toBeGreaterThanOrEqual(13);
  });

  test("64 and a sixteenth where nothing is said", async () => {
    const checks = await checksOf(64 + 32, undefined);
    expect(checks).toBeGreaterThanOrEqual(66);
    expect(checks).toBeLessThanOrEqual(67);
  });
});

describe("a template that refuses what the plan did not see", () => {
  let strict: Model;
  beforeAll(async () => {
    strict = await tinyModel(
      `{% if messages | length > ${MANY} %}{{ raise_exception('too many') }}{% endif %}${CHATML}`,
    );
  });
  afterAll(() => strict.close());

  test("prepare is refused as the full render is, again and again", async () => {
    const seam = await begun({}, strict);
    for (let time = 0; time < 3; time++) {
      await expect(seam.prepare(wrong, { now: NOW })).rejects.toMatchObject({ code: "PS_TEMPLATE_RAISED" });
    }
  });

  test("a stream fails before its first chunk, its request is aborted, and nothing is moved", async () => {
    const seam = await begun({ client }, strict);
    server.answer({ text: "ok", firstTokenDelayMs: 100 });
    const from = server.requests.length;
    const turn = await seam.prepare(wrong, { now: NOW });
    const chunks: Chunk[] = [];
    const reading = (async () => {
      for await (const chunk of turn.stream()) chunks.push(chunk);
    })();
    await expect(reading).rejects.toMatchObject({ code: "PS_TEMPLATE_RAISED" });
    await expect(turn.committed).rejects.toMatchObject({ code: "PS_TEMPLATE_RAISED" });
    expect(chunks).toEqual([]);
    await sleep(20);
    expect(chatsSince(from).every(({ aborted }) => aborted)).toBe(true);
    expect(seam.stats()).toMatchObject({ committed: 1, abandoned: 1 });
  });
});

test("a template that is another on another day", async () => {
  const changing = await tinyModel(
    `{% if strftime_now('%d') | int > 14 %}<|im_start|>{{ messages | length }}<|im_end|>\n{% endif %}${CHATML}`,
  );
  const seam = new Seam({ model: changing });
  await take(seam, changing, history(1), assistant("Answer 1."));
  const turn = await take(seam, changing, history(3), assistant("Answer 3."));
  expect(turn.outcome).toEqual({ kind: "certified_suffix" });
  // Certified in a conversation of the day before, which this one is not of.
  const other = { now: NEXT_DAY, tenant: "other" };
  await take(seam, changing, history(1), assistant("Answer 1."), other);
  const next = await take(seam, changing, history(3), assistant("Answer 3."), other);
  expect(next.outcome.kind).not.toBe("certified_suffix");
  changing.close();
});
