/** What the test server needs of a model, and a small one for tests that do not care about real tokens. */

import type { JsonObject } from "../vllm/json.ts";

/** Token ids, or something that holds them (a Prompt). */
export type TokenIds = Uint32Array | { tokenIds(): Uint32Array };

/** A model that renders, encodes and decodes; `Model` of this package is one. */
export interface TestModel {
  /** The ids of a chat request (messages, tools, template arguments), generation prompt included. */
  render(request: JsonObject): TokenIds | Promise<TokenIds>;
  /** The ids of a text in which special tokens are recognized. */
  encode(text: string, options?: { special?: "recognize" | "text" }): TokenIds | Promise<TokenIds>;
  decode(ids: Uint32Array): string | Promise<string>;
  /** Ids from here on are out of vocabulary. Default: no limit. */
  readonly vocabularySize?: number;
}

export function idsOf(ids: TokenIds): Uint32Array {
  return ids instanceof Uint32Array ? ids : ids.tokenIds();
}

const IM_START = 256;
const IM_END = 257;

/** A model whose tokens are the bytes of UTF-8, with ChatML around messages: `<|im_start|>` is 256, `<|im_end|>` 257. */
export function byteModel(): TestModel {
  const encode = (text: string): Uint32Array => {
    const ids: number[] = [];
    for (const part of text.split(/(<\|im_start\|>|<\|im_end\|>)/)) {
      if (part === "<|im_start|>") ids.push(IM_START);
      else if (part === "<|im_end|>") ids.push(IM_END);
      else for (const byte of Buffer.from(part)) ids.push(byte);
    }
    return Uint32Array.from(ids);
  };
  return {
    vocabularySize: 258,
    encode,
    decode: (ids) => {
      const parts: string[] = [];
      let bytes: number[] = [];
      const flush = () => {
        parts.push(Buffer.from(bytes).toString("utf8"));
        bytes = [];
      };
      for (const id of ids) {
        if (id < 256) {
          bytes.push(id);
          continue;
        }
        flush();
        parts.push(id === IM_START ? "<|im_start|>" : "<|im_end|>");
      }
      flush();
      return parts.join("");
    },
    render: (request) => {
      const messages = Array.isArray(request["messages"]) ? (request["messages"] as JsonObject[]) : [];
      const tools = request["tools"]
        ? `<|im_start|>tools\n${JSON.stringify(request["tools"])}<|im_end|>\n`
        : "";
      const history = messages.map(
        ({ role, content, ...rest }) =>
          `<|im_start|>${role}\n${typeof content === "string" ? content : JSON.stringify(content ?? "")}` +
          `${Object.keys(rest).length > 0 ? JSON.stringify(rest) : ""}<|im_end|>\n`,
      );
      return encode(`${tools}${history.join("")}<|im_start|>assistant\n`);
    },
  };
}
