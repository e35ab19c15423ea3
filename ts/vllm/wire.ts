/** The border to the native side: token id lists are written into request bodies and read out of answers there. */

import { readEvent as readEventNatively } from "./stand-in.ts";

/** What the client needs of a Prompt: its length and its ids as bytes of a JSON body. */
export interface WirePrompt {
  /** Token ids in the prompt. */
  readonly length: number;
  /** A copy of the ids. */
  tokenIds(): Uint32Array;
  /** The bytes of `before`, the ids as a JSON array, and `after`. O(ids), natively. */
  writeJson(before: string | Uint8Array, after: string | Uint8Array): Buffer;
}

/** One JSON answer or event of a stream without its long id lists, and these lists. */
export interface WireEvent {
  /** The JSON with every cut list replaced by null. */
  readonly json: string;
  /** The echo of the prompt: `prompt_token_ids`, at the top level or in a choice. */
  readonly promptTokenIds: WirePrompt | null;
  /** `token_ids` of each member of `choices`, in their order. */
  readonly tokenIds: readonly (Uint32Array | null)[];
}

/**
 * Reads one event. Cost: O(bytes), natively; what is left to parse in JavaScript is as long as the text in it.
 *
 * @throws PromptseamError `PS_PROTOCOL` when the bytes are not JSON, or an id list holds something else than u32.
 */
export function readEvent(data: Uint8Array): WireEvent {
  return readEventNatively(data);
}
