// What a soak has seen: counts, and everything that should not have been.

/** Failures that a server which is stopped in mid-stream leaves its callers with: they take the turn again. */
const CUT = new Set(["PS_STREAM_TRUNCATED", "PS_SERVER", "PS_ABORTED"]);

export class Report {
  turns = 0;
  byHandle = 0;
  misses = 0;
  retried = 0;
  cut = 0;
  drops = 0;
  restarts = 0;
  evictions = 0;
  mostBytes = 0;
  problems = [];
  /** While a server goes down, streams that had begun are cut; a client cannot take back what it gave out. */
  goingDown = false;
  /** Counters of the server's present life. */
  #evictionsNow = 0;

  problem(text) {
    if (this.problems.length === 100) return;
    this.problems.push(text);
    process.stdout.write(`\nPROBLEM: ${text}\n`);
  }

  ended(turn, whole, sampled) {
    const { facts, prompt, outcome } = turn;
    this.turns++;
    this.misses += facts.handleMisses;
    this.retried += facts.attempts - 1 - facts.handleMisses;
    const where = `turn ${this.turns} (${outcome.kind}/${outcome.reason ?? ""}, by ${facts.way})`;
    if (prompt === null || !prompt.equals(whole)) this.problem(`${where}: not the full render`);
    if (facts.promptTokens !== whole.length)
      this.problem(`${where}: the engine saw ${facts.promptTokens} tokens, not ${whole.length}`);
    if (facts.idsIgnored) this.problem(`${where}: ids were ignored`);
    if (facts.way !== "handle") return;
    this.byHandle++;
    // The server's own hash over what it gave the engine and what that sampled.
    const { handle } = facts;
    if (handle !== null && handle.tokenHash !== whole.continued(sampled).hash())
      this.problem(`${where}: the server keeps other ids than the full render and what was sampled`);
  }

  failed(error, facts) {
    if (this.goingDown && facts?.firstTokenMs !== null && CUT.has(error.code)) this.cut++;
    else this.problem(`an error reached the caller: ${error.code} ${error.message}`);
  }

  /** The server's metrics, polled. */
  watched(metrics, maxBytes) {
    const bytes = metrics.sum("promptseam_handle_bytes") ?? 0;
    this.mostBytes = Math.max(this.mostBytes, bytes);
    if (bytes > maxBytes) this.problem(`${bytes} bytes of handles, over ${maxBytes}`);
    this.#evictionsNow = metrics.sum("promptseam_evictions_total") ?? 0;
    const mismatches = metrics
      .samples("promptseam_misses_total")
      .filter(({ labels }) => labels.reason === "prefix_mismatch");
    for (const { value } of mismatches)
      if (value > 0) this.problem(`${value} references had a wrong count or hash`);
  }

  restarted() {
    this.restarts++;
    this.evictions += this.#evictionsNow;
    this.#evictionsNow = 0;
  }

  line(minutes) {
    const evictions = this.evictions + this.#evictionsNow;
    return (
      `soak: ${minutes.toFixed(1)} minutes, ${this.turns} turns, ${this.byHandle} by handle, ${this.misses} misses, ` +
      `${this.drops} drops, ${evictions} evictions, ${this.restarts} restarts (${this.retried} requests sent again, ` +
      `${this.cut} streams cut and their turns taken again), at most ${this.mostBytes} bytes of handles: ${this.problems.length} problems`
    );
  }
}
