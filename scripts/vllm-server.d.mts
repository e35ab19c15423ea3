export const VLLM_HOME: string;

export function modelFolder(family: string): string;

export function startVllm(
  family: string,
  options?: {
    readonly engine?: boolean;
    readonly flags?: readonly string[];
    readonly env?: Readonly<Record<string, string>>;
    readonly port?: number;
  },
): Promise<{ readonly baseUrl: string; readonly group: number; readonly stop: () => Promise<void> }>;
