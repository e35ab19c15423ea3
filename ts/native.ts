/** The one place that talks to the addon: loads it, and turns its outcomes into values and errors. */

import type * as Binding from "../native/binding.js";
import { abortable } from "./abort.ts";
import { ERROR_CODES, type ErrorCode, PromptseamError } from "./errors.ts";

export type {
  NativeArtifact,
  NativeArtifactInfo,
  NativeBlockHashOptions,
  NativeDecodeStream,
  NativeInfo,
  NativeModel,
  NativePlan,
  NativePrompt,
  NativeSeam,
  NativeSqlite,
  NativeTurn,
  NativeVault,
} from "../native/binding.js";

async function load(): Promise<typeof Binding> {
  try {
    return await import("../native/binding.js");
  } catch (cause) {
    throw new PromptseamError(
      "PS_ADDON",
      `promptseam's native addon could not be loaded on ${process.platform}-${process.arch}. It comes in an optional dependency ` +
        "for linux-x64-gnu and linux-arm64-gnu: install without --omit=optional, or build it in a clone with `npm run build`.",
      { cause },
    );
  }
}

/** The addon. */
export const native = await load();

const codes: ReadonlySet<string> = new Set(ERROR_CODES);

function isFailure(outcome: unknown): outcome is Binding.Failure {
  return typeof outcome === "object" && outcome !== null && "failed" in outcome;
}

/**
 * The value of an outcome.
 *
 * @throws PromptseamError with the code of the failure.
 */
export function take<T>(outcome: T | Binding.Failure): T {
  if (!isFailure(outcome)) return outcome;
  const code = codes.has(outcome.failed) ? (outcome.failed as ErrorCode) : "PS_INTERNAL";
  throw new PromptseamError(
    code,
    outcome.message,
    outcome.cause === undefined ? {} : { cause: new Error(outcome.cause) },
  );
}

/**
 * Runs native work that `signal` can cancel. An abort rejects at once; the work itself stops before or between its stages.
 *
 * napi's own AbortSignal support would overwrite the signal's `onabort`, so a listener flips a flag that the work looks at.
 */
export async function cancellable<T>(
  signal: AbortSignal | undefined,
  start: (cancel: Binding.NativeCancel | null) => Promise<T | Binding.Failure>,
): Promise<T> {
  if (signal === undefined) return take(await start(null));
  const cancel = new native.NativeCancel();
  return take(
    await abortable(
      signal,
      () => start(cancel),
      () => cancel.cancel(),
    ),
  );
}

/** A view of `bytes` as the Buffer that the addon takes; nothing is copied. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
