// What a gateway in JavaScript does with a request for Qwen3: parse the body, render, encode.

import { readFileSync } from "node:fs";
import { Template } from "@huggingface/jinja";
import npmTokenizers from "tokenizers";
import { modelFolder } from "./sampling.mjs";

export const CONFIG = JSON.parse(readFileSync(`${modelFolder("qwen3")}tokenizer_config.json`, "utf8"));
const template = new Template(CONFIG.chat_template);

/** The text of a body, tool arguments parsed as vLLM does. */
export function renderInJs(body) {
  const request = JSON.parse(body.toString("utf8"));
  const messages = request.messages.map((message) =>
    message.tool_calls === undefined
      ? message
      : {
          ...message,
          tool_calls: message.tool_calls.map((call) => ({
            ...call,
            function: { ...call.function, arguments: JSON.parse(call.function.arguments) },
          })),
        },
  );
  return template.render({ messages, tools: request.tools, add_generation_prompt: true });
}

let npm;

/** The ids of a body by @huggingface/jinja and npm's tokenizers, the best exact way. */
export async function idsInJs(body) {
  npm ??= npmTokenizers.Tokenizer.fromFile(`${modelFolder("qwen3")}tokenizer.json`);
  return (await npm.encode(renderInJs(body), null, { addSpecialTokens: false })).getIds();
}

export function sameIds(prompt, ids) {
  const ours = prompt.tokenIds();
  return ours.length === ids.length && ours.every((id, index) => id === ids[index]);
}
