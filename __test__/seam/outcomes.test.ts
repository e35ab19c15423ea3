/** For each reason: the rung that is taken, the ids, and what the next turn goes on from. */

import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import {
  MemoryStore,
  Model,
  type PrepareOptions,
  Seam,
  type SeamOptions,
  VllmClient,
} from "../../ts/index.ts";
import { startTestServer } from "../../ts/testing/index.ts";
import { modelFolder } from "../support.ts";
import {
  assistant,
  BARE,
  called,
  expectFullRender,
  NEXT_DAY,
  NOW,
  OddStore,
  promptOf,
  type Request,
  result,
  take,
  testModel,
  tool,
  user,
} from "./support.ts";
import { CHATML, tinyModel } from "./tiny-model.ts";

let model: Model;
let qwen3: Model;
let mistral: Model;
beforeAll(async () => {
  [model, qwen3, mistral] = await Promise.all([
    tinyModel(),
    Model.load(modelFolder("qwen3")),
    Model.load(modelFolder("mistral")),
  ]);
});
afterAll(() => {
  for (const each of [model, qwen3, mistral]) each.close();
});
afterEach(() => vi.useRealTimers());

const CERTIFIED = { kind: "certified_suffix" };
const conversation = "c";
const dated: Request = { messages: [user("One?")], chat_template_kwargs: { dated: true } };
const first: Request = { messages: [{ role: "system", content: "Be brief." }, user("One?")] };

/** The request after `request`, whose answer was "One.". */
function next(request: Request, content = "And two?"): Request {
  return { ...request, messages: [...request.messages, assistant("One."), user(content)] };
}

/** Moves the clock on. */
function later(ms: number): void {
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + ms });
}

/** A turn of a conversation in which nothing is odd is gone on from. */
async function expectGoesOn(
  seam: Seam,
  on: Model,
  request: Request,
  options: PrepareOptions = {},
): Promise<void> {
  const turn = await seam.prepare(next(request), { now: NOW, ...options });
  expect(turn.outcome).toEqual(CERTIFIED);
  await expectFullRender(on, turn, next(request), options.now);
}

const bare = (options: Partial<SeamOptions> = {}) => new Seam({ model, ...BARE, ...options });

test("no_checkpoint: a history that nothing begins is rendered whole", async () => {
  const seam = bare();
  const turn = await take(seam, model, first, assistant("One."), { conversation });
  expect(turn.outcome).toEqual({ kind: "full_render", reason: "no_checkpoint" });
  expect([turn.prefixLength, turn.certificate, turn.drift]).toEqual([0, null, "unknown"]);
  await expectGoesOn(seam, model, first, { conversation });
});

test("certified_suffix: the prompt that was sent is kept up to its seam", async () => {
  const seam = bare();
  const sent = await take(seam, model, first, assistant("One."));
  const turn = await take(seam, model, next(first), assistant("One."));
  expect(turn.outcome).toEqual(CERTIFIED);
  expect(turn.prefixLength).toBe(sent.seam);
  expect(promptOf(sent).diff(promptOf(turn)).commonPrefix).toBeGreaterThanOrEqual(turn.prefixLength);
  expect(turn.appendedLength).toBe(promptOf(turn).length - turn.prefixLength);
  expect(turn.certificate).toMatchObject({
    boundary: sent.seam,
    prefixTokens: promptOf(sent).length,
    tenant: "",
  });
  await expectGoesOn(seam, model, next(first));
});

test("prefix_mismatch: a known conversation, edited from its first message, is aligned with what it was", async () => {
  const seam = bare();
  const long = {
    messages: [
      { role: "system", content: "Be brief. ".repeat(200) },
      user("One?"),
      assistant("One."),
      user("Two?"),
    ],
  };
  await take(seam, model, long, assistant("One."), { conversation });
  const edited = { messages: [long.messages[0] as never, user("Three?")] };
  const turn = await take(seam, model, edited, assistant("One."), { conversation });
  expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "prefix_mismatch" });
  expect(turn.prefixLength).toBeGreaterThan(300);
  await expectGoesOn(seam, model, edited, { conversation });
});

