/** The rules of turns: what moves a conversation, what does not, and what can be gone on from. */

import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import {
  type ChatMessage,
  MemoryStore,
  type Model,
  type PrepareOptions,
  Seam,
  type SeamOptions,
} from "../../ts/index.ts";
import {
  assistant,
  BARE,
  called,
  expectFullRender,
  NEXT_DAY,
  NOW,
  OddStore,
  type Request,
  result,
  take,
  tool,
  user,
} from "./support.ts";
import { CHATML, tinyModel } from "./tiny-model.ts";

let model: Model;
beforeAll(async () => {
  model = await tinyModel();
});
afterAll(() => model.close());
afterEach(() => vi.useRealTimers());

const CERTIFIED = { kind: "certified_suffix" };
const conversation = "c";
const here: PrepareOptions = { now: NOW, conversation };
const first: Request = { messages: [user("One?")] };

function later(ms: number): void {
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + ms });
}

const bare = (options: Partial<SeamOptions> = {}) => new Seam({ model, ...BARE, ...options });

/** The request in which `messages` follow those of `request`. */
function then(request: Request, ...messages: ChatMessage[]): Request {
  return { ...request, messages: [...request.messages, ...messages] };
}

/** Appends, and checks that the prompt is that of `whole`. */
async function append(seam: Seam, messages: ChatMessage[], whole: Request, options = here) {
  const turn = await seam.prepare({ append: messages }, options);
  await expectFullRender(model, turn, whole);
  return turn;
}

describe("a turn ends once", () => {
  test("committed, it is neither committed nor abandoned again", async () => {
    const store = new MemoryStore();
    const seam = bare({ store });
    const turn = await seam.prepare(first, here);
    const message = assistant("One.");
    await turn.commit({ message });
    await expect(turn.commit({ message })).rejects.toMatchObject({ code: "PS_CLOSED" });
    turn.abandon();
    expect(await turn.committed).toEqual({ status: "committed" });
    expect(store.stats()).toMatchObject({ conversations: 1, artifacts: 1 });
    expect(seam.stats()).toMatchObject({ committed: 1, abandoned: 0 });
  });

  test("two commits at once are one", async () => {
    const seam = bare();
    const turn = await seam.prepare(first, here);
    const both = [assistant("One."), assistant("Two.")].map((message) => turn.commit({ message }));
    const [one, two] = await Promise.allSettled(both);
    expect(one).toMatchObject({ status: "fulfilled" });
    expect(two).toMatchObject({ status: "rejected", reason: { code: "PS_CLOSED" } });
    await append(seam, [user("Two?")], then(first, assistant("One."), user("Two?")));
  });

  test("abandoned, it moves nothing and cannot be committed", async () => {
    const store = new MemoryStore();
    const seam = bare({ store });
    const turn = await seam.prepare(first, here);
    turn.abandon("no more");
    turn.abandon();
    await expect(turn.committed).rejects.toMatchObject({ code: "PS_ABORTED", cause: "no more" });
    await expect(turn.commit({ message: assistant("One.") })).rejects.toMatchObject({ code: "PS_CLOSED" });
    expect(store.stats()).toMatchObject({ conversations: 0, artifacts: 0 });
    expect(seam.stats().abandoned).toBe(1);
  });

  test.each<[string, unknown]>([
    ["another role", user("One.")],
    ["nothing", null],
    ["broken calls", assistant("", { tool_calls: [{}] })],
    ["a lone surrogate", assistant("\ud800")],
    ["undefined", undefined],
  ])("an answer that is none can be corrected: %s", async (_, message) => {
    const seam = bare();
    const turn = await seam.prepare(first, here);
    const refused = await turn.commit({ message: message as ChatMessage }).catch((error: unknown) => error);
    expect(refused).toMatchObject({ name: "PromptseamError" });
    expect(await turn.commit({ message: assistant("One.") })).toEqual({ status: "committed" });
  });
});

test("ids that the model does not have are not taken for what it wrote", async () => {
  const seam = bare({ history: "sampled" });
  const turn = await seam.prepare(first, here);
  const answer = { message: assistant("One."), sampledIds: Uint32Array.of(7, model.info.idLimit) };
  await expect(turn.commit(answer)).rejects.toMatchObject({ code: "PS_INVALID_TOKEN_ID" });
  expect(await turn.commit({ message: assistant("One.") })).toEqual({ status: "committed" });
});

