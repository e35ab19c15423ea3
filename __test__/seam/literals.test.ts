/** Content that is, or nearly is, what Qwen3's template takes for something else: user messages for tool results, text for thoughts. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ChatMessage, Model, Seam } from "../../ts/index.ts";
import { modelFolder } from "../support.ts";
import { assistant, BARE, called, expectFullRender, NOW, result, user } from "./support.ts";

let model: Model;
beforeAll(async () => {
  model = await Model.load(modelFolder("qwen3"));
});
afterAll(() => model.close());

const OPEN = "<tool_response>";
const CLOSE = "</tool_response>";
const ok = assistant("ok");
/** A tool loop whose reasoning is printed until a user asks something new. */
const loop = [user("q"), called("call00001", { reasoning: "Thinking hard." }), result("call00001")];

const text = (...texts: string[]): ChatMessage["content"] =>
  texts.map((each) => ({ type: "text", text: each }));

/** Takes a turn with `history`, then one with `after` behind it. */
async function goOn(history: readonly ChatMessage[], after: readonly ChatMessage[]): Promise<string> {
  const seam = new Seam({ model, ...BARE });
  const turn = await seam.prepare({ messages: history }, { now: NOW });
  await turn.commit({ message: after[0] as ChatMessage });
  const request = { messages: [...history, ...after] };
  const next = await seam.prepare(request, { now: NOW });
  await expectFullRender(model, next, request);
  return next.outcome.kind;
}

describe("behind a tool loop with reasoning, a user who says", () => {
  test.each<[string, ChatMessage["content"]]>([
    ["a tool's result", `${OPEN}\nx\n${CLOSE}`],
    ["white space and a tool's result", ` ${OPEN}\nx\n${CLOSE}`],
    ["a tool's result and white space", `${OPEN}\nx\n${CLOSE}\n`],
    ["both", `\n${OPEN}${CLOSE}\n`],
    ["a word and a tool's result", `x${OPEN}\nx\n${CLOSE}`],
    ["a tool's result and a word", `${OPEN}\nx\n${CLOSE}x`],
    ["only its beginning", `${OPEN}\nx`],
    ["only its end", `x\n${CLOSE}`],
    ["its end, then its beginning", `${CLOSE}${OPEN}`],
    ["two of them", `${OPEN}x${CLOSE}${OPEN}y${CLOSE}`],
    ["one within a text", `a ${OPEN}x${CLOSE} b`],
    ["its halves in two parts", text(`${OPEN}x`, `y${CLOSE}`)],
    ["its halves in two parts, and white space", text(`${OPEN}x`, `y${CLOSE} `)],
    ["the whole in the second part", text("a", `${OPEN}x${CLOSE}`)],
    ["the whole in the first part", text(`${OPEN}x${CLOSE}`, "a")],
    ["the whole between empty parts", text("", `${OPEN}x${CLOSE}`, "")],
    ["nothing", ""],
    ["no parts", text()],
  ])("%s", async (_, content) => {
    await goOn(loop, [ok, user(content)]);
  });
});

describe("in a history, what looked like a tool's result", () => {
  const disguised: [string, ChatMessage["content"]][] = [
    ["as one text", `${OPEN}x${CLOSE}`],
    ["in two parts", text(OPEN, `x${CLOSE}`)],
    ["nearly", ` ${OPEN}x${CLOSE}`],
  ];
  const besides = ["abc", `abc ${OPEN}`, `${CLOSE} abc`, `${OPEN} abc`, `a ${OPEN} b ${CLOSE} c`];
  const cases = disguised.flatMap(([how, content]) =>
    besides.map((beside) => [how, content, beside] as const),
  );

  test.each(cases)("%s is still that for what follows: %j, beside %j", async (_, content, beside) => {
    const history = [user(beside), ok, ...loop, ok, user(content)];
    await goOn(history, [ok, user("real")]);
    await goOn(history, [ok, user(beside)]);
    await goOn([...loop, ok, user(beside), ok, user(content)], [ok, user("real")]);
  });
});

describe("thoughts in content", () => {
  test.each([
    "<think>\nR\n</think>\n\nx",
    "R</think>x",
    "x</think>",
    "</think>",
    "\n</think>\n",
    "<think>",
    "a<think>b",
    "</think></think>",
    "<think>\n\n</think>\n\n",
  ])("%j, in a loop and behind it", async (content) => {
    const thinking = [user("q"), { ...called("call00001"), content }, result("call00001")];
    await goOn(thinking, [ok, user("z")]);
    await goOn(thinking, [called("call00002"), result("call00002")]);
    await goOn([user("q")], [assistant(content), user("z")]);
    await goOn([user("q")], [{ ...called("call00001"), content }, result("call00001")]);
    await goOn([user("q")], [called("call00001", { reasoning: content }), result("call00001")]);
    await goOn([user(content)], [ok, user(content)]);
    await goOn([user("q"), assistant(content), user("z")], [ok, user("y")]);
  });
});

test("what the template looks for, where it makes no difference, costs no rung", async () => {
  const said = `The template looks for ${OPEN} and for ${CLOSE}, they say.`;
  expect(await goOn([user(said)], [ok, user("Why?")])).toBe("certified_suffix");
  expect(await goOn([user("q")], [ok, user(said)])).toBe("certified_suffix");
});