test("artifact_miss: a known conversation whose artifacts were evicted is rendered whole", async () => {
  const seam = bare({ store: new MemoryStore({ maxBytes: 6_000 }) });
  await take(seam, model, first, assistant("One."), { conversation });
  await take(seam, model, { messages: [user("Something else. ".repeat(200))] }, assistant("One."), {
    conversation: "other",
  });
  const turn = await take(seam, model, next(first), assistant("One."), { conversation });
  expect(turn.outcome).toEqual({ kind: "full_render", reason: "artifact_miss" });
  await expectGoesOn(seam, model, next(first), { conversation });
});

test("artifact_expired: what may not be used any longer is not", async () => {
  const seam = bare({ ttlMs: 1_000 });
  await take(seam, model, first, assistant("One."), { conversation });
  later(1_001);
  const turn = await take(seam, model, next(first), assistant("One."), { conversation });
  expect(turn.outcome).toEqual({ kind: "full_render", reason: "artifact_expired" });
  expect(turn.prefixLength).toBe(0);
  await expectGoesOn(seam, model, next(first), { conversation });
});

test("artifact_expired: not even what an edited history has in common with it", async () => {
  const seam = bare({ ttlMs: 1_000 });
  const long = { messages: [{ role: "system", content: "Be brief. ".repeat(200) }, user("One?")] };
  await take(seam, model, long, assistant("One."), { conversation });
  later(1_001);
  const edited = { messages: [long.messages[0] as never, user("Two?")] };
  const turn = await take(seam, model, edited, assistant("Two."), { conversation });
  expect([turn.outcome.kind, turn.prefixLength]).toEqual(["full_render", 0]);
});

test("artifact_expired: an answer that is given again is kept again", async () => {
  const seam = bare({ ttlMs: 1_000 });
  await take(seam, model, first, assistant("One."), { conversation });
  later(1_001);
  await take(seam, model, first, assistant("One."), { conversation });
  await expectGoesOn(seam, model, first, { conversation });
});

describe("fingerprint_mismatch", () => {
  const tools = [tool("read"), tool("write")];
  const withTools = { ...first, tools };

  test.each<[string, Request, Partial<Request>]>([
    ["model", first, { model: "another" }],
    ["salt", first, { cache_salt: "pepper" }],
    ["tools", first, { tools }],
    ["tools", withTools, { tools: [...tools].reverse() }],
    ["tools", withTools, { tools: [tool("read", "Reads."), tool("write")] }],
    ["reasoning", first, { chat_template_kwargs: { enable_thinking: false } }],
    ["arguments", first, { add_generation_prompt: false }],
  ])("%s, by the request", async (field, request, change) => {
    const seam = bare();
    await take(seam, model, request, assistant("One."), { conversation });
    const changed = { ...next(request), ...change } as Request;
    const turn = await take(seam, model, changed, assistant("One."), { conversation });
    expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "fingerprint_mismatch", field });
    expect(turn.certificate).toBeNull();
    if (field !== "arguments") await expectGoesOn(seam, model, changed, { conversation });
  });

  test("lora, by the options of the turn", async () => {
    const seam = bare();
    await take(seam, model, first, assistant("One."));
    const turn = await take(seam, model, next(first), assistant("One."), { lora: "poet" });
    expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "fingerprint_mismatch", field: "lora" });
    await expectGoesOn(seam, model, next(first), { lora: "poet" });
  });

  test("model, by the revision of the Seam", async () => {
    const store = new MemoryStore();
    await take(bare({ store, revision: "1" }), model, first, assistant("One."));
    const seam = bare({ store, revision: "2" });
    const turn = await take(seam, model, next(first), assistant("One."));
    expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "fingerprint_mismatch", field: "model" });
    await expectGoesOn(seam, model, next(first));
  });

  test("date, where the clock is followed across midnight", async () => {
    const seam = bare({ clock: "follow" });
    await take(seam, model, dated, assistant("One."));
    const turn = await take(seam, model, next(dated), assistant("One."), { now: NEXT_DAY });
    expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "fingerprint_mismatch", field: "date" });
    await expectGoesOn(seam, model, next(dated), { now: NEXT_DAY });
  });

  test("template, by another model on the same store", async () => {
    await using other = await tinyModel(CHATML.replaceAll("assistant", "model"));
    const store = new MemoryStore();
    await take(bare({ store }), model, first, assistant("One."));
    const seam = new Seam({ model: other, store, ...BARE });
    const turn = await take(seam, other, next(first), assistant("One."));
    expect(turn.outcome).toEqual({
      kind: "aligned_render",
      reason: "fingerprint_mismatch",
      field: "template",
    });
    await expectGoesOn(seam, other, next(first));
  });

  test("tokenizer, by another model on the same store", async () => {
    await using other = await tinyModel(CHATML, []);
    const store = new MemoryStore();
    await take(bare({ store }), model, first, assistant("One."));
    const turn = await new Seam({ model: other, store, ...BARE }).prepare(next(first), { now: NOW });
    await expectFullRender(other, turn, next(first));
    expect(turn.outcome).toEqual({
      kind: "aligned_render",
      reason: "fingerprint_mismatch",
      field: "tokenizer",
    });
    expect(turn.prefixLength).toBe(0);
  });
});

