/** Sends an answer, and does to it what the planned fault says. */

import type { ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { JsonObject } from "../vllm/json.ts";
import type { Fault } from "./faults.ts";

const DONE = "[DONE]";

/** Thrown inside a handler when the fault ended the exchange; nothing more is to be sent. */
export class ExchangeEnded extends Error {}

/** One answer on its way out. */
export class FaultyResponse {
  readonly #response: ServerResponse;
  readonly #fault: Fault | null;
  #events = 0;
  #held: Buffer[] = [];

  constructor(response: ServerResponse, fault: Fault | null) {
    this.#response = response;
    this.#fault = fault;
  }

  /** Whether the client is gone. */
  get gone(): boolean {
    return this.#response.destroyed || this.#response.closed;
  }

  /** Applies what happens before the server answers at all. */
  async beforeHeaders(): Promise<void> {
    const fault = this.#fault;
    if (fault?.kind === "reset" && fault.when === "before_headers") this.#reset();
    if (fault?.kind === "hang" && fault.when === "before_headers") await this.#hang();
    if (fault?.kind === "html") {
      const page = "<!DOCTYPE html><html><body><h1>Bad Gateway</h1></body></html>";
      this.#answer(fault.status ?? 200, fault.contentType ?? "text/html", page);
      throw new ExchangeEnded();
    }
    if (fault?.kind === "status") {
      this.#answer(
        fault.status,
        fault.contentType ?? "application/json",
        fault.body ?? errorBody(fault.status),
      );
      throw new ExchangeEnded();
    }
  }

  /** A whole JSON answer. */
  async json(status: number, value: unknown): Promise<void> {
    const text = JSON.stringify(value);
    if (this.#fault?.kind === "truncated_json") {
      this.#answer(status, "application/json", text.slice(0, text.length >> 1));
    } else {
      this.#answer(status, this.#contentType("application/json"), text);
    }
  }

  /** A whole answer that is no JSON. */
  async text(contentType: string, body: string): Promise<void> {
    this.#answer(200, contentType, body);
  }

  /** Begins an event stream. */
  async beginStream(): Promise<void> {
    const fault = this.#fault;
    this.#response.writeHead(200, { "content-type": this.#contentType("text/event-stream; charset=utf-8") });
    this.#response.flushHeaders();
    if (fault?.kind === "reset" && fault.when === "after_headers") this.#reset();
    if (fault?.kind === "hang" && fault.when === "first_token") await this.#hang();
    if (fault?.kind === "long_comment") await this.#send(`: ${"x".repeat(fault.bytes)}\n\n`);
    if (fault?.kind === "only_comments") {
      while (!this.gone) {
        await this.#send(": still here\n\n");
        await sleep(fault.delayMs);
      }
      throw new ExchangeEnded();
    }
  }

  /** One event of the stream. */
  async event(value: unknown): Promise<void> {
    await this.#beforeEvent();
    const json = JSON.stringify(value);
    this.#events++;
    await this.#send(`data: ${json}\n\n`);
  }

  /** One more text delta, for faults that need one. */
  get longLine(): number {
    return this.#fault?.kind === "long_line" ? this.#fault.bytes : 0;
  }

  /** Ends the stream. */
  async endStream(): Promise<void> {
    await this.#beforeEvent();
    if (this.#fault?.kind !== "missing_done") await this.#send(`data: ${DONE}\n\n`);
    if (this.#held.length > 0) this.#response.write(Buffer.concat(this.#held));
    this.#response.end();
  }

  async #beforeEvent(): Promise<void> {
    const fault = this.#fault;
    if (this.gone) throw new ExchangeEnded();
    if (fault === null || !("afterEvents" in fault || fault.kind === "error_event" || isMidway(fault)))
      return;
    const after = "afterEvents" in fault ? (fault.afterEvents ?? defaultAfter(fault)) : defaultAfter(fault);
    if (this.#events !== after) return;
    if (fault.kind === "reset") {
      // A reset takes back what the client has not read yet; let it read.
      await sleep(20);
      this.#reset();
    }
    if (fault.kind === "hang") await this.#hang();
    if (fault.kind === "truncated_json") {
      await this.#send('data: {"id":"x","choices":[{"ind\n\n');
      this.#response.end();
      throw new ExchangeEnded();
    }
    if (fault.kind === "missing_done") {
      this.#response.end();
      throw new ExchangeEnded();
    }
    if (fault.kind === "error_event") {
      const message = fault.message ?? "EngineCore encountered an issue.";
      const error = { message, type: "InternalServerError", param: null, code: 500 };
      await this.#send(`data: ${JSON.stringify({ error })}\n\ndata: ${DONE}\n\n`);
      this.#response.end();
      throw new ExchangeEnded();
    }
  }

  /** Writes text in the pieces that the fault asks for; waits for the client where it reads slowly. */
  async #send(text: string): Promise<void> {
    const fault = this.#fault;
    const bytes = Buffer.from(text);
    if (fault?.kind === "buffered") {
      this.#held.push(bytes);
      return;
    }
    for (const piece of fault === null ? [bytes] : piecesOf(bytes, fault)) {
      if (this.gone) throw new ExchangeEnded();
      const flowing = this.#response.write(piece);
      if (fault?.kind === "chunked") await sleep(fault.delayMs ?? 0);
      else if (fault?.kind === "cut_characters") await sleep(0);
      if (!flowing && !this.gone) await this.#drained();
    }
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#response.off("drain", done).off("close", done);
        resolve();
      };
      this.#response.on("drain", done).on("close", done);
    });
  }

  #contentType(usual: string): string {
    return this.#fault?.kind === "content_type" ? this.#fault.value : usual;
  }

  #answer(status: number, contentType: string, body: string): void {
    this.#response.writeHead(status, { "content-type": contentType }).end(body);
  }

  #reset(): never {
    this.#response.socket?.resetAndDestroy();
    throw new ExchangeEnded();
  }

  async #hang(): Promise<never> {
    if (!this.gone) await new Promise((resolve) => this.#response.on("close", resolve));
    throw new ExchangeEnded();
  }
}

function isMidway(fault: Fault): boolean {
  const { kind } = fault;
  if (kind === "reset") return fault.when === "mid_stream";
  if (kind === "hang") return fault.when === "between_tokens";
  return kind === "truncated_json";
}

function defaultAfter(fault: Fault): number {
  // A stream that only lacks its [DONE] ends after its last event.
  return fault.kind === "missing_done" ? Number.POSITIVE_INFINITY : 1;
}

function piecesOf(bytes: Buffer, fault: Fault): Buffer[] {
  if (fault.kind === "chunked") {
    const pieces: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += fault.bytes) pieces.push(bytes.subarray(at, at + fault.bytes));
    return pieces;
  }
  if (fault.kind === "cut_characters") {
    const cuts = [...bytes.keys()].filter((at) => ((bytes[at] ?? 0) & 0xc0) === 0x80 || at === 3);
    return [0, ...cuts].map((from, index) => bytes.subarray(from, cuts[index] ?? bytes.length));
  }
  return [bytes];
}

/** What vLLM 0.32 sends with an error status. */
export function errorBody(status: number, message?: string, members: JsonObject = {}): string {
  const types: Record<number, string> = {
    400: "BadRequestError",
    401: "Unauthorized",
    404: "NotFoundError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
  };
  if (status === 401) return JSON.stringify({ error: "Unauthorized" });
  const error = {
    message: message ?? `Simulated status ${status}.`,
    type: types[status] ?? "Error",
    param: null,
    code: status,
    ...members,
  };
  return JSON.stringify({ error });
}
