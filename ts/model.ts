/** The Model: tokenizer and chat template of one model, natively, off the event loop. */

import { availableParallelism } from "node:os";
import { abortError, PromptseamError } from "./errors.ts";
import { asBuffer, cancellable, type NativeDecodeStream, type NativeModel, native, take } from "./native.ts";
import { idArray, Prompt } from "./prompt.ts";

/** The files of a model, each a path. What is left out is taken from `folder`, if that is given. */
export interface ModelFiles {
  /** A folder in Hugging Face's layout. */
  readonly folder?: string;
  /** `tokenizer.json`. */
  readonly tokenizer?: string;
  /** `tokenizer_config.json`. */
  readonly tokenizerConfig?: string;
  /** A Jinja file, or a JSON file with `chat_template`. */
  readonly chatTemplate?: string;
  /** `config.json`. */
  readonly config?: string;
  /** `generation_config.json`. */
  readonly generationConfig?: string;
}

/** How to load a model. */
export interface LoadOptions {
  /** Source of a chat template to use instead of the model's own. */
  readonly chatTemplate?: string;
  /** Longest prompt in tokens: the server's `--max-model-len`. Default: what `config.json` says. */
  readonly maxModelLength?: number;
  /** Largest request body or text in bytes. Default: 32 MiB. */
  readonly maxBytes?: number;
  /** Threads of the model's own pool. Default: one less than there are cores, at least one. */
  readonly threads?: number;
  /** Calls that may wait for a thread; more fail with `PS_OVERLOADED`. Default: 1024. */
  readonly queueLimit?: number;
  readonly signal?: AbortSignal | undefined;
}

/** How to render a request. */
export interface RenderOptions {
  /**
   * An earlier prompt of the same conversation. Ids up to its last boundary row whose text the new render repeats are taken
   * over, only what follows is encoded (`aligned_render`). Never changes the result.
   */
  readonly previous?: Prompt | undefined;
  /** The time that the template may print, in this process's time zone. Default: now. */
  readonly now?: Date | undefined;
  /**
   * The prompt is about to be sent: its ids are written down for the body while the event loop is still free. Costs 7 bytes
   * for each id until it is sent. Default false; without it the body is written when it is sent.
   */
  readonly forSending?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A chat completion request as vLLM takes it, with members of any type; only what can change the prompt is read. */
export interface RenderRequest {
  readonly messages: readonly object[];
  readonly tools?: readonly object[] | null;
  readonly [field: string]: unknown;
}

/** What becomes of text that spells an added token such as `<|im_end|>`. */
export interface EncodeOptions {
  /** `recognize` gives that token; `text` encodes it as plain text, for untrusted content. Default: `recognize`. */
  readonly special?: "recognize" | "text";
  readonly signal?: AbortSignal | undefined;
}

/** Options of decoding. */
export interface DecodeOptions {
  /** Leave out special added tokens. Default: false. */
  readonly skipSpecial?: boolean;
}

/** An added token, and whether ids may be appended after it. */
export interface Boundary {
  readonly id: number;
  readonly content: string;
  readonly safe: boolean;
  /** Stable name of why it is not safe, such as `rstrip`. */
  readonly reason?: string;
  /** The same in words. */
  readonly because?: string;
}

/** What a loaded model is like. */
export interface ModelInfo {
  /** The engine that encodes; all give the same ids, `fast` in the least time. */
  readonly engine: "fast" | "fast_regex" | "reference";
  /** Why it is not `fast`. */
  readonly fallback?: string;
  /** Distinct tokens. */
  readonly vocabSize: number;
  /** One more than the highest id that the model may be given. */
  readonly idLimit: number;
  /** Longest prompt in tokens, where it is known. */
  readonly maxModelLength?: number;
  /** Ids that end an answer. */
  readonly stopTokenIds: readonly number[];
  /** Whether requests can be rendered: by the model's chat template, or as Harmony (gpt-oss). */
  readonly hasChatTemplate: boolean;
  /** Every added token with what the boundary proof says of it, by id. */
  readonly boundaries: readonly Boundary[];
}

/** Turns ids into text as they arrive, never giving out half a character. */
export class DecodeStream {
  readonly #native: NativeDecodeStream;

