// The chart of times to first token, as SVG for people to look at.

const [WIDTH, HEIGHT] = [760, 420];
const PLOT = { left: 70, right: 610, top: 48, bottom: 360 };
const COLOURS = {
  messages: "#c2410c",
  "chat ids": "#0369a1",
  "generate ids": "#15803d",
  handle: "#7e22ce",
  floor: "#64748b",
};

/** `sizes`: [{tokens, medians: name to ms}], smallest first. */
export function ttftChart(sizes, machine) {
  const most = Math.max(...sizes.flatMap(({ medians }) => Object.values(medians)));
  const step = [10, 20, 50, 100, 200, 500, 1000].find((size) => most / size <= 8) ?? 2000;
  const top = Math.ceil(most / step) * step;
  const widest = Math.ceil(sizes.at(-1).tokens / 10_000) * 10_000;
  const x = (tokens) => PLOT.left + ((PLOT.right - PLOT.left) * tokens) / widest;
  const y = (ms) => PLOT.bottom - ((PLOT.bottom - PLOT.top) * ms) / top;
  const text = (at, above, words, more = "") => `<text x="${at}" y="${above}" ${more}>${words}</text>`;
  const parts = [];
  for (let ms = 0; ms <= top; ms += step) {
    parts.push(`<line x1="${PLOT.left}" x2="${PLOT.right}" y1="${y(ms)}" y2="${y(ms)}" stroke="#8884" />`);
    parts.push(text(PLOT.left - 8, y(ms) + 4, ms, 'text-anchor="end"'));
  }
  for (let tokens = 0; tokens <= widest; tokens += 20_000) {
    parts.push(text(x(tokens), PLOT.bottom + 20, `${tokens / 1000}k`, 'text-anchor="middle"'));
  }
  const ends = Object.keys(COLOURS).map((name) => ({ name, at: y(sizes.at(-1).medians[name]) }));
  ends.sort((a, b) => a.at - b.at);
  for (let i = 1; i < ends.length; i++) ends[i].at = Math.max(ends[i].at, ends[i - 1].at + 18);
  for (const { name, at } of ends) {
    const points = sizes.map(
      ({ tokens, medians }) => `${x(tokens).toFixed(1)},${y(medians[name]).toFixed(1)}`,
    );
    const colour = COLOURS[name];
    parts.push(`<polyline points="${points.join(" ")}" fill="none" stroke="${colour}" stroke-width="2" />`);
    for (const point of points) {
      const [cx, cy] = point.split(",");
      parts.push(`<circle cx="${cx}" cy="${cy}" r="3" fill="${colour}" />`);
    }
    const ms = Math.round(sizes.at(-1).medians[name]);
    parts.push(text(PLOT.right + 10, at + 4, `${name}, ${ms} ms`, `fill="${colour}"`));
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="system-ui, sans-serif" font-size="13" fill="#64748b" role="img" aria-label="Time to first token by prompt length and way to send it">
${text(PLOT.left, 24, "Time to first token, warm prefix cache (ms, medians)", 'font-size="15"')}
${parts.join("\n")}
${text(PLOT.left, HEIGHT - 14, `Prompt tokens. vLLM 0.32 on ${machine}, tiny model: the engine's own work is small and the server's shows.`, 'font-size="11"')}
</svg>
`;
}
