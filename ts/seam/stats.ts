/** Counts of what the turns of a Seam came to. */

import type { Drift, Outcome } from "./outcome.ts";

/** Counts since the Seam was made. */
export interface SeamStats {
  /** Turns by outcome: `certified_suffix`, or rung and reason as `aligned_render/template_rewrote_history`. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** Answers by how their history form stood to the ids that were sampled. */
  readonly drift: Readonly<Record<Drift, number>>;
  /** Certified prompts that were compared with the full render, and how many of them were not it. */
  readonly shadowChecks: number;
  readonly shadowMismatches: number;
  /** Certificates that did not hold right before sending. */
  readonly refusedCertificates: number;
  /** Records from the store that were damaged, of another version, or not to be decrypted. */
  readonly refusedRecords: number;
  /** Turns that were answered by handle, and requests whose handle the server did not have. */
  readonly byHandle: number;
  readonly handleMisses: number;
  /** In `observe` mode: plans compared with the server's rendering, and how many differed. */
  readonly observed: number;
  readonly observedMismatches: number;
  /** Turns by how they ended. */
  readonly committed: number;
  readonly branched: number;
  readonly notDurable: number;
  readonly abandoned: number;
}

type Counter = Exclude<keyof SeamStats, "outcomes" | "drift" | "refusedRecords">;

/** Counts turns. */
export class Tally {
  readonly #outcomes: Record<string, number> = {};
  readonly #drift: Record<Drift, number> = { unknown: 0, none: 0, drifted: 0, rewritten: 0 };
  readonly #counts: Record<Counter, number> = {
    shadowChecks: 0,
    shadowMismatches: 0,
    refusedCertificates: 0,
    byHandle: 0,
    handleMisses: 0,
    observed: 0,
    observedMismatches: 0,
    committed: 0,
    branched: 0,
    notDurable: 0,
    abandoned: 0,
  };

  planned(outcome: Outcome, drift: Drift): void {
    const name = outcomeName(outcome);
    this.#outcomes[name] = (this.#outcomes[name] ?? 0) + 1;
    this.#drift[drift]++;
  }

  count(counter: Counter, by = 1): void {
    this.#counts[counter] += by;
  }

  stats(): Omit<SeamStats, "refusedRecords"> {
    return { outcomes: { ...this.#outcomes }, drift: { ...this.#drift }, ...this.#counts };
  }
}

/** An outcome in one word. */
export function outcomeName(outcome: Outcome): string {
  return outcome.kind === "certified_suffix" ? outcome.kind : `${outcome.kind}/${outcome.reason}`;
}
