import type { ChatMessage, Turn } from "../../ts/index.ts";

export const CONVERSATIONS: number;
export const HOT: number;
export function tenantOf(number: number): string;
export function historyOf(turn: Turn): Promise<ChatMessage[]>;
