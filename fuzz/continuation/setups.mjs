// The kinds of Seams that are tried. They share stores, as the processes of a service that is being reconfigured do.

/** Nothing is hidden by the shadow check, but in the last setup. */
const BARE = { shadow: { first: 0, share: 0 } };

export const SETUPS = {
  rendered: { ...BARE },
  sampled: { ...BARE, history: "sampled" },
  restore: { ...BARE, omittedReasoning: "restore" },
  follow: { ...BARE, clock: "follow" },
  sampledRestore: { ...BARE, history: "sampled", omittedReasoning: "restore", clock: "follow" },
  defaults: {},
};

/** Which of them a session has: nearly always one. */
export function chooseSetups(random) {
  const one = () =>
    random.weighted([
      [50, "rendered"],
      [20, "sampled"],
      [10, "restore"],
      [6, "follow"],
      [4, "sampledRestore"],
      [10, "defaults"],
    ]);
  return random.chance(0.04) ? [one(), one()] : [one()];
}
