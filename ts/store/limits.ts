/** What every store refuses, so that a turn that one takes is taken by all of them. */

import { PromptseamError } from "../errors.ts";

/** The longest id of a tenant, conversation, project, domain or turn, in UTF-16 code units. */
const LONGEST_ID = 1_000;

const MOST_DIGESTS = 1_000;

/**
 * Refuses ids that cannot be told apart once they are written down.
 *
 * @throws PromptseamError `PS_INVALID_ARGUMENT`
 */
export function checkIds(...ids: readonly (string | undefined)[]): void {
  for (const id of ids) {
    if (id === undefined) continue;
    if (id.length > LONGEST_ID || !id.isWellFormed()) {
      const what = `Ids in a store are well-formed text of at most ${LONGEST_ID} characters.`;
      throw new PromptseamError("PS_INVALID_ARGUMENT", what, { details: { limit: LONGEST_ID } });
    }
  }
}

/** @throws PromptseamError `PS_INVALID_ARGUMENT` */
export function checkDigests(digests: readonly string[]): void {
  if (digests.length <= MOST_DIGESTS) return;
  const what = `At most ${MOST_DIGESTS} digests are looked up at once.`;
  throw new PromptseamError("PS_INVALID_ARGUMENT", what, { details: { limit: MOST_DIGESTS } });
}

/**
 * How many conversations to list: from 1 to 1,000.
 *
 * @throws PromptseamError `PS_INVALID_ARGUMENT` for what is no number
 */
export function listLimit(limit = 100): number {
  if (Number.isNaN(limit)) throw new PromptseamError("PS_INVALID_ARGUMENT", "limit must be a number.");
  return Math.max(1, Math.min(1_000, Math.floor(limit)));
}
