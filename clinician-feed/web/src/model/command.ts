/** What staff send to a gateway's watch (docs/feed-api.md, "Commands"). Pure. */
import type { Category, Consciousness, LimitsEntry } from "./protocol";

export interface LimitsValues {
  readonly low?: number;
  readonly high?: number;
  readonly extreme_low?: number;
  readonly extreme_high?: number;
  readonly delay_s: number;
  readonly hysteresis: number;
}

export type Action =
  | { readonly acknowledge: { readonly alarms: readonly number[] } }
  | { readonly pause: { readonly seconds: number } }
  | { readonly oxygen: { readonly given: boolean } }
  | { readonly consciousness: { readonly found: Consciousness } }
  | { readonly profile: { readonly category: Exclude<Category, "unknown">; readonly pregnant: boolean; readonly scale: "one" | "two" } }
  | { readonly limits: { readonly quantity: number; readonly limits: LimitsValues | null } };

/** How long tones are paused by one press: two minutes, as bedside monitors do. */
export const PAUSE_S = 120;

export type CommandAnswer = { readonly is: "done" } | { readonly is: "refused"; readonly why: string };

/** What the feed answered. */
export function commandAnswer(ok: boolean, body: unknown): CommandAnswer {
  if (ok) return { is: "done" };
  const why = typeof body === "object" && body !== null && "error" in body ? body.error : null;
  return { is: "refused", why: typeof why === "string" ? why : "The feed gave no reason." };
}

function numberOf(text: string): number | null | undefined {
  const trimmed = text.trim().replace(",", ".");
  if (trimmed === "") return null;
  const value = Number(trimmed);
  return Number.isFinite(value) ? value : undefined;
}

/** Limits as somebody typed them; the words say what is wrong. An empty field is no limit; extreme ones that are no longer outside go. */
export function limitsOf(entry: LimitsEntry, lowText: string, highText: string): LimitsValues | string {
  const low = numberOf(lowText);
  const high = numberOf(highText);
  if (low === undefined || high === undefined) return "A limit is a number, or empty for none.";
  if (low !== null && high !== null && low >= high) return "The lower limit must be below the upper one.";
  const floor = low ?? high;
  const ceiling = high ?? low;
  return {
    ...(low === null ? {} : { low }),
    ...(high === null ? {} : { high }),
    ...(entry.extremeLow !== null && (floor === null || entry.extremeLow < floor) ? { extreme_low: entry.extremeLow } : {}),
    ...(entry.extremeHigh !== null && (ceiling === null || entry.extremeHigh > ceiling) ? { extreme_high: entry.extremeHigh } : {}),
    delay_s: entry.delayS,
    hysteresis: entry.hysteresis,
  };
}