describe("two turns from one head", () => {
  test("the first to be committed moves it, the other is a branch; both are gone on from", async () => {
    const seam = bare();
    await take(seam, model, first, assistant("One."), here);
    const left = then(first, assistant("One."), user("Left?"));
    const right = then(first, assistant("One."), user("Right?"));
    const [a, b] = await Promise.all([seam.prepare(left, here), seam.prepare(right, here)]);
    expect(await b.commit({ message: assistant("Right.") })).toEqual({ status: "committed" });
    expect(await a.commit({ message: assistant("Left.") })).toEqual({ status: "branched" });
    expect(seam.stats()).toMatchObject({ committed: 2, branched: 1 });

    await append(seam, [user("On?")], then(right, assistant("Right."), user("On?")));
    for (const [request, answer] of [
      [left, "Left."],
      [right, "Right."],
    ] as const) {
      const next = then(request, assistant(answer), user("And?"));
      const turn = await seam.prepare(next, here);
      expect(turn.outcome).toEqual(CERTIFIED);
      await expectFullRender(model, turn, next);
    }
  });

  test("two first turns of one conversation", async () => {
    const seam = bare();
    const turns = await Promise.all([seam.prepare(first, here), seam.prepare(first, here)]);
    const statuses = [];
    for (const [at, turn] of turns.entries()) {
      statuses.push((await turn.commit({ message: assistant(`Answer ${at}.`) })).status);
    }
    expect(statuses).toEqual(["committed", "branched"]);
    await append(seam, [user("On?")], then(first, assistant("Answer 0."), user("On?")));
  });

  test("another answer to the same messages leaves the one before as it was", async () => {
    const seam = bare();
    await take(seam, model, first, assistant("One."), here);
    const again = await take(seam, model, first, assistant("Uno."), here);
    expect(again.outcome).toEqual(CERTIFIED);
    for (const answer of ["One.", "Uno."]) {
      const next = then(first, assistant(answer), user("Two?"));
      const turn = await seam.prepare(next, here);
      expect(turn.outcome).toEqual(CERTIFIED);
      await expectFullRender(model, turn, next);
    }
    await append(seam, [user("Two?")], then(first, assistant("Uno."), user("Two?")));
  });

  test("an edited message starts a branch, and the history before the edit is kept", async () => {
    const seam = bare();
    const second = then(first, assistant("One."), user("Two?"));
    await take(seam, model, first, assistant("One."), here);
    await take(seam, model, second, assistant("Two."), here);
    const edited = then(first, assistant("One."), user("Deux?"));
    const turn = await take(seam, model, edited, assistant("Deux."), here);
    expect(turn.outcome).toEqual(CERTIFIED);
    for (const [request, answer] of [
      [second, "Two."],
      [edited, "Deux."],
    ] as const) {
      const next = then(request, assistant(answer), user("And?"));
      const after = await seam.prepare(next, here);
      expect(after.outcome).toEqual(CERTIFIED);
      await expectFullRender(model, after, next);
    }
  });
});