test("unsafe_boundary: without an added token near the prompt's end, nothing is sewn on", async () => {
  const chatTemplate =
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }} <|endoftext|>{% endif %}{% endfor %}";
  await using llama2 = await tinyModel(chatTemplate);
  const seam = new Seam({ model: llama2, ...BARE });
  const short = { messages: [user("One?"), assistant("One."), user("Two?")] };
  await take(seam, llama2, short, assistant("One."));
  await expectGoesOn(seam, llama2, short);

  const long = { messages: [user("One?"), assistant("One."), user("Two? ".repeat(900))] };
  const sent = await take(seam, llama2, long, assistant("One."));
  expect(sent.seam).toBeNull();
  const turn = await take(seam, llama2, next(long), assistant("One."));
  expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "unsafe_boundary" });
  await expectGoesOn(seam, llama2, next(long));
});

describe("tenant_mismatch", () => {
  async function withAStoreThatMixesTenants() {
    const store = new OddStore(new MemoryStore());
    const seam = bare({ store });
    await take(seam, model, first, assistant("One."), { conversation, tenant: "a" });
    store.odd.find = (_, digests) => store.inner.find("a", digests);
    return { store, seam };
  }

  test("nothing of another tenant's artifact is used", async () => {
    const { seam, store } = await withAStoreThatMixesTenants();
    const turn = await take(seam, model, next(first), assistant("One."), { conversation, tenant: "b" });
    expect(turn.outcome).toEqual({ kind: "full_render", reason: "tenant_mismatch" });
    expect([turn.prefixLength, turn.certificate]).toEqual([0, null]);
    delete store.odd.find;
    await expectGoesOn(seam, model, next(first), { conversation, tenant: "b" });
  });

  test("nothing of another tenant's checkpoint is, either", async () => {
    const store = new OddStore(new MemoryStore());
    const seam = bare({ store });
    const long = { messages: [{ role: "system", content: "Be brief. ".repeat(200) }, user("One?")] };
    await take(seam, model, long, assistant("One."), { conversation, tenant: "a" });
    store.odd.load = (_, name) => store.inner.load("a", name);
    // Had it been aligned with, its length would tell how much of it was guessed.
    const guess = { messages: [long.messages[0] as never, user("Two?")] };
    const turn = await seam.prepare(guess, { now: NOW, conversation, tenant: "b" });
    await expectFullRender(model, turn, guess);
    expect([turn.outcome.kind, turn.prefixLength]).toEqual(["full_render", 0]);
    const appended = seam.prepare({ append: [user("Two?")] }, { now: NOW, conversation, tenant: "b" });
    await expect(appended).rejects.toMatchObject({ name: "PromptseamError" });
  });

  test("its date is not either", async () => {
    const store = new OddStore(new MemoryStore());
    const seam = bare({ store });
    await take(seam, model, dated, assistant("One."), { tenant: "a" });
    store.odd.find = (_, digests) => store.inner.find("a", digests);
    await take(seam, model, next(dated), assistant("One."), { tenant: "b", now: NEXT_DAY });
  });
});

