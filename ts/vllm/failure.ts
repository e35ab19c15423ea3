/** One place where what goes wrong on the wire becomes a PromptseamError. */

import { type ErrorCode, PromptseamError } from "../errors.ts";
import { asCount, asObject, asString, type JsonObject, type JsonValue } from "./json.ts";

const MESSAGE_LIMIT = 300;

/**
 * The error for an error status. vLLM 0.32 answers `{"error": {message, type, param, code}}`, its 401 `{"error": "..."}`,
 * its router `{"detail": "..."}`; proxies answer HTML. A prompt over the context becomes `PS_CONTEXT_OVERFLOW`.
 */
export function statusError(
  status: number,
  contentType: string,
  body: string,
  redact: (text: string) => string,
): PromptseamError {
  let said: ServerMessage = { raw: "", text: null };
  try {
    said = readError(JSON.parse(body) as JsonValue, redact);
  } catch {
    // Not JSON: nothing in it is worth showing.
  }
  const retryable = status === 500 || status === 503;
  const overflow = status === 400 ? readOverflow(said.raw) : null;
  const what = said.text ?? `no message (${mediaType(contentType)})`;
  return new PromptseamError(
    overflow === null ? "PS_HTTP_STATUS" : "PS_CONTEXT_OVERFLOW",
    `The server answered ${status}: ${what}`,
    { details: { status, retryable, ...typeAndParam(said), ...overflow } },
  );
}

/**
 * The error for an error object inside an answer with status 200, which may be a refusal: vLLM 0.32 reports foreign token
 * ids of a streamed generate or completion that way, with code 400. Never retryable: generation may have begun.
 */
export function serverError(object: JsonObject, redact: (text: string) => string): PromptseamError {
  const said = readError(object, redact);
  const code = asCount(asObject(object["error"])?.["code"]);
  const overflow = code === 400 ? readOverflow(said.raw) : null;
  return new PromptseamError(
    overflow === null ? "PS_SERVER" : "PS_CONTEXT_OVERFLOW",
    `The server reported an error: ${said.text ?? "no message"}`,
    {
      details: {
        retryable: false,
        ...(code === null ? {} : { status: code }),
        ...typeAndParam(said),
        ...overflow,
      },
    },
  );
}

/** The error for an answer whose content type is not the one that the request asks for. */
export function contentTypeError(expected: string, contentType: string): PromptseamError {
  return new PromptseamError(
    "PS_PROTOCOL",
    `The server answered ${mediaType(contentType)} where ${expected} was expected. Is the base URL that of a vLLM server?`,
    { details: { status: 200 } },
  );
}

const REFUSED = new Set(["ECONNREFUSED", "ECONNRESET", "EPIPE", "UND_ERR_SOCKET"]);

/**
 * The error for what undici throws while connecting, sending or waiting for an answer. Refused and reset connections are
 * retryable; a host that does not resolve, or a broken certificate, is not.
 */
export function connectError(cause: unknown): PromptseamError {
  const code = errorCode(cause);
  if (code === "UND_ERR_CONNECT_TIMEOUT") return timeoutError("connect", null);
  if (code.startsWith("HPE_")) {
    return new PromptseamError("PS_PROTOCOL", "The server does not speak HTTP/1.1.", { cause });
  }
  if (PromptseamError.isInstance(cause)) return cause;
  return new PromptseamError("PS_CONNECT", `The connection to the server failed (${code || "no code"}).`, {
    cause,
    details: { retryable: REFUSED.has(code) },
  });
}

/** The error for a stream that stopped before the answer did. */
export function truncatedError(cause?: unknown): PromptseamError {
  return new PromptseamError("PS_STREAM_TRUNCATED", "The stream ended before the answer did.", {
    ...(cause === undefined ? {} : { cause }),
    details: { retryable: false },
  });
}

/** What a deadline waits for. */
export type DeadlinePhase = "connect" | "first_token" | "between_tokens" | "answer";

const PHASES: Readonly<Record<DeadlinePhase, string>> = {
  connect: "a connection",
  first_token: "the first token",
  between_tokens: "the next token",
  answer: "the whole answer",
};

