/** What the engine is told to say, turned into sampled ids and the text that each of them adds. */

import { idsOf, type TestModel } from "./model.ts";

/** One answer of the engine. Either ids, or the parts of a message, which are encoded in the form of Qwen3. */
export interface ScriptedAnswer {
  readonly text?: string;
  readonly reasoning?: string;
  readonly toolCalls?: readonly { readonly name: string; readonly arguments: unknown }[];
  /** The sampled ids as they are, stop token included; goes before the members above. */
  readonly ids?: Uint32Array | readonly number[];
  /** Default: `stop` where the stop token was sampled (ids made of parts have it), else `length`. */
  readonly finishReason?: string;
  /** Milliseconds before each token but the first. Default 0. */
  readonly tokenDelayMs?: number;
  /** Milliseconds before the first token, beside what prefill costs. Default 0. */
  readonly firstTokenDelayMs?: number;
}

/** One sampled token and the text that it completes. */
export interface SampledToken {
  readonly id: number;
  readonly text: string;
}

/** The sampled tokens of an answer and why it ended. */
export interface Sampled {
  readonly tokens: readonly SampledToken[];
  readonly finishReason: string;
}

const STOP_TOKEN = "<|im_end|>";

/** Plays a script on a model, cut at `maxTokens`. */
export async function playScript(
  script: ScriptedAnswer,
  model: TestModel,
  maxTokens: number,
): Promise<Sampled> {
  const stopIds = idsOf(await model.encode(STOP_TOKEN, { special: "recognize" }));
  const stopId = stopIds.length === 1 ? stopIds[0] : undefined;
  const wanted =
    script.ids === undefined
      ? idsOf(await model.encode(surface(script) + STOP_TOKEN, { special: "recognize" }))
      : Uint32Array.from(script.ids);
  const ids = wanted.subarray(0, maxTokens);
  const stopped = stopId !== undefined && ids[ids.length - 1] === stopId;
  const finishReason = script.finishReason ?? (stopped ? "stop" : "length");
  return { tokens: await textOf(ids, stopped ? ids.length - 1 : ids.length, model), finishReason };
}

function surface(script: ScriptedAnswer): string {
  const think = script.reasoning === undefined ? "" : `<think>\n${script.reasoning}\n</think>\n\n`;
  const calls = (script.toolCalls ?? []).map((call) => {
    const args = typeof call.arguments === "string" ? call.arguments : JSON.stringify(call.arguments);
    return `<tool_call>\n{"name": ${JSON.stringify(call.name)}, "arguments": ${args}}\n</tool_call>`;
  });
  return [think + (script.text ?? ""), ...calls].filter((part) => part !== "").join("\n");
}

/** A character that spans tokens appears with the last of them, as an incremental detokenizer shows it. */
async function textOf(ids: Uint32Array, visible: number, model: TestModel): Promise<SampledToken[]> {
  const tokens: SampledToken[] = [];
  let from = 0;
  for (let i = 0; i < ids.length; i++) {
    let text = "";
    if (i < visible) {
      text = await model.decode(ids.subarray(from, i + 1));
      if (text.endsWith("\ufffd") && i + 1 < visible && i + 1 - from < 8) text = "";
      else from = i + 1;
    }
    tokens.push({ id: ids[i] as number, text });
  }
  return tokens;
}
