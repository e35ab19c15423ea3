// Whether a planned turn is right, and says of itself what is so.

import { isDeepStrictEqual } from "node:util";
import { differenceOutside, withoutPrompt } from "./oracle.mjs";

/**
 * @param turn what was planned
 * @param asked what was asked for, and what is known of it
 * @param full the full render, or `wanted`, why there is none
 * @param wrong makes an error of what is wrong
 */
export function checkPlan(turn, asked, full, wanted, wrong) {
  const { outcome } = turn;
  if (asked.record.members.n > 1) {
    if (nameOf(outcome) !== "messages/multiple_choices") throw wrong("several choices were planned");
    return;
  }
  if (wanted !== undefined) {
    if (nameOf(outcome) !== `messages/${withoutPrompt(wanted.code)}`)
      throw wrong("planned what cannot be rendered");
    return;
  }
  if (turn.prompt === null) throw wrong("left to the server what can be rendered");
  checkIds(turn, asked, full, wrong);
  if (nameOf(outcome) === "full_render/shadow_mismatch")
    throw wrong("only the shadow check found the prompt wrong");
  checkOutcome(turn, asked, wrong);
  checkDrift(turn, asked, wrong);
}

function nameOf({ kind, reason }) {
  return `${kind}/${reason}`;
}

function checkIds({ prompt, sampledSpans }, { options, written }, full, wrong) {
  if (sampledSpans.length === 0) {
    if (!prompt.equals(full)) throw wrong("not the full render");
    return;
  }
  if (options.history !== "sampled") throw wrong("sampled ids in a rendered history");
  const ids = prompt.tokenIds();
  if (differenceOutside(ids, sampledSpans, full.tokenIds()) !== undefined) throw wrong("not the full render");
  for (const { start, end } of sampledSpans) {
    if (!written.has(ids.subarray(start, end).join()))
      throw wrong("a span holds what the model did not write");
  }
}

function checkOutcome(turn, { base, record, checkpoint }, wrong) {
  const { outcome, prompt, prefixLength, appendedLength, certificate } = turn;
  if (prefixLength + appendedLength !== prompt.length) throw wrong("lengths that do not add up");
  const certified = outcome.kind === "certified_suffix";
  if (certified !== (certificate !== null)) throw wrong("a certificate where there is none to be");
  if (base === undefined) {
    const reason = record.passedOver ? "fingerprint_mismatch" : whyNothing(checkpoint);
    if (outcome.reason !== reason) throw wrong(`the reason is ${reason}`);
    return;
  }
  if (certified) {
    if (base.prompt.diff(prompt).commonPrefix < prefixLength)
      throw wrong("ids were taken over that the earlier prompt does not have");
    if (base.day !== record.day || !isDeepStrictEqual(base.members.tools, record.members.tools))
      throw wrong("certified under another environment");
  }
  if (outcome.reason === "template_rewrote_history") {
    const [before, after] = [base.prompt.tokenIds(), prompt.tokenIds()];
    const from = differenceOutside(before, base.spans, after, base.seam);
    if (from !== outcome.fromToken) throw wrong("history was not rewritten from there on");
  }
}

function whyNothing(checkpoint) {
  if (checkpoint === undefined) return "no_checkpoint";
  return checkpoint.tip === undefined ? "artifact_miss" : "prefix_mismatch";
}

function checkDrift({ outcome, prompt, sampledSpans, drift }, { base }, wrong) {
  const certified = outcome.kind === "certified_suffix";
  if (!certified || sampledSpans.length > 0 || base.ids === undefined || drift === "unknown") return;
  const seen = [...base.prompt.tokenIds().subarray(base.seam), ...base.ids];
  const kept = prompt.tokenIds().subarray(base.seam, base.seam + seen.length);
  const equal = kept.length === seen.length && kept.every((id, at) => id === seen[at]);
  if (equal !== (drift === "none")) throw wrong("drift that is none, or the reverse");
}
