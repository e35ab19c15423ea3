/** The border to the native side: token id lists are written into request bodies and read out of answers there. */

export { type Answer as WireEvent, type Prompt as WirePrompt, readEvent } from "../prompt.ts";
