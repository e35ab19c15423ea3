/** The path a turn took, and why it was not the first. */

/** Why a turn did not take the first rung; docs/DESIGN.md has a table of what follows from each. */
export type Reason =
  | "no_checkpoint"
  | "artifact_miss"
  | "artifact_expired"
  | "prefix_mismatch"
  | "unsafe_boundary"
  | "tenant_mismatch"
  | "uncertified_template"
  | "shadow_mismatch"
  | "content_tests_template"
  | "unsupported_content"
  | "multiple_choices"
  | "ids_ignored"
  | "store_unavailable"
  | "disabled";

/** A field of the environment fingerprint. */
export type EnvironmentField =
  | "model"
  | "tokenizer"
  | "template"
  | "arguments"
  | "tools"
  | "reasoning"
  | "lora"
  | "renderer"
  | "salt"
  | "date";

/** A rung below the first one, and why. */
type Fallback<Kind> =
  | { readonly kind: Kind; readonly reason: Reason }
  /** The environment changed; `field` is the first one that did. */
  | { readonly kind: Kind; readonly reason: "fingerprint_mismatch"; readonly field: EnvironmentField }
  /** The template printed earlier text otherwise: the prompts differ from this token on. */
  | { readonly kind: Kind; readonly reason: "template_rewrote_history"; readonly fromToken: number };

/**
 * How a turn's prompt came about:
 * - `certified_suffix`: stored ids up to the seam, and the encoded new text. The history was not rendered.
 * - `aligned_render`: rendered whole, encoded from the last place that an earlier prompt still matches.
 * - `full_render`: rendered and encoded whole.
 * - `messages`: the server renders.
 */
export type Outcome =
  | { readonly kind: "certified_suffix" }
  | Fallback<"aligned_render" | "full_render" | "messages">;

/** How the history form of the last answer stands to the ids that the model sampled. */
export type Drift =
  /** The ids are not known, or the client gave another answer. */
  | "unknown"
  /** It encodes to them: the engine's cache matches through the answer. */
  | "none"
  /** It has their text, but encodes to other ids. */
  | "drifted"
  /** It has other text. */
  | "rewritten";

/** What binds one continuation. Hashes are BLAKE3 in hexadecimal; counts are token ids. */
export interface Certificate {
  /** The artifact whose prompt is gone on from. */
  readonly prefixId: string;
  readonly prefixTokens: number;
  /** Ids of that prompt that were kept. */
  readonly boundary: number;
  readonly appendHash: string;
  readonly appendTokens: number;
  readonly combinedId: string;
  readonly combinedTokens: number;
  readonly environment: readonly { readonly field: string; readonly digest: string }[];
  readonly tenant: string;
  /** Milliseconds of Unix time. */
  readonly expires: number;
}

/** Ids of a prompt that stand for the history form of a message (`history: "sampled"`). */
export interface SampledSpan {
  readonly start: number;
  /** Behind the last one. */
  readonly end: number;
  /** How many ids the full render has in their place. */
  readonly rendered: number;
}
