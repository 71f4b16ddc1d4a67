/**
 * Which tones an alarm has (IEC 60601-1-8, auditory signals): high is ten pulses in two bursts of five, medium is three, low is two. What sounds is
 * the most urgent alarm that nobody acknowledged, of all beds whose tones are not paused. Pure.
 */
import type { Priority } from "./protocol";
import type { Bed } from "./ward";

export interface Pulse {
  /** After the burst's beginning, in seconds. */
  readonly atS: number;
  readonly lengthS: number;
}

export interface Burst {
  readonly pulses: readonly Pulse[];
  /** From one burst's beginning to the next, in seconds. */
  readonly everyS: number;
  readonly hertz: number;
}

/** Eight harmonics, so that at least four lie between 300 and 4,000 Hz and the ear finds where it comes from. */
export const HARMONICS = 8;

function evenly(count: number, spacingS: number, lengthS: number, fromS = 0): Pulse[] {
  return Array.from({ length: count }, (_, i) => ({ atS: fromS + i * spacingS, lengthS }));
}

function fivePulses(fromS: number): Pulse[] {
  return [...evenly(3, 0.25, 0.15, fromS), ...evenly(2, 0.25, 0.15, fromS + 1)];
}

export const BURSTS: Readonly<Record<Priority, Burst>> = {
  high: { pulses: [...fivePulses(0), ...fivePulses(2)], everyS: 10, hertz: 520 },
  medium: { pulses: evenly(3, 0.4, 0.2), everyS: 15, hertz: 440 },
  low: { pulses: evenly(2, 0.4, 0.2), everyS: 30, hertz: 330 },
};

const RANK: Readonly<Record<Priority, number>> = { high: 3, medium: 2, low: 1 };

/** What sounds now. */
export function sounding(beds: Iterable<Bed>, feedNowMs: number): Priority | null {
  let loudest: Priority | null = null;
  for (const { standing } of beds) {
    if (standing === null || (standing.pausedUntilMs !== null && standing.pausedUntilMs > feedNowMs)) continue;
    for (const alarm of standing.alarms) {
      if (alarm.state === "acknowledged") continue;
      if (loudest === null || RANK[alarm.priority] > RANK[loudest]) loudest = alarm.priority;
    }
  }
  return loudest;
}

/** When the next burst is due: at once where a more urgent alarm began, else when the one before has had its time. */
export function isDue(sounds: Priority | null, before: { readonly priority: Priority; readonly atMs: number } | null, nowMs: number): boolean {
  if (sounds === null) return false;
  if (before === null || RANK[sounds] > RANK[before.priority]) return true;
  return nowMs - before.atMs >= BURSTS[sounds].everyS * 1000;
}