describe("uncertified_template", () => {
  test("a template that prints how many messages there are", async () => {
    const chatTemplate =
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{{ messages | length }} so far<|im_start|>assistant\n";
    await using counting = await tinyModel(chatTemplate);
    const seam = new Seam({ model: counting, ...BARE });
    await take(seam, counting, first, assistant("One."));
    const turn = await take(seam, counting, next(first), assistant("One."));
    expect(turn.outcome).toMatchObject({ kind: "aligned_render" });
    const again = await take(seam, counting, next(next(first)), assistant("One."));
    expect(again.outcome).toMatchObject({ kind: "aligned_render" });
  });

  test("a template that refuses the messages behind a shorter history", async () => {
    // A stand-in history has fewer messages than the real one.
    await using strict = await tinyModel(
      `{% if messages[-1].content == 'Sum up.' and messages | length < 6 %}{{ raise_exception('too early') }}{% endif %}${CHATML}`,
    );
    const seam = new Seam({ model: strict, ...BARE });
    await take(seam, strict, first, assistant("One."));
    await take(seam, strict, next(first), assistant("One."));
    const turn = await take(seam, strict, next(next(first), "Sum up."), assistant("One."));
    expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "uncertified_template" });
    await expectGoesOn(seam, strict, next(next(first), "Sum up."));
  });

  test("instructions in the middle of a conversation", async () => {
    const seam = bare();
    await take(seam, model, first, assistant("One."));
    const { messages } = next(first);
    const instructed = {
      messages: [...messages.slice(0, -1), { role: "system", content: "Now in verse." }, user("Two?")],
    };
    const turn = await take(seam, model, instructed, assistant("One."));
    expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "uncertified_template" });
    const after = await take(seam, model, next(instructed), assistant("One."));
    expect(after.outcome).toEqual({ kind: "aligned_render", reason: "uncertified_template" });
  });

  test("a template that fails here is left to the server, and the turn is kept", async () => {
    await using failing = await tinyModel("{{ messages[0].content.nonesuch.nonesuch }}");
    const seam = new Seam({ model: failing, ...BARE });
    const turn = await seam.prepare(first, { now: NOW, conversation });
    expect(turn.outcome).toEqual({ kind: "messages", reason: "uncertified_template" });
    expect(turn.prompt).toBeNull();
    expect(await turn.commit({ message: assistant("One.") })).toEqual({ status: "committed" });
    const after = await seam.prepare({ append: [user("And two?")] }, { now: NOW, conversation });
    expect(JSON.parse((await after.body()).toString()).messages).toEqual(next(first).messages);
  });
});

describe("template_rewrote_history", () => {
  test("from the token on from which the prompts differ: Qwen3 drops the reasoning of an ended tool loop", async () => {
    const seam = new Seam({ model: qwen3, ...BARE });
    const asked = { messages: [user("One?")] };
    const call = called("call00001", { reasoning: "I must look." });
    await take(seam, qwen3, asked, call);
    const looked = { messages: [...asked.messages, call, result("call00001")] };
    const sent = await take(seam, qwen3, looked, assistant("One."));
    expect(sent.outcome).toEqual(CERTIFIED);
    const turn = await take(seam, qwen3, next(looked), assistant("One."));
    const fromToken = promptOf(sent).diff(promptOf(turn)).commonPrefix;
    expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "template_rewrote_history", fromToken });
    expect(fromToken).toBeLessThan(sent.seam as number);
    await expectGoesOn(seam, qwen3, next(looked));
  });

  test("Mistral prints the tools before the last user message", async () => {
    const seam = new Seam({ model: mistral, ...BARE });
    const request = { messages: [user("One?")], tools: [tool("read")] };
    const sent = await take(seam, mistral, request, assistant("One."));
    const turn = await take(seam, mistral, next(request), assistant("One."));
    const fromToken = promptOf(sent).diff(promptOf(turn)).commonPrefix;
    expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "template_rewrote_history", fromToken });
  });
});