  /** @internal */
  constructor(handle: NativeDecodeStream) {
    this.#native = handle;
  }

  /**
   * The text that is certain after these ids; may be empty.
   *
   * @throws PromptseamError `PS_INVALID_TOKEN_ID`; the stream is then as before.
   */
  push(ids: Uint32Array | readonly number[]): string {
    return take(this.#native.push(idArray(ids)));
  }

  /** What was held back. Ends the stream. */
  finish(): string {
    return take(this.#native.finish());
  }
}

/**
 * A loaded model.
 *
 * Rendering and encoding run on the model's own threads; calls are cancelled before and between their stages by `signal`.
 * Safe to use from many turns at once. `close()` it, or use `await using`.
 */
export class Model {
  readonly info: ModelInfo;
  readonly #native: NativeModel;

  private constructor(handle: NativeModel) {
    this.#native = handle;
    this.info = Object.freeze(take(handle.info()) as ModelInfo);
  }

  /**
   * Loads a model: a folder, `org/name[@revision]` in the local Hugging Face cache, or explicit files. No network. About a
   * second, off the event loop: the fast tokenizer is checked against the reference.
   *
   * @throws PromptseamError `PS_MODEL_NOT_FOUND`, `PS_MODEL_FILE`, `PS_TOKENIZER_UNSUPPORTED`, `PS_TEMPLATE_SYNTAX`.
   */
  static async load(source: string | ModelFiles, options: LoadOptions = {}): Promise<Model> {
    const files: ModelFiles = typeof source === "string" ? { folder: source } : source;
    const { signal } = options;
    if (signal?.aborted) throw abortError(signal);
    const outcome = cancellable(signal, () =>
      native.NativeModel.load({
        ...given("name", files.folder),
        ...given("tokenizer", files.tokenizer),
        ...given("tokenizerConfig", files.tokenizerConfig),
        ...given("chatTemplateFile", files.chatTemplate),
        ...given("config", files.config),
        ...given("generationConfig", files.generationConfig),
        ...given("chatTemplate", options.chatTemplate),
        ...(options.maxModelLength === undefined
          ? {}
          : { maxModelLength: positive(options.maxModelLength, "maxModelLength") }),
        maxBytes: positive(options.maxBytes ?? 32 << 20, "maxBytes"),
        threads: positive(options.threads ?? Math.max(1, availableParallelism() - 1), "threads", 1024),
        queueLimit: positive(options.queueLimit ?? 1024, "queueLimit"),
      }),
    );
    return new Model(await outcome);
  }

  /**
   * The prompt that vLLM makes of a chat request: the request as an object, or the raw bytes of its JSON body, which is the
   * faster way (an object is serialized on the event loop first).
   *
   * @throws PromptseamError `PS_INVALID_JSON`, `PS_INVALID_REQUEST`, `PS_INVALID_UNICODE`, `PS_UNSUPPORTED_CONTENT`,
   * `PS_TEMPLATE_RAISED`, `PS_TEMPLATE_FAILED`, `PS_TOO_LARGE`, `PS_CONTEXT_OVERFLOW`, `PS_OVERLOADED`, `PS_ABORTED`.
   */
  async render(request: RenderRequest | Uint8Array, options: RenderOptions = {}): Promise<Prompt> {
    const body = bodyOf(request);
    const previous = options.previous === undefined ? null : Prompt.handle(options.previous);
    const handle = await cancellable(options.signal, (cancel) =>
      this.#native.render(
        body,
        { ...clock(options.now), writeIds: options.forSending === true },
        previous,
        cancel,
      ),
    );
    return new Prompt(handle);
  }

  /**
   * The text that the chat template makes of a request. For gpt-oss it is for reading only: content that spells a
   * special token is not one in the prompt. Fails as {@link render}.
   */
  async renderText(
    request: RenderRequest | Uint8Array,
    options: Omit<RenderOptions, "previous"> = {},
  ): Promise<string> {
    const body = bodyOf(request);
    return cancellable(options.signal, (cancel) => this.#native.renderText(body, clock(options.now), cancel));
  }

  /** Tokens in the prompt of a request. Fails as {@link render}. */
  async count(request: RenderRequest | Uint8Array, options: RenderOptions = {}): Promise<number> {
    const prompt = await this.render(request, options);
    prompt.close();
    return prompt.length;
  }

  /**
   * The ids of a text, without those that a tokenizer adds at its ends.
   *
   * @throws PromptseamError `PS_INVALID_UNICODE` for a lone surrogate, `PS_TOO_LARGE`, `PS_OVERLOADED`, `PS_ABORTED`.
   */
  async encode(text: string, options: EncodeOptions = {}): Promise<Uint32Array> {
    const special = options.special ?? "recognize";
    if (special !== "recognize" && special !== "text") {
      throw new PromptseamError("PS_INVALID_ARGUMENT", 'special must be "recognize" or "text".');
    }
    if (typeof text !== "string")
      throw new PromptseamError("PS_INVALID_ARGUMENT", "The text must be a string.");
    if (!text.isWellFormed()) {
      throw new PromptseamError(
        "PS_INVALID_UNICODE",
        "The text holds a lone surrogate; repair it with toWellFormed().",
      );
    }
    return cancellable(options.signal, (cancel) =>
      this.#native.encode(text, special === "recognize", cancel),
    );
  }

  /**
   * The text of token ids; bytes that are no UTF-8 become U+FFFD. O(ids), on the event loop.
   *
   * @throws PromptseamError `PS_INVALID_TOKEN_ID` for an id outside the vocabulary.
   */
  decode(ids: Uint32Array | readonly number[] | Prompt, options: DecodeOptions = {}): string {
    const skipSpecial = options.skipSpecial ?? false;
    if (ids instanceof Prompt) return take(this.#native.decodePrompt(Prompt.handle(ids), skipSpecial));
    return take(this.#native.decode(idArray(ids), skipSpecial));
  }

  /** A decoder for ids that arrive one by one. */
  decodeStream(options: DecodeOptions = {}): DecodeStream {
    return new DecodeStream(take(this.#native.decodeStream(options.skipSpecial ?? false)));
  }

  /** The id of a token as the vocabulary spells it. */
  tokenToId(token: string): number | undefined {
    return take(this.#native.tokenToId(token)) ?? undefined;
  }

  /** The token of an id as the vocabulary spells it. */
  idToToken(id: number): string | undefined {
    return take(this.#native.idToToken(id)) ?? undefined;
  }

  /** @internal */
  static handle(model: Model): NativeModel {
    return model.#native;
  }

  /** Frees the model once calls under way are done; later ones fail with `PS_CLOSED`. May be called again. */
  close(): void {
    this.#native.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

function bodyOf(request: RenderRequest | Uint8Array): Buffer {
  return request instanceof Uint8Array ? asBuffer(request) : requestBytes(request);
}

/**
 * @internal The bytes of a request, or of a part of one, as JSON.
 *
 * @throws PromptseamError `PS_INVALID_ARGUMENT`, `PS_INVALID_REQUEST`
 */
export function requestBytes(request: object): Buffer {
  if (typeof request !== "object" || request === null) {
    throw new PromptseamError("PS_INVALID_ARGUMENT", "A request is an object, or the bytes of one as JSON.");
  }
  try {
    return Buffer.from(JSON.stringify(request));
  } catch (cause) {
    throw new PromptseamError("PS_INVALID_REQUEST", "The request cannot be written as JSON.", { cause });
  }
}

/** @internal A time as the addon takes it, in this process's time zone. */
export function clock(now = new Date()): { unixMillis: number; utcOffsetMinutes: number } {
  const unixMillis = now.getTime();
  if (Number.isNaN(unixMillis)) throw new PromptseamError("PS_INVALID_ARGUMENT", "now is not a valid Date.");
  return { unixMillis, utcOffsetMinutes: -now.getTimezoneOffset() };
}

/** `{ [name]: value }`, or nothing where there is no value. */
function given<K extends string>(name: K, value: string | undefined): { [P in K]?: string } {
  return value === undefined ? {} : ({ [name]: value } as { [P in K]?: string });
}

function positive(value: number, name: string, highest = 0xffff_ffff): number {
  if (!Number.isInteger(value) || value < 1 || value > highest) {
    throw new PromptseamError("PS_INVALID_ARGUMENT", `${name} must be an integer from 1 to ${highest}.`);
  }
  return value;
}
