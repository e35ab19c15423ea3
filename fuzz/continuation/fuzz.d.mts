interface Counts {
  readonly transitions: number;
  readonly sessions: number;
  readonly mismatches: number;
  table(): string;
}

/** What was wrong, with the fewest steps that show it. */
export interface Mismatch {
  readonly seed: string;
  readonly family: string;
  readonly number: number;
  readonly wrong: string;
  readonly outcome: object | null;
  readonly steps: readonly object[];
}

export function fuzz(
  api: { readonly Seam: object; readonly MemoryStore: object; readonly SqliteStore: object },
  models: ReadonlyMap<string, object>,
  options: {
    readonly seed: string;
    /** By `performance.now()`. */
    readonly until: number;
    readonly first?: number;
    readonly step?: number;
    readonly sessions?: number;
    readonly onProgress?: (counts: Counts) => void;
    /** Goes on where it gives true. */
    readonly onMismatch?: (mismatch: Mismatch) => boolean | Promise<boolean>;
  },
): Promise<Counts>;
