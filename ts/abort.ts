/** Waiting that an AbortSignal ends. */

import { abortError } from "./errors.ts";

/**
 * `work`'s result, or a rejection as soon as `signal` fires: the work itself goes on, unless `onAbort` stops it.
 *
 * @throws PromptseamError `PS_ABORTED`; the work is then not begun if the signal had fired before
 */
export async function abortable<T>(
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
  onAbort = (): void => {},
): Promise<T> {
  if (signal === undefined) return work();
  if (signal.aborted) throw abortError(signal);
  let listener = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    listener = () => {
      onAbort();
      reject(abortError(signal));
    };
    signal.addEventListener("abort", listener, { once: true });
  });
  try {
    return await Promise.race([work(), aborted]);
  } finally {
    signal.removeEventListener("abort", listener);
  }
}
