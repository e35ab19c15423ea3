/** `history: "sampled"`: the model's own ids stand for its messages, and all else is the full render. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ChatMessage, MemoryStore, Model, Seam, type SeamOptions, type Turn } from "../../ts/index.ts";
import { modelFolder } from "../support.ts";
import {
  assistant,
  BARE,
  called,
  expectFullRender,
  fullRender,
  NOW,
  promptOf,
  type Request,
  result,
  user,
} from "./support.ts";
import { tinyModel } from "./tiny-model.ts";

let model: Model;
beforeAll(async () => {
  model = await Model.load(modelFolder("qwen3"));
});
afterAll(() => model.close());

const first: Request = { messages: [user("One?")] };
const here = { now: NOW, conversation: "c" };

const sampling = (options: Partial<SeamOptions> = {}) =>
  new Seam({ model, history: "sampled", ...BARE, ...options });

function then(request: Request, ...messages: ChatMessage[]): Request {
  return { ...request, messages: [...request.messages, ...messages] };
}

/** Ids of the pieces one by one, and the stop token: not always what their text encodes to. */
async function wrote(...pieces: string[]): Promise<Uint32Array> {
  const ids: number[] = [];
  for (const piece of pieces) ids.push(...(await model.encode(piece)));
  return Uint32Array.from([...ids, model.info.stopTokenIds[0] as number]);
}

/** The prompt with the rendered ids of each span back in their place. */
async function expectEqualOutsideSpans(turn: Turn, request: Request): Promise<void> {
  const full = await fullRender(model, request);
  const ids = [...promptOf(turn).tokenIds()];
  let moved = 0;
  for (const { start, end, rendered } of turn.sampledSpans) {
    const from = start + moved;
    ids.splice(from, end - start, ...full.slice(from, from + rendered));
    expect(rendered).toBeGreaterThan(0);
    moved += rendered - (end - start);
  }
  // Were the counts wrong, what stands behind the spans would be too.
  const holes = turn.sampledSpans.length;
  expect([holes, ids]).toEqual([holes, full]);
}

const said = assistant("Hello there.", { reasoning: "Greet." });
const THOUGHT = "<think>\nGreet.\n</think>\n\n";

test("what the model wrote stays, thoughts and all, between the seam and the token that closes it", async () => {
  const seam = sampling();
  const sent = await seam.prepare(first, here);
  const sampledIds = await wrote(THOUGHT, "Hel", "lo the", "re.");
  await sent.commit({ message: said, sampledIds });
  const next = then(first, said, user("Two?"));
  const turn = await seam.prepare(next, here);
  expect(turn.outcome).toEqual({ kind: "certified_suffix" });
  expect([turn.drift, turn.prefixLength]).toEqual(["none", promptOf(sent).length]);
  const [span] = turn.sampledSpans;
  expect(span?.start).toBe(sent.seam);
  const ids = promptOf(turn).tokenIds();
  expect([...ids.subarray(promptOf(sent).length, span?.end)]).toEqual([...sampledIds.subarray(0, -1)]);
  await expectEqualOutsideSpans(turn, next);
});

test("spans gather along the conversation", async () => {
  const seam = sampling();
  let request = first;
  for (let at = 0; at < 4; at++) {
    const turn = await seam.prepare(request, here);
    expect(turn.sampledSpans).toHaveLength(at);
    await expectEqualOutsideSpans(turn, request);
    await turn.commit({ message: said, sampledIds: await wrote(THOUGHT, "Hel", "lo there.") });
    request = then(request, said, user(`And ${at}?`));
  }
});

test("a client that keeps its history short still gets the ids: appends", async () => {
  const seam = sampling();
  const sent = await seam.prepare(first, here);
  await sent.commit({ message: said, sampledIds: await wrote(THOUGHT, "Hel", "lo there.") });
  const turn = await seam.prepare({ append: [user("Two?")] }, here);
  expect(turn.sampledSpans).toHaveLength(1);
  await expectEqualOutsideSpans(turn, then(first, said, user("Two?")));
});

describe("without spans, where the ids do not stand for what the client says", () => {
  test.each<[string, ChatMessage]>([
    ["another answer", assistant("Good-bye.")],
    ["a trimmed one", assistant("Hello there")],
    ["one with calls", called("call00001")],
  ])("%s", async (_, message) => {
    const seam = sampling();
    const sent = await seam.prepare(first, here);
    await sent.commit({ message: said, sampledIds: await wrote(THOUGHT, "Hello there.") });
    const next = then(first, message, user("Two?"));
    const turn = await seam.prepare(next, here);
    expect([turn.sampledSpans, turn.drift]).toEqual([[], "unknown"]);
    await expectFullRender(model, turn, next);
  });

  test("ids that are not known", async () => {
    const seam = sampling();
    await (await seam.prepare(first, here)).commit({ message: said });
    const next = then(first, said, user("Two?"));
    const turn = await seam.prepare(next, here);
    expect(turn.sampledSpans).toEqual([]);
    await expectFullRender(model, turn, next);
  });
});

