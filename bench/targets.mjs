// What the medians are held to, by the name of the row.

export const TARGETS = {
  "core: turn, body to ids, 28k": { atMost: 2 },
  "core: turn, aligned next turn (+500), 28k": { atMost: 1 },
  "core: prompt, diff, 28k": { atMost: 2 },
  "core: prompt, diff, 128k": { atMost: 10 },
  "body to ids, Qwen3, 28k: times faster than the best exact way in JavaScript": { atLeast: 25 },
  "body to ids, o200k, 28k: times faster than the best exact way in JavaScript": { atLeast: 10 },
  "next turn (+500), 28k": { atMost: 1 },
  "main thread, 28k turn: processor time, settling and collection included": { atMost: 100 },
  "event-loop delay p99: above idle, 64 turns in flight": { atMost: 2 },
  "load Qwen3": { atMost: 1.5 },
  "resident after it": { atMost: 250 },
  "a prompt's bytes for a token that it does not share": { atMost: 6 },
};
