/** The real server under test, as scripts/test-vllm.mjs names it. */

import { Model, PromptseamError } from "../../ts/index.ts";

function required(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run \`npm run test:vllm\``);
  return value;
}

export const FAMILY = required("PROMPTSEAM_VLLM_FAMILY");
export const MODEL_FOLDER = required("PROMPTSEAM_VLLM_MODEL");
export const BASE_URL = required("PROMPTSEAM_VLLM_URL");

export function loadModel(): Promise<Model> {
  // Templates' own limits stay out of it: the server's is what counts.
  return Model.load(MODEL_FOLDER, { maxModelLength: 131_072 });
}

/** A chat request with about so many tokens. */
export async function longRequest(model: Model, tokens: number) {
  let lines = 200;
  // Line numbers grow longer: a second look corrects the first.
  for (let look = 0; look < 2; look++) {
    const counted = await model.count(conversation(lines));
    lines = Math.round((lines * Math.min(tokens, 100_000)) / counted);
  }
  return conversation(Math.round((lines * tokens) / Math.min(tokens, 100_000)));
}

function conversation(lines: number) {
  const messages = [{ role: "system", content: "You read a repository." }];
  for (let from = 0; from < lines; from += 100) {
    const text = Array.from({ length: Math.min(100, lines - from) }, (_, i) => {
      const line = from + i;
      return `${line}: const value_${line} = await read("src/${line * 7}.ts"); // 读取 №${i}\n`;
    });
    messages.push({ role: "user", content: `Go on.\n${text.join("")}` });
    messages.push({ role: "assistant", content: `Seen ${from}.` });
  }
  messages.push({ role: "user", content: "What did you see?" });
  return { messages };
}

export async function failure(work: Promise<unknown>): Promise<PromptseamError> {
  try {
    await work;
  } catch (error) {
    if (PromptseamError.isInstance(error)) return error;
    throw error;
  }
  throw new Error("it did not fail");
}
