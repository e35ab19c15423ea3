/** An assistant's message put together from the chunks of an answer, as a client would send it back. */

import type { Chunk } from "../vllm/chunks.ts";
import type { ChatMessage } from "../vllm/requests.ts";

interface Call {
  id: string;
  name: string;
  arguments: string;
}

/** Collects the chunks of an answer's first choice. */
export class AnswerMessage {
  #text = "";
  #reasoning = "";
  readonly #calls: Call[] = [];
  #finishReason: string | null = null;

  add(chunk: Chunk): void {
    if (!("index" in chunk) || chunk.index !== 0) return;
    switch (chunk.type) {
      case "text":
        this.#text += chunk.text;
        break;
      case "reasoning":
        this.#reasoning += chunk.text;
        break;
      case "toolCall": {
        let call = this.#calls[chunk.call];
        if (call === undefined) {
          call = { id: "", name: "", arguments: "" };
          this.#calls[chunk.call] = call;
        }
        call.id ||= chunk.id ?? "";
        call.name += chunk.name ?? "";
        call.arguments += chunk.arguments;
        break;
      }
      case "finish":
        this.#finishReason = chunk.reason;
        break;
      default:
    }
  }

  /** Why the choice ended; null while it has not. */
  get finishReason(): string | null {
    return this.#finishReason;
  }

  message(): ChatMessage {
    const calls = this.#calls.filter((call) => call !== undefined);
    return {
      role: "assistant",
      content: this.#text === "" && calls.length > 0 ? null : this.#text,
      ...(this.#reasoning === "" ? {} : { reasoning: this.#reasoning }),
      ...(calls.length === 0
        ? {}
        : {
            tool_calls: calls.map(({ id, name, arguments: text }) => ({
              id,
              type: "function",
              function: { name, arguments: text },
            })),
          }),
    };
  }
}
