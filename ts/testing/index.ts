/** `promptseam/testing`: a server in this process that speaks vLLM's protocol and fails on demand, and what every store must do. */

export type { EngineOptions } from "./engine.ts";
export type { Fault, FaultOptions } from "./faults.ts";
export type { ServerHandles } from "./handles.ts";
export { byteModel, type TestModel, type TokenIds } from "./model.ts";
export type { ScriptedAnswer } from "./script.ts";
export {
  type Answers,
  type RecordedRequest,
  startTestServer,
  type TestServer,
  type TestServerOptions,
} from "./server.ts";
export { type StoreCase, type StoreSource, storeConformance } from "./store-conformance.ts";