describe("tool rounds", () => {
  const asked: Request = { ...first, tools: [tool("read")] };
  const looked = then(asked, called("call00001"), result("call00001"));

  test("an append goes on from the open round, and from the answer when that is there", async () => {
    const store = new MemoryStore();
    const seam = bare({ store });
    await take(seam, model, asked, called("call00001"), here);
    expect(store.load("", conversation)).toMatchObject({ version: 1 });
    const second = await append(seam, [result("call00001")], looked);
    expect(second.outcome).toEqual(CERTIFIED);
    await second.commit({ message: called("call00002") });
    const third = await append(
      seam,
      [result("call00002")],
      then(looked, called("call00002"), result("call00002")),
    );
    await third.commit({ message: assistant("It says 42.") });
    const whole = then(
      looked,
      called("call00002"),
      result("call00002"),
      assistant("It says 42."),
      user("Sure?"),
    );
    await append(seam, [user("Sure?")], whole);
  });

  test("a round that was never answered does not hold up a client that sends its history", async () => {
    const seam = bare();
    await take(seam, model, asked, assistant("One."), here);
    const second = then(asked, assistant("One."), user("Look."));
    await take(seam, model, second, called("call00001"), here);
    const other = then(asked, assistant("One."), user("Never mind."));
    const turn = await take(seam, model, other, assistant("Well."), here);
    expect(turn.outcome).toEqual(CERTIFIED);
    await append(seam, [user("Go on.")], then(other, assistant("Well."), user("Go on.")));
  });

  test("a round expires by itself: its history is rendered anew", async () => {
    const seam = bare({ toolRoundTtlMs: 1_000 });
    await take(seam, model, asked, called("call00001"), here);
    later(1_001);
    const turn = await seam.prepare(looked, here);
    expect(turn.outcome).toEqual({ kind: "full_render", reason: "artifact_expired" });
    await expectFullRender(model, turn, looked);
  });

  test.each<[string, ChatMessage]>([
    ["a tool's result", result("call00001")],
    ["a user's message", user("Well?")],
  ])("once it expired, %s is not appended to what was before the round", async (_, message) => {
    const seam = bare({ toolRoundTtlMs: 1_000 });
    await take(seam, model, asked, assistant("One."), here);
    await take(seam, model, then(asked, assistant("One."), user("Look.")), called("call00001"), here);
    later(1_001);
    await expect(seam.prepare({ append: [message] }, here)).rejects.toMatchObject({
      code: "PS_CONVERSATION_UNKNOWN",
    });
  });

  test("parallel calls, their results in another order", async () => {
    const seam = bare();
    const calls = [called("call00001"), called("call00002")].flatMap(({ tool_calls }) => tool_calls as never);
    const both = assistant("", { tool_calls: calls });
    await take(seam, model, asked, both, here);
    const results = [result("call00002", "b"), result("call00001", "a")];
    const turn = await append(seam, results, then(asked, both, ...results));
    expect(turn.outcome).toEqual(CERTIFIED);
  });

  test("a call id that had another name before is not taken for that one", async () => {
    // Results are printed with the name of their call, the first that has the id.
    await using naming = await tinyModel(`
{%- set ns = namespace(name='') -%}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'tool' %}{% set ns.name = '' %}{% for o in messages %}{% for c in o.tool_calls or [] %}
{%- if c.id == m.tool_call_id and not ns.name %}{% set ns.name = c.function.name %}{% endif %}{% endfor %}{% endfor %}{{ ns.name }}: {% endif %}{{ m.content }}<|im_end|>
{% endfor -%}<|im_start|>assistant
`);
    const seam = new Seam({ model: naming, ...BARE });
    const call = (name: string) =>
      assistant("", { tool_calls: [{ id: "same", type: "function", function: { name, arguments: "{}" } }] });
    const one = then(first, call("read"), result("same"));
    await take(seam, naming, first, call("read"));
    await take(seam, naming, one, assistant("One."));
    const two = then(one, assistant("One."), user("Two?"));
    await take(seam, naming, two, call("write"));
    const turn = await take(seam, naming, then(two, call("write"), result("same")), assistant("Two."));
    expect(turn.outcome.kind).toBe("aligned_render");
  });
});

describe("appends", () => {
  test("an unknown conversation cannot be appended to", async () => {
    const seam = bare();
    await take(seam, model, first, assistant("One."), here);
    const unknown = seam.prepare({ append: [user("Two?")] }, { ...here, conversation: "other" });
    await expect(unknown).rejects.toMatchObject({ code: "PS_CONVERSATION_UNKNOWN" });
    const nobodys = seam.prepare({ append: [user("Two?")] }, { now: NOW });
    await expect(nobodys).rejects.toMatchObject({ code: "PS_INVALID_ARGUMENT" });
    await expect(seam.prepare({ append: [] }, here)).rejects.toMatchObject({ code: "PS_INVALID_REQUEST" });
  });

  test("a message that is none is refused, and the conversation stays", async () => {
    const seam = bare();
    await take(seam, model, first, assistant("One."), here);
    for (const message of [{}, { role: 7 }, 7, null]) {
      const refused = seam.prepare({ append: [message as never] }, here);
      await expect(refused).rejects.toMatchObject({ code: "PS_INVALID_REQUEST" });
    }
    await append(seam, [user("Two?")], then(first, assistant("One."), user("Two?")));
  });

  test("an append that has a history too is neither", async () => {
    const seam = bare();
    await take(seam, model, first, assistant("One."), here);
    const both = { append: [user("Two?")], messages: [user("Two?")] } as never;
    await expect(seam.prepare(both, here)).rejects.toMatchObject({ code: "PS_INVALID_REQUEST" });
  });

  test("members that are not named are those of the turn before", async () => {
    const seam = bare();
    const request = { ...first, tools: [tool("read")], chat_template_kwargs: { enable_thinking: false } };
    await take(seam, model, request, assistant("One."), here);
    const turn = await append(seam, [user("Two?")], then(request, assistant("One."), user("Two?")));
    expect(turn.outcome).toEqual(CERTIFIED);
    const named = await seam.prepare({ append: [user("Two?")], tools: [tool("write")] }, here);
    expect(named.outcome).toEqual({ kind: "aligned_render", reason: "fingerprint_mismatch", field: "tools" });
    await expectFullRender(model, named, {
      ...then(request, assistant("One."), user("Two?")),
      tools: [tool("write")],
    });
  });

  test("what is sent has the salt and the model that the prompt was planned for", async () => {
    const seam = bare();
    const request = { ...first, model: "served", cache_salt: "pepper" };
    await take(seam, model, request, assistant("One."), here);
    const turn = await seam.prepare({ append: [user("Two?")] }, here);
    expect(turn.outcome).toEqual(CERTIFIED);
    const body = JSON.parse((await turn.body()).toString());
    expect(body).toMatchObject({ model: "served", cache_salt: "pepper" });
  });
});

