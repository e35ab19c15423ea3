/** Cuts generated text into reasoning, content and tool calls, as vLLM's qwen3 and hermes parsers do while streaming. */

/** What one more piece of text adds to the message. */
export interface Delta {
  reasoning?: string;
  content?: string;
  toolCalls?: ToolCallDelta[];
}

export interface ToolCallDelta {
  readonly index: number;
  /** Set in the first delta of a call. */
  readonly name?: string;
  readonly arguments?: string;
}

const CALL_HEAD = /^\s*\{\s*"name":\s*"((?:[^"\\]|\\.)*)",\s*"arguments":\s*/;

/**
 * Reasoning is what stands between a leading `<think>` and `</think>`. (vLLM's qwen3 parser also takes text without
 * `<think>` for reasoning when the prompt leaves thinking on; here scripts say what they mean.)
 */
export class OutputParser {
  readonly #tools: boolean;
  #state: "start" | "reasoning" | "content" | "call" | "between_calls";
  #held = "";
  #calls = 0;
  #named = false;
  #sent = 0;

  constructor(options: { tools: boolean; reasoning: boolean }) {
    this.#tools = options.tools;
    this.#state = options.reasoning ? "start" : "content";
  }

  /** Calls begun so far. */
  get calls(): number {
    return this.#calls;
  }

  /** Takes the next piece; `last` gives up waiting for the rest of a tag. Null when there is nothing to show yet. */
  push(text: string, last = false): Delta | null {
    this.#held += text;
    const delta: Delta = {};
    while (this.#step(delta, last));
    return Object.keys(delta).length > 0 ? delta : null;
  }

  /** One move of the state machine; whether another may follow. */
  #step(delta: Delta, last: boolean): boolean {
    switch (this.#state) {
      case "start": {
        if (this.#held.startsWith("<think>")) {
          this.#held = this.#held.slice("<think>".length);
          this.#state = "reasoning";
          return true;
        }
        if (!last && "<think>".startsWith(this.#held)) return false;
        this.#state = "content";
        return true;
      }
      case "reasoning": {
        const [text, found] = this.#upTo("</think>", last);
        if (text !== "") delta.reasoning = (delta.reasoning ?? "") + text;
        if (found) this.#state = "content";
        return found;
      }
      case "content": {
        const [text, found] = this.#tools ? this.#upTo("<tool_call>", last) : [this.#takeAll(), false];
        if (text !== "") delta.content = (delta.content ?? "") + text;
        if (found) this.#beginCall();
        return found;
      }
      case "between_calls": {
        this.#held = this.#held.trimStart();
        if (this.#held === "" || (!last && "<tool_call>".startsWith(this.#held))) return false;
        this.#state = "content";
        return true;
      }
      case "call":
        return this.#callStep(delta, last);
    }
  }

  #callStep(delta: Delta, last: boolean): boolean {
    const close = this.#held.indexOf("</tool_call>");
    const raw = close === -1 ? this.#held : this.#held.slice(0, close);
    const head = CALL_HEAD.exec(raw);
    if (head !== null) {
      const index = this.#calls - 1;
      delta.toolCalls ??= [];
      if (!this.#named) {
        delta.toolCalls.push({ index, name: JSON.parse(`"${head[1]}"`) as string });
        this.#named = true;
      }
      const value = raw.slice(head[0].length);
      const end = valueEnd(value);
      const more = value.slice(this.#sent, end);
      if (more !== "") delta.toolCalls.push({ index, arguments: more });
      this.#sent = Math.max(this.#sent, end);
      if (delta.toolCalls.length === 0) delete delta.toolCalls;
    }
    if (close === -1 && !last) return false;
    this.#held = close === -1 ? "" : this.#held.slice(close + "</tool_call>".length);
    this.#state = "between_calls";
    return close !== -1;
  }

  #beginCall(): void {
    this.#state = "call";
    this.#calls++;
    this.#named = false;
    this.#sent = 0;
  }

  #takeAll(): string {
    const text = this.#held;
    this.#held = "";
    return text;
  }

  /** The text before the tag and whether the tag was there; a possible beginning of the tag is held back. */
  #upTo(tag: string, last: boolean): [string, boolean] {
    const at = this.#held.indexOf(tag);
    if (at !== -1) {
      const text = this.#held.slice(0, at);
      this.#held = this.#held.slice(at + tag.length);
      return [text, true];
    }
    if (last) return [this.#takeAll(), false];
    let keep = Math.min(tag.length - 1, this.#held.length);
    while (keep > 0 && !tag.startsWith(this.#held.slice(this.#held.length - keep))) keep--;
    const text = this.#held.slice(0, this.#held.length - keep);
    this.#held = this.#held.slice(this.#held.length - keep);
    return [text, false];
  }
}

/** Where the JSON object at the start of the text ends, or the text's length while it is open. */
function valueEnd(text: string): number {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (inString) {
      if (c === "\\") i++;
      else if (c === '"') inString = false;
    } else if (c === '"') inString = true;
    else if (c === "{" || c === "[") depth++;
    else if (c === "}" || c === "]") {
      depth--;
      if (depth <= 0) return i + (depth === 0 ? 1 : 0);
    }
  }
  return text.length;
}
