// Counts of what the fuzzer saw.

export class Tally {
  /** Prepared turns but for the first of each session. */
  transitions = 0;
  sessions = 0;
  mismatches = 0;
  #outcomes = new Map();
  #drift = new Map();

  turn(family, { turn, refused }, first) {
    const outcome = turn === undefined ? `refused/${refused}` : nameOf(turn.outcome);
    count(this.#outcomes, outcome, family, 1);
    if (turn === undefined) return;
    count(this.#drift, turn.drift, family, 1);
    if (!first) this.transitions++;
  }

  /** All of it as plain data, to be sent between threads. */
  data() {
    const { transitions, sessions, mismatches } = this;
    return { transitions, sessions, mismatches, outcomes: [...this.#outcomes], drift: [...this.#drift] };
  }

  add({ transitions, sessions, mismatches, outcomes, drift }) {
    this.transitions += transitions;
    this.sessions += sessions;
    this.mismatches += mismatches;
    for (const [name, families] of outcomes)
      for (const [family, n] of families) count(this.#outcomes, name, family, n);
    for (const [name, families] of drift)
      for (const [family, n] of families) count(this.#drift, name, family, n);
    return this;
  }

  /** Outcomes, or drift, by family. */
  table() {
    const drift = [...this.#drift].map(([name, families]) => [`drift: ${name}`, families]);
    const rows = [...[...this.#outcomes].sort(([a], [b]) => (a < b ? -1 : 1)), ...drift];
    const families = [...new Set(rows.flatMap(([, counts]) => [...counts.keys()]))].sort();
    const lines = [["outcome", ...families]];
    for (const [name, counts] of rows)
      lines.push([name, ...families.map((family) => String(counts.get(family) ?? 0))]);
    const widths = lines[0].map((_, at) => Math.max(...lines.map((line) => line[at].length)));
    const padded = lines.map((line) =>
      line.map((cell, at) => (at === 0 ? cell.padEnd(widths[at]) : cell.padStart(widths[at]))).join("  "),
    );
    return padded.join("\n");
  }
}

function nameOf({ kind, reason, field }) {
  if (reason === undefined) return kind;
  return field === undefined ? `${kind}/${reason}` : `${kind}/${reason} (${field})`;
}

function count(counts, name, family, n) {
  const families = counts.get(name) ?? new Map();
  counts.set(name, families.set(family, (families.get(family) ?? 0) + n));
}
