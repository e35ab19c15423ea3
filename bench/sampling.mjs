// Samples and what is said of them.

/** A row of results: the median and the 95th percentile of `samples`. */
export function row(name, unit, samples, more = {}) {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return { name, unit, median: at(0.5), p95: at(0.95), n: sorted.length, ...more };
}

/** Runs each of `ways` in turn, `rounds` times, each round with an input of its own; gives milliseconds by way. */
export async function interleaved(ways, rounds, makeInput) {
  const samples = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const [name, run] of Object.entries(ways)) {
      const input = makeInput();
      const start = performance.now();
      await run(input);
      samples[name].push(performance.now() - start);
    }
  }
  return samples;
}

/** The ratio of two medians, pair by pair the median of the quotients. */
export function ratio(slow, fast) {
  return row(
    "",
    "",
    slow.map((value, index) => value / fast[index]),
  ).median;
}