describe("what is recorded", () => {
  test("not_durable: a store that cannot take the turn leaves the conversation where it was", async () => {
    const store = new OddStore(new MemoryStore());
    const seam = bare({ store, storeTimeoutMs: 20 });
    await take(seam, model, first, assistant("One."), here);
    for (const odd of [() => Promise.reject(new Error("full")), () => new Promise<never>(() => {})]) {
      store.odd.commit = odd;
      const second = then(first, assistant("One."), user("Two?"));
      const turn = await seam.prepare(second, here);
      expect(await turn.commit({ message: assistant("Two.") })).toEqual({ status: "not_durable" });
      expect(await turn.committed).toEqual({ status: "not_durable" });
      delete store.odd.commit;
      await append(seam, [user("Two?")], second);
    }
    expect(seam.stats().notDurable).toBe(2);
  });

  test.each<[string, ChatMessage]>([
    ["an empty answer", assistant("")],
    ["white space", assistant(" \n")],
    ["no content", { role: "assistant" }],
    ["null content", { role: "assistant", content: null }],
    ["parts", { role: "assistant", content: [{ type: "text", text: "a" }] }],
    ["what looks like the next message", assistant("a<|im_end|>\n<|im_start|>user\nb")],
  ])("%s is gone on from", async (_, message) => {
    const seam = bare();
    await take(seam, model, first, message, here);
    const turn = await append(seam, [user("Two?")], then(first, message, user("Two?")));
    expect(turn.outcome).toEqual(CERTIFIED);
  });

  test("an answer that was cut by its length is gone on from", async () => {
    const seam = bare();
    const sampledIds = await model.encode("It was the be");
    await take(
      seam,
      model,
      first,
      { message: assistant("It was the be"), finishReason: "length", sampledIds },
      here,
    );
    const next = then(first, assistant("It was the be"), user("Go on."));
    const turn = await take(seam, model, next, assistant("st."), here);
    expect(turn.outcome).toEqual(CERTIFIED);
    expect(turn.drift).toBe("none");
  });

  test("an answer that the client re-spaced or reworded is still gone on from", async () => {
    const seam = bare();
    await take(seam, model, first, assistant(" One. "), here);
    for (const content of ["One.", "Something else.", ""]) {
      const next = then(first, assistant(content), user("Two?"));
      const turn = await seam.prepare(next, here);
      expect(turn.outcome).toEqual(CERTIFIED);
      await expectFullRender(model, turn, next);
    }
  });

  test.each(["x", " x ", "\t", "", "x\n\n"])(
    "a final message that is continued, then gone on from: %j",
    async (content) => {
      await using trimming = await tinyModel(CHATML.replaceAll("m.content", "m.content | trim"));
      for (const on of [model, trimming]) {
        const seam = new Seam({ model: on, ...BARE });
        const settings = { continue_final_message: true, add_generation_prompt: false };
        const request = { messages: [user("One?"), assistant("One."), user(content)], ...settings };
        await take(seam, on, request, assistant("Two."));
        await take(seam, on, then(request, assistant("Two."), user("Three?")), assistant("Three."));
      }
    },
  );

  test("tenants with the same conversation do not see each other's", async () => {
    const store = new MemoryStore();
    const seam = bare({ store });
    await take(seam, model, first, assistant("One."), { ...here, tenant: "a" });
    const stranger = { ...here, tenant: "b" };
    await expect(seam.prepare({ append: [user("Two?")] }, stranger)).rejects.toMatchObject({
      code: "PS_CONVERSATION_UNKNOWN",
    });
    const turn = await take(seam, model, first, assistant("Uno."), stranger);
    expect(turn.outcome).toEqual({ kind: "full_render", reason: "no_checkpoint" });
    for (const [tenant, answer] of [
      ["a", "One."],
      ["b", "Uno."],
    ] as const) {
      await append(seam, [user("Two?")], then(first, assistant(answer), user("Two?")), { ...here, tenant });
    }
  });

  test("when midnight passes, the date stays that of the first turn", async () => {
    const seam = bare();
    const dated = { ...first, chat_template_kwargs: { dated: true } };
    await take(seam, model, dated, assistant("One."), here);
    const tomorrow = { ...here, now: NEXT_DAY };
    const second = then(dated, assistant("One."), user("Two?"));
    for (const turn of [
      await seam.prepare(second, tomorrow),
      await seam.prepare({ append: [user("Two?")] }, tomorrow),
    ]) {
      expect(turn.outcome).toEqual(CERTIFIED);
      await expectFullRender(model, turn, second, NOW);
    }
    const other = await seam.prepare(dated, { now: NEXT_DAY, tenant: "other" });
    await expectFullRender(model, other, dated, NEXT_DAY);
  });

  test("a Seam that is made anew goes on with what is stored", async () => {
    const store = new MemoryStore();
    await take(bare({ store }), model, first, assistant("One."), here);
    const turn = await append(bare({ store }), [user("Two?")], then(first, assistant("One."), user("Two?")));
    expect(turn.outcome).toEqual(CERTIFIED);
  });
});

