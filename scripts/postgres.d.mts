import type { PoolConfig } from "pg";

/** A server, and how to reach it. One that was given is neither stopped nor removed. */
export interface Database {
  readonly connection: PoolConfig;
  start(): Promise<void>;
  /** Cuts all connections; what was committed stays. */
  stop(): Promise<void>;
  /** Stops it for good, and removes its files. */
  close(): Promise<void>;
}

/** @throws Error that says what is missing */
export function startDatabase(): Promise<Database>;
