/** TEMPORARY stand-in for the native addon, until ts/native.ts and ts/prompt.ts exist. */

import { PromptseamError } from "../errors.ts";
import type { WireEvent, WirePrompt } from "./wire.ts";

export class Prompt implements WirePrompt {
  readonly #ids: Uint32Array;
  private constructor(ids: Uint32Array) {
    this.#ids = ids;
  }
  static fromIds(ids: Uint32Array | readonly number[]): Prompt {
    return new Prompt(Uint32Array.from(ids));
  }
  get length(): number {
    return this.#ids.length;
  }
  tokenIds(): Uint32Array {
    return this.#ids.slice();
  }
  equals(other: Prompt): boolean {
    return this.length === other.length && this.#ids.every((id, i) => id === other.#ids[i]);
  }
  writeJson(before: string | Uint8Array, after: string | Uint8Array): Buffer {
    return Buffer.concat([Buffer.from(before), Buffer.from(`[${this.#ids.join(",")}]`), Buffer.from(after)]);
  }
}

export function readEvent(data: Uint8Array): WireEvent {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data));
  } catch {
    throw new PromptseamError("PS_PROTOCOL", "The server sent JSON that does not parse.");
  }
  let promptTokenIds: WirePrompt | null = null;
  const tokenIds: (Uint32Array | null)[] = [];
  if (typeof value === "object" && value !== null) {
    const top = value as { prompt_token_ids?: unknown; choices?: unknown };
    if (Array.isArray(top.prompt_token_ids)) {
      promptTokenIds = Prompt.fromIds(top.prompt_token_ids as number[]);
      top.prompt_token_ids = null;
    }
    if (Array.isArray(top.choices)) {
      for (const choice of top.choices as { prompt_token_ids?: unknown; token_ids?: unknown }[]) {
        if (Array.isArray(choice.prompt_token_ids)) {
          promptTokenIds ??= Prompt.fromIds(choice.prompt_token_ids as number[]);
          choice.prompt_token_ids = null;
        }
        tokenIds.push(
          Array.isArray(choice.token_ids) ? Uint32Array.from(choice.token_ids as number[]) : null,
        );
        if (choice.token_ids !== undefined) choice.token_ids = null;
      }
    }
  }
  return { json: JSON.stringify(value), promptTokenIds, tokenIds };
}
