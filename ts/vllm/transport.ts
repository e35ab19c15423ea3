/** HTTP to one server: sends a request and reads its answer as bytes, with every failure typed. */

import { Agent, type Dispatcher } from "undici";
import { PromptseamError } from "../errors.ts";
import { connectError, statusError } from "./failure.ts";
import type { Guard } from "./guard.ts";
import type { VllmClientOptions } from "./options.ts";

/** Bytes of an error answer that are looked at. */
const MAX_ERROR_BYTES = 64 * 1024;
/** How long the end of a finished answer may take before its connection is given up instead of used again. */
const DRAIN_MS = 1_000;

/** One request as it goes out. */
export interface HttpRequest {
  readonly method: "GET" | "POST";
  /** Path on the server, such as `/v1/models`. */
  readonly path: string;
  /** JSON, or null for none. */
  readonly body: string | Uint8Array | null;
  readonly headers: Readonly<Record<string, string>>;
}

/** A server with a base path, default headers and a connection pool. */
export class Transport {
  readonly #origin: string;
  readonly #prefix: string;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #dispatcher: Dispatcher;
  readonly #ownAgent: Agent | null;
  readonly #onDisconnect: () => void;

  /**
   * @param onDisconnect Called whenever a connection was closed, by either side
   * @throws PromptseamError `PS_INVALID_ARGUMENT` for a base URL that is none, or one with credentials
   */
  constructor(options: VllmClientOptions, connectMs: number, onDisconnect: () => void) {
    const url = parseBaseUrl(options.baseUrl);
    this.#origin = url.origin;
    this.#prefix = url.pathname.replace(/\/+$/, "").replace(/\/v1$/, "");
    this.#headers = checkedHeaders({
      ...options.headers,
      ...(options.apiKey === undefined ? {} : { authorization: `Bearer ${options.apiKey}` }),
    });
    this.#ownAgent =
      options.dispatcher === undefined
        ? new Agent({ connect: { timeout: Number.isFinite(connectMs) ? connectMs : 0 } })
        : null;
    this.#dispatcher = options.dispatcher ?? (this.#ownAgent as Agent);
    this.#dispatcher.on("disconnect", onDisconnect);
    this.#onDisconnect = onDisconnect;
  }

  /** Sends and waits for the status line. @throws PromptseamError the guard's failure, `PS_CONNECT`, `PS_TIMEOUT` */
  async send(request: HttpRequest, guard: Guard): Promise<Exchange> {
    guard.check();
    const headers = this.#headersOf(request);
    try {
      const response = await this.#dispatcher.request({
        origin: this.#origin,
        path: this.#prefix + request.path,
        method: request.method,
        headers,
        body: request.body,
        // undici asks a signal for no more than a guard has.
        signal: guard as unknown as AbortSignal,
        // The guard keeps the deadlines: undici's own would cut a long prefill.
        headersTimeout: 0,
        bodyTimeout: 0,
      });
      return new Exchange(response, guard);
    } catch (cause) {
      throw guard.failure ?? connectError(cause);
    }
  }

  #headersOf({ headers, body }: HttpRequest): Record<string, string> {
    const all: Record<string, string> = { ...this.#headers };
    if (body !== null) all["content-type"] = "application/json";
    for (const name in headers) {
      const [checked, value] = checkedHeader(name, headers[name] as string);
      all[checked] = value;
    }
    return all;
  }

  /** Closes the idle connections of the client's own agent; a foreign dispatcher is left alone. */
  async close(): Promise<void> {
    this.#dispatcher.off("disconnect", this.#onDisconnect);
    await this.#ownAgent?.close();
  }
}

/** The answer to one request: a status and bytes that are read when asked for. */
export class Exchange {
  readonly status: number;
  readonly contentType: string;
  readonly #body: Dispatcher.ResponseData["body"];
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #guard: Guard;
  #draining = false;

  constructor(response: Dispatcher.ResponseData, guard: Guard) {
    const contentType = response.headers["content-type"];
    this.status = response.statusCode;
    this.contentType = (Array.isArray(contentType) ? contentType[0] : contentType) ?? "";
    this.#body = response.body;
    // Without a listener an error between two reads would end the process.
    this.#body.on("error", () => {});
    this.#chunks = this.#body[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
    this.#guard = guard;
  }

  /** The next bytes, null at the end. @throws the guard's failure, else `PS_CONNECT` for a broken connection */
  async read(): Promise<Uint8Array | null> {
    try {
      const { done, value } = await this.#chunks.next();
      this.#guard.check();
      return done ? null : value;
    } catch (cause) {
      throw this.#guard.failure ?? connectError(cause);
    }
  }

  /** The whole body. @throws as {@link read}; `PS_PROTOCOL` over `limit` bytes */
  async readAll(limit: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let length = 0;
    for (;;) {
      const part = await this.read();
      if (part === null) return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts, length);
      length += part.length;
      if (length > limit) {
        throw new PromptseamError("PS_PROTOCOL", `The server's answer is longer than ${limit} bytes.`, {
          details: { limit },
        });
      }
      parts.push(part);
    }
  }

  /** The error that an error status stands for. A body that breaks off does not hide the status; an abort does. */
  async toError(redact: (text: string) => string): Promise<PromptseamError> {
    let body = "";
    try {
      body = Buffer.from(await this.readAll(MAX_ERROR_BYTES)).toString("utf8");
    } catch {
      if (this.#guard.failure?.code === "PS_ABORTED" || this.#guard.failure?.code === "PS_CLOSED") {
        return this.#guard.failure;
      }
    }
    return statusError(this.status, this.contentType, body, redact);
  }

  /** Ends the exchange. What is still being sent is cut off and the connection closed; a read or drained one is kept. */
  close(): void {
    if (!this.#draining) this.#body.destroy();
  }

  /** Reads on to the end of a finished answer in the background, so that its connection can be used again. */
  drain(): void {
    this.#draining = true;
    const timer = setTimeout(() => this.#body.destroy(), DRAIN_MS);
    const skip = async () => {
      while (!(await this.#chunks.next()).done);
    };
    skip()
      .catch(() => {})
      .finally(() => clearTimeout(timer));
  }
}

function parseBaseUrl(value: string | URL): URL {
  let url: URL;
  try {
    url = new URL(value);
  } catch {
    throw new PromptseamError("PS_INVALID_ARGUMENT", "baseUrl must be an absolute http or https URL.");
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new PromptseamError("PS_INVALID_ARGUMENT", "baseUrl must be an absolute http or https URL.");
  }
  if (url.username !== "" || url.password !== "") {
    throw new PromptseamError(
      "PS_INVALID_ARGUMENT",
      "baseUrl must not hold credentials; use apiKey or headers.",
    );
  }
  return url;
}

function checkedHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => checkedHeader(name, value)));
}

/** With a lower-case name. The value of a refused header is not shown: it may be a secret. */
function checkedHeader(name: string, value: string): [string, string] {
  if (!/^[\w!#$%&'*+.^`|~-]+$/.test(name) || !/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) {
    throw new PromptseamError(
      "PS_INVALID_ARGUMENT",
      "A header or the apiKey holds a character that HTTP does not allow.",
    );
  }
  return [name.toLowerCase(), value];
}