describe("reasoning that the client leaves out", () => {
  const call = called("call00001", { reasoning: "I must look." });
  const { reasoning: _, ...bald } = call;
  const sent = then(first, bald as ChatMessage, result("call00001"));
  const whole = then(first, call, result("call00001"));
  const sentOn = then(sent, assistant("It says 42."), user("Sure?"));
  const wholeOn = then(whole, assistant("It says 42."), user("Sure?"));

  test("as_sent: it stays out", async () => {
    const seam = bare();
    await take(seam, model, first, call, here);
    await take(seam, model, sent, assistant("It says 42."), here);
    const turn = await take(seam, model, sentOn, assistant("Yes."), here);
    expect(turn.outcome).toEqual(CERTIFIED);
  });

  test("restore: inside a tool loop it is put back, and stays", async () => {
    const seam = bare({ omittedReasoning: "restore" });
    await take(seam, model, first, call, here);
    for (const [request, printed, answer] of [
      [sent, whole, "It says 42."],
      [sentOn, wholeOn, "Yes."],
    ] as const) {
      const turn = await seam.prepare(request, here);
      expect(turn.outcome).toEqual(CERTIFIED);
      await expectFullRender(model, turn, printed);
      await turn.commit({ message: assistant(answer) });
    }
  });

  test("restore: not in place of another answer, nor outside of a tool loop", async () => {
    const seam = bare({ omittedReasoning: "restore" });
    await take(seam, model, first, call, here);
    const other = then(first, { ...(bald as ChatMessage), content: "Let me see." }, result("call00001"));
    await expectFullRender(model, await seam.prepare(other, here), other);
    const answered: Request = { messages: [user("Two?")] };
    await take(seam, model, answered, assistant("Two.", { reasoning: "Easy." }), here);
    const next = then(answered, assistant("Two."), user("And?"));
    await expectFullRender(model, await seam.prepare(next, here), next);
  });

  test.each(["object", "bytes"])(
    "restore: messages that are sent beside the ids have it too, for %s",
    async (form) => {
      const seam = bare({ omittedReasoning: "restore" });
      await take(seam, model, first, call, here);
      const request = form === "object" ? sent : Buffer.from(JSON.stringify(sent));
      const turn = await seam.prepare(request, here);
      const { messages } = JSON.parse((await turn.body("messages")).toString());
      expect(messages).toEqual(whole.messages);
    },
  );

  test("as_sent on the store of a Seam that restores: it stays out", async () => {
    const store = new MemoryStore();
    const restoring = bare({ store, omittedReasoning: "restore" });
    await take(restoring, model, first, call, here);
    const turn = await restoring.prepare(sent, here);
    await turn.commit({ message: assistant("It says 42.") });
    const seam = bare({ store });
    await expectFullRender(model, await seam.prepare(sent, here), sent);
    await expectFullRender(model, await seam.prepare(sentOn, here), sentOn);
  });
});

describe("signals", () => {
  test("an aborted signal plans nothing, however little there is to plan", async () => {
    const seam = bare();
    await take(seam, model, first, assistant("One."), here);
    const second = then(first, assistant("One."), user("Two?"));
    await take(seam, model, second, assistant("Two."), here);
    const signal = AbortSignal.abort("enough");
    for (const request of [first, second, { append: [user("Three?")] }]) {
      await expect(seam.prepare(request, { ...here, signal })).rejects.toMatchObject({
        code: "PS_ABORTED",
        cause: "enough",
      });
    }
  });
});
