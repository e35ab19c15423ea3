/** Careful reading of JSON that somebody else wrote: a member is of the asked type or null. */

import { PromptseamError } from "../errors.ts";

/** Any JSON value. */
export type JsonValue = string | number | boolean | null | readonly JsonValue[] | JsonObject;

/** A JSON object whose members are not known yet. */
export interface JsonObject {
  readonly [member: string]: JsonValue | undefined;
}

/** Parses JSON text to an object. The message of JavaScript's own error quotes the text, so it is not passed on. */
export function parseObject(json: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw new PromptseamError("PS_PROTOCOL", "The server sent JSON that does not parse.");
  }
  const object = asObject(value as JsonValue);
  if (object === null)
    throw new PromptseamError("PS_PROTOCOL", "The server sent JSON that is not an object.");
  return object;
}

export function asObject(value: JsonValue | undefined): JsonObject | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : null;
}

export function asArray(value: JsonValue | undefined): readonly JsonValue[] {
  return Array.isArray(value) ? value : [];
}

export function asString(value: JsonValue | undefined): string | null {
  return typeof value === "string" ? value : null;
}

/** A count: a non-negative safe integer. */
export function asCount(value: JsonValue | undefined): number | null {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : null;
}
