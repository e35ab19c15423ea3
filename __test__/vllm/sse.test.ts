import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PromptseamError } from "../../ts/index.ts";
import { SseParser } from "../../ts/vllm/sse.ts";

/** Event data by the standard's algorithm, on the whole text at once. */
function naive(text: string): string[] {
  const events: string[] = [];
  let data: string[] = [];
  for (const line of text
    .replace(/^\ufeff/, "")
    .split(/\r\n|\n|\r/)
    .slice(0, -1)) {
    if (line === "") {
      if (data.length > 0) events.push(data.join("\n"));
      data = [];
    } else if (line === "data" || line.startsWith("data:")) {
      data.push(line.slice(5).replace(/^ /, ""));
    }
  }
  return events;
}

function parse(bytes: Uint8Array, cuts: readonly number[]): string[] {
  const parser = new SseParser({ maxEventBytes: 1 << 20 });
  const events: string[] = [];
  let from = 0;
  for (const to of [...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]) {
    parser.push(bytes.subarray(from, to));
    for (let data = parser.next(); data !== null; data = parser.next())
      events.push(Buffer.from(data).toString("utf8"));
    from = to;
  }
  return events;
}

describe("the SSE parser", () => {
  test("gives the same events however the bytes are cut", () => {
    const line = fc.oneof(
      fc.string({ unit: "grapheme", maxLength: 12 }).map((text) => `data: ${text.replace(/[\r\n]/g, "")}`),
      fc.constantFrom("", "", ":comment", "data", "data:", "data:  x", "event: y", "id: 1", "data: 日本語👍"),
    );
    const end = fc.constantFrom("\n", "\r\n", "\r");
    const stream = fc.array(fc.tuple(line, end), { maxLength: 24 });
    fc.assert(
      fc.property(stream, fc.boolean(), fc.array(fc.nat(), { maxLength: 30 }), (lines, bom, cuts) => {
        // A lone CR at the very end could be half of a CRLF; a blank line after it settles that.
        const text = `${bom ? "\ufeff" : ""}${lines.map(([text, end]) => text + end).join("")}:end\n`;
        expect(parse(Buffer.from(text), cuts)).toEqual(naive(text));
      }),
      { numRuns: 1_000 },
    );
  });

  test("a 10 MB line in 1 kB pieces costs linear time; a longer one than allowed is a typed error", () => {
    const piece = Buffer.alloc(1024, "x");
    const parser = new SseParser({ maxEventBytes: 11 << 20 });
    parser.push(Buffer.from("data: "));
    expect(parser.next()).toBeNull();
    const start = performance.now();
    for (let i = 0; i < 10 * 1024; i++) {
      parser.push(piece);
      expect(parser.next()).toBeNull();
    }
    parser.push(Buffer.from("\n\n"));
    expect(parser.next()?.length).toBe(10 << 20);
    expect(performance.now() - start).toBeLessThan(5_000);

    const small = new SseParser({ maxEventBytes: 1024 });
    const overflow = () => {
      for (let i = 0; i < 4; i++) {
        small.push(Buffer.concat([Buffer.from("data: "), piece]));
        small.next();
      }
    };
    expect(overflow).toThrow(PromptseamError);
  });
});