test("content_tests_template: a text that the template looks for, with which the battery does not hold", async () => {
  const chatTemplate =
    "{% set ns = namespace(open=false) %}{% for m in messages %}{% if 'open sesame' in m.content %}{% set ns.open = true %}{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ '!' if ns.open }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n";
  await using cave = await tinyModel(chatTemplate);
  const seam = new Seam({ model: cave, ...BARE });
  await take(seam, cave, first, assistant("One."));
  await expectGoesOn(seam, cave, first);
  const spoken = { messages: [user("open sesame")] };
  await take(seam, cave, spoken, assistant("One."));
  const turn = await take(seam, cave, next(spoken), assistant("One."));
  expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "content_tests_template" });
  const after = await take(seam, cave, next(next(spoken)), assistant("One."));
  expect(after.outcome).toEqual({ kind: "aligned_render", reason: "content_tests_template" });
});

test("unsupported_content: a picture is left to the server, and the conversation goes on without it", async () => {
  const seam = bare();
  await take(seam, model, first, assistant("One."), { conversation });
  const picture = { type: "image_url", image_url: { url: "data:image/png;base64,AA==" } };
  const shown = next(first);
  const request = {
    messages: [...shown.messages.slice(0, -1), user([{ type: "text", text: "What is it?" }, picture])],
  };
  const turn = await seam.prepare(request, { now: NOW, conversation });
  expect(turn.outcome).toEqual({ kind: "messages", reason: "unsupported_content" });
  expect([turn.prompt, turn.appendedLength, turn.certificate]).toEqual([null, 0, null]);
  expect(await turn.commit({ message: assistant("A cat.") })).toEqual({ status: "committed" });

  const still = await seam.prepare({ append: [user("Sure?")] }, { now: NOW, conversation });
  expect(still.outcome).toEqual({ kind: "messages", reason: "unsupported_content" });
  const sent = JSON.parse((await still.body()).toString());
  expect(sent.messages).toEqual([...request.messages, assistant("A cat."), user("Sure?")]);
  await still.commit({ message: assistant("Yes.") });

  await expectGoesOn(seam, model, first, { conversation });
});

test("multiple_choices: the server renders, and the conversation moves to the first choice", async () => {
  const seam = bare();
  const turn = await seam.prepare({ ...first, n: 2 }, { now: NOW, conversation });
  expect(turn.outcome).toEqual({ kind: "messages", reason: "multiple_choices" });
  await turn.commit({ message: assistant("One.") });
  const after = await seam.prepare({ append: [user("And two?")], n: 1 }, { now: NOW, conversation });
  expect(after.outcome).toEqual({ kind: "full_render", reason: "no_checkpoint" });
  await expectFullRender(model, after, next(first));
  await after.commit({ message: assistant("One.") });
  await expectGoesOn(seam, model, next(first), { conversation });
});

