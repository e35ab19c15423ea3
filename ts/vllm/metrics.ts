/** The server's metrics: Prometheus text, read far enough to add up a counter. */

/** One line of the metrics. */
export interface MetricSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** Metrics of one moment, of all engines behind the server. */
export class Metrics {
  /** As the server sent it. */
  readonly text: string;
  readonly #samples = new Map<string, MetricSample[]>();

  constructor(text: string) {
    this.text = text;
    for (const line of text.split("\n")) {
      const match = line.startsWith("#") ? null : LINE.exec(line);
      if (match === null) continue;
      const [, name = "", labels = "", value] = match;
      const sample = { name, labels: readLabels(labels), value: readValue(value) };
      const known = this.#samples.get(name);
      if (known === undefined) this.#samples.set(name, [sample]);
      else known.push(sample);
    }
  }

  /** All samples of a metric, such as `vllm:prefix_cache_hits_total`; empty where the server has none. */
  samples(name: string): readonly MetricSample[] {
    return this.#samples.get(name) ?? [];
  }

  /** The samples of a metric added up over its labels; null where the server has none. */
  sum(name: string): number | null {
    const samples = this.#samples.get(name);
    return samples === undefined ? null : samples.reduce((total, { value }) => total + value, 0);
  }
}

function readLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const [, name = "", value = ""] of text.matchAll(LABEL)) {
    labels[name] = value.replace(/\\(.)/g, (_, escaped: string) => (escaped === "n" ? "\n" : escaped));
  }
  return labels;
}

function readValue(text = ""): number {
  if (text === "+Inf") return Number.POSITIVE_INFINITY;
  return text === "-Inf" ? Number.NEGATIVE_INFINITY : Number(text);
}
