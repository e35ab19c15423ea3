import type { PoolConfig } from "pg";

/** A server, and how to reach it. */
export interface Database {
  readonly connection: PoolConfig;
  /** Whether it can be stopped and started again. */
  readonly own: boolean;
  start(): Promise<void>;
  /** Cuts all connections; what was committed stays. */
  stop(): Promise<void>;
  /** Stops it for good, and removes its files. */
  close(): Promise<void>;
}

/** @throws Error that says what is missing */
export function startDatabase(): Promise<Database>;