test("ids_ignored: a server that counts another prompt is sent the messages, and no ids for a while", async () => {
  // It renders with another template, so that its prompt is longer than ours.
  await using other = await tinyModel(CHATML.replaceAll("assistant", "the assistant"));
  const answers = { text: "One.", tokenDelayMs: 1 };
  await using server = await startTestServer({ model: testModel(other), ignoresIds: true, answers });
  await using client = new VllmClient({ baseUrl: server.baseUrl });
  const seam = bare({ client });
  const turn = await seam.prepare(first, { now: NOW, conversation });
  expect(turn.outcome).toEqual({ kind: "full_render", reason: "no_checkpoint" });
  for await (const _ of turn.stream());
  expect(turn.outcome).toEqual({ kind: "messages", reason: "ids_ignored" });
  expect(await turn.committed).toEqual({ status: "committed" });
  const chats = server.requests.filter(({ path }) => path === "/v1/chat/completions");
  expect(chats.map(({ body }) => "kv_transfer_params" in (body ?? {}))).toEqual([true, false]);

  const after = await seam.prepare(next(first), { now: NOW, conversation });
  expect(after.outcome).toEqual({ kind: "messages", reason: "ids_ignored" });
  // Another Seam, as after a restart, tries again.
  const fresh = await bare({ client }).prepare(first, { now: NOW });
  expect(fresh.outcome).toEqual({ kind: "full_render", reason: "no_checkpoint" });
});

test("a store that gives null for what it does not have knows nothing", async () => {
  const store = new OddStore(new MemoryStore());
  const nothing = () => null as never;
  store.odd = { load: nothing, find: nothing };
  const turn = await bare({ store }).prepare(first, { now: NOW, conversation });
  expect(turn.outcome).toEqual({ kind: "full_render", reason: "no_checkpoint" });
});

describe("store_unavailable", () => {
  const broken = () => {
    throw new Error("the disk is full");
  };
  const silent = () => new Promise<never>(() => {});

  test.each([
    ["fails", broken],
    ["is too slow", silent],
  ])("a store that %s when it is asked", async (_, odd) => {
    const store = new OddStore(new MemoryStore());
    const seam = bare({ store, storeTimeoutMs: 20 });
    await take(seam, model, first, assistant("One."), { conversation });
    store.odd = { find: odd, load: odd, commit: odd };
    const turn = await seam.prepare(next(first), { now: NOW, conversation });
    expect(turn.outcome).toEqual({ kind: "full_render", reason: "store_unavailable" });
    await expectFullRender(model, turn, next(first));
    expect(await turn.commit({ message: assistant("One.") })).toEqual({ status: "not_durable" });
    store.odd = {};
    // The turn before it is still there to go on from.
    await expectGoesOn(seam, model, first, { conversation });
    const after = await take(seam, model, next(next(first)), assistant("One."), { conversation });
    expect(after.outcome).toEqual(CERTIFIED);
  });

  test.each([
    ["fails", broken],
    ["is too slow", silent],
  ])("an append cannot do without a store that %s", async (_, odd) => {
    const store = new OddStore(new MemoryStore());
    const seam = bare({ store, storeTimeoutMs: 20 });
    await take(seam, model, first, assistant("One."), { conversation });
    store.odd.load = odd;
    await expect(
      seam.prepare({ append: [user("And two?")] }, { now: NOW, conversation }),
    ).rejects.toMatchObject({
      code: "PS_STORE",
    });
  });
});

test("disabled: the server renders, and what was said is kept for when it is on again", async () => {
  const store = new MemoryStore();
  const off = bare({ store, mode: "off" });
  const turn = await off.prepare(first, { now: NOW, conversation });
  expect(turn.outcome).toEqual({ kind: "messages", reason: "disabled" });
  expect(turn.prompt).toBeNull();
  expect(await turn.commit({ message: assistant("One.") })).toEqual({ status: "committed" });
  const on = bare({ store });
  const after = await take(on, model, next(first), assistant("One."), { conversation });
  expect(after.outcome).toEqual({ kind: "full_render", reason: "no_checkpoint" });
  await expectGoesOn(on, model, next(first), { conversation });
});

test("a request that the server would refuse is refused, and moves nothing", async () => {
  const seam = new Seam({ model: mistral, ...BARE });
  const asked = { messages: [user("One?")] };
  await take(seam, mistral, asked, assistant("One."), { conversation });
  const twice = { messages: [...next(asked).messages, user("And three?")] };
  await expect(seam.prepare(twice, { now: NOW, conversation })).rejects.toMatchObject({
    code: "PS_TEMPLATE_RAISED",
  });
  await expectGoesOn(seam, mistral, asked, { conversation });
});