/** The error for a deadline of `limit` milliseconds (null where undici kept it). */
export function timeoutError(phase: DeadlinePhase, limit: number | null): PromptseamError {
  const after = limit === null ? "" : ` of ${limit} ms`;
  return new PromptseamError("PS_TIMEOUT", `The deadline${after} for ${PHASES[phase]} passed.`, {
    details: { phase, retryable: false, ...(limit === null ? {} : { limit }) },
  });
}

const FAILURES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "PS_CONNECT",
  "PS_TIMEOUT",
  "PS_PROTOCOL",
  "PS_STREAM_TRUNCATED",
]);

/** Whether the server, or the way to it, failed; not the caller, and not a refusal of this one request. */
export function isServerFailure({ code, details }: PromptseamError): boolean {
  if (code === "PS_HTTP_STATUS" || code === "PS_SERVER") return (details.status ?? 500) >= 500;
  return FAILURES.has(code);
}

/**
 * Whether the server reported its own failure inside a stream: as the first event of one, that is its 500 or 503. vLLM 0.32 sends the
 * status before it asks the engine, so a dying engine answers those who wait that way.
 */
export function isServerError({ code, details }: PromptseamError): boolean {
  return code === "PS_SERVER" && (details.status === 500 || details.status === 503);
}

interface ServerMessage {
  /** As sent; may quote the request. */
  readonly raw: string;
  /** Fit for an error; null when the server gave no message. */
  readonly text: string | null;
  readonly type?: string | null;
  readonly param?: string | null;
}

function readError(value: JsonValue, redact: (text: string) => string): ServerMessage {
  const object = asObject(value);
  const error = asObject(object?.["error"]);
  const message = asString(error?.["message"]) ?? asString(object?.["error"]) ?? asString(object?.["detail"]);
  return {
    raw: message ?? "",
    text: message === null ? null : redact(clean(message)),
    type: asString(error?.["type"]),
    param: asString(error?.["param"]),
  };
}

function typeAndParam(said: ServerMessage): { type?: string; param?: string } {
  return {
    ...(said.type ? { type: said.type.slice(0, 100) } : {}),
    ...(said.param ? { param: said.param.slice(0, 100) } : {}),
  };
}

/**
 * A server's message, fit for an error. The validation errors of vLLM 0.32 are Python dicts, one a line, that quote the
 * offending input: only `loc` and `msg` of each are kept.
 */
function clean(message: string): string {
  const validation = [
    ...message.matchAll(/'loc': '([^']{0,100})', 'msg': (?:'([^']{0,200})'|"([^"]{0,200})")/g),
  ];
  const text =
    validation.length > 0
      ? validation.map(([, where, single, double]) => `${where}: ${single ?? double}`).join("; ")
      : message.split("\n", 1)[0] || message.trim();
  return text.length > MESSAGE_LIMIT ? `${text.slice(0, MESSAGE_LIMIT)}…` : text;
}

/** The three wordings of vLLM 0.32, for ids on the chat way, for messages, and for generate. */
const OVERFLOWS = [
  /Input length \((?<prompt>\d+)\) exceeds model's maximum context length \((?<limit>\d+)\)/,
  /maximum context length is (?<limit>\d+) tokens(?:.*?at least (?<prompt>\d+) input tokens)?/,
  /prompt \(length (?<prompt>\d+)\) is longer than the maximum model length of (?<limit>\d+)/,
];

function readOverflow(text: string): { promptTokens?: number; maxModelLength?: number } | null {
  for (const pattern of OVERFLOWS) {
    const groups = pattern.exec(text)?.groups;
    if (groups === undefined) continue;
    const { prompt, limit } = groups;
    return {
      ...(prompt === undefined ? {} : { promptTokens: Number(prompt) }),
      ...(limit === undefined ? {} : { maxModelLength: Number(limit) }),
    };
  }
  return null;
}

function mediaType(contentType: string): string {
  return contentType.split(";", 1)[0]?.trim().slice(0, 80) || "no content type";
}

function errorCode(cause: unknown): string {
  if (typeof cause !== "object" || cause === null) return "";
  const { code, errors } = cause as { code?: unknown; errors?: unknown };
  if (typeof code === "string") return code;
  // A host with several addresses fails with an AggregateError of one error for each.
  return Array.isArray(errors) && errors.length > 0 ? errorCode(errors[0]) : "";
}