test.each<[string, ChatMessage, string[], boolean]>([
  ["an empty answer", assistant(""), [], true],
  ["one cut by its length", assistant("Hello th"), ["Hello th"], false],
  ["one that spells the closing token", assistant("a<|im_end|>b"), ["a<|im_end|>b"], true],
  ["the answer that stands in for others", assistant("Other."), ["Other."], true],
  ["one that ends as that does", assistant("An Other."), ["An Ot", "her."], true],
  ["white space", assistant("\n\n"), ["\n\n"], true],
  [
    "calls",
    called("call00001"),
    ['<tool_call>\n{"name": "read", "arguments": {"path": "a"}}\n</tool_call>'],
    true,
  ],
])("%s is closed as the template closes it", async (_, message, pieces, stops) => {
  const seam = sampling();
  const sent = await seam.prepare(first, here);
  const ids = await wrote(...pieces);
  await sent.commit({ message, sampledIds: stops ? ids : ids.subarray(0, -1) });
  const after = message["tool_calls"] === undefined ? user("Two?") : result("call00001");
  const next = then(first, message, after);
  const turn = await seam.prepare(next, here);
  expect(turn.sampledSpans).toHaveLength(1);
  await expectEqualOutsideSpans(turn, next);
});

describe("drift, where histories are rendered", () => {
  test.each<[string, string[], ChatMessage]>([
    ["none", ["Hello there."], assistant("Hello there.")],
    ["drifted", ["Hel", "lo the", "re."], assistant("Hello there.")],
    ["rewritten", [THOUGHT, "Hello there."], said],
    ["rewritten", ["Hello there. "], assistant("Hello there.")],
  ])("%s: %j", async (drift, pieces, message) => {
    const seam = sampling({ history: "rendered" });
    await (await seam.prepare(first, here)).commit({ message, sampledIds: await wrote(...pieces) });
    const next = then(first, message, user("Two?"));
    const turn = await seam.prepare(next, here);
    expect([turn.drift, turn.sampledSpans]).toEqual([drift, []]);
    await expectFullRender(model, turn, next);
    expect(seam.stats().drift).toMatchObject({ unknown: 1, [drift]: 1 });
  });
});

test("drift is no less where what was written stands further on, at the start of a chunk of ids", async () => {
  await using tiny = await tinyModel();
  const seam = new Seam({ model: tiny, ...BARE });
  const sent = await seam.prepare(first, here);
  const opening = "assistant\n";
  const filler = "x".repeat(1_024 - (sent.seam as number) - (await tiny.encode(opening)).length);
  const message = assistant(`${filler}${opening}Hello.`);
  await sent.commit({ message, sampledIds: await tiny.encode("Hello.<|im_end|>") });
  const turn = await seam.prepare(then(first, message, user("Two?")), here);
  expect(turn.drift).toBe("rewritten");
});

describe("a conversation with sampled ids in it", () => {
  async function begun(store: MemoryStore): Promise<Request> {
    const seam = sampling({ store });
    const sampledIds = await wrote(THOUGHT, "Hel", "lo there. ".repeat(200));
    const message = { ...said, content: "Hello there. ".repeat(200) };
    await (await seam.prepare(first, here)).commit({ message, sampledIds });
    const second = then(first, message, user("Two?"));
    const turn = await seam.prepare(second, here);
    expect(turn.sampledSpans).toHaveLength(1);
    await turn.commit({ message: assistant("Two."), sampledIds: await wrote("Two.") });
    return second;
  }

  test("has none in the prompts of a Seam that renders its history", async () => {
    const store = new MemoryStore();
    const second = await begun(store);
    const third = then(second, assistant("Two."), user("Three?"));
    for (const request of [second, third]) {
      const turn = await sampling({ store, history: "rendered" }).prepare(request, here);
      expect(turn.sampledSpans).toEqual([]);
      await expectFullRender(model, turn, request);
    }
  });

  test("has none where it is rendered whole and aligned with what was sent", async () => {
    const store = new MemoryStore();
    const second = await begun(store);
    const seam = sampling({ store });
    // Nothing that was stored begins with this, and the conversation's last prompt is the next best.
    const respelled = { messages: second.messages.map((message) => ({ ...message, name: "n" })) };
    const edited = then(
      {
        messages: [
          { ...respelled.messages[0], content: "One? " } as ChatMessage,
          ...second.messages.slice(1),
        ],
      },
      assistant("Two."),
      user("Three?"),
    );
    for (const request of [then(respelled, assistant("Two."), user("Three?")), edited]) {
      const turn = await seam.prepare(request, here);
      expect(turn.outcome).toEqual({ kind: "aligned_render", reason: "prefix_mismatch" });
      expect(turn.sampledSpans).toEqual([]);
      await expectFullRender(model, turn, request);
    }
    const tooled = { ...second, tools: [{ type: "function", function: { name: "read", parameters: {} } }] };
    await expectFullRender(model, await seam.prepare(tooled, here), tooled);
  });

  test("goes on in a Seam that samples, where another rendered in between", async () => {
    const store = new MemoryStore();
    const second = await begun(store);
    const third = then(second, assistant("Two."), user("Three?"));
    const rendering = await sampling({ store, history: "rendered" }).prepare(third, here);
    await rendering.commit({ message: assistant("Three."), sampledIds: await wrote("Thr", "ee.") });
    const fourth = then(third, assistant("Three."), user("Four?"));
    const turn = await sampling({ store }).prepare(fourth, here);
    await expectEqualOutsideSpans(turn, fourth);
  });
});
