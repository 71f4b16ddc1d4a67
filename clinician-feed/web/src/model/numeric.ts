/**
 * One numeric of one device: its newest value, how old that is, whether it may still be read as the present.
 */
import type { Code } from "./protocol";
import { present, pressurePart } from "./quantity";
import type { Presentation, PressureCode } from "./quantity";
import { Trend } from "./trend";

/** A continuous value older than this is no longer shown as one: "signal lost" must show within 10 s. */
export const LOST_MS = 10_000;
/** A spot value (cuff, scale) that old is greyed: a round of observations is four hours at the slowest. */
export const SPOT_OLD_MS = 4 * 3_600_000;
/** A value that usually comes every T is late after 3 T. */
const LATE_INTERVALS = 3;
/** A sensor's clock this far from the gateway's was never set; it says nothing about the reading's age. */
const CLOCK_UNSET_MS = 24 * 3_600_000;
/** The usual interval is the shortest of the last four: an outage among them doesn't make a lost value look like a rare one. */
const INTERVALS = 4;

/**
 * When something was measured, by the gateway's clock: the sensor's time when that is earlier (it held the reading
 * back), unless its clock was never set.
 */
export function measuredAtMs(sensorMs: number | null, gatewayMs: number): number {
  if (sensorMs === null || sensorMs > gatewayMs || gatewayMs - sensorMs > CLOCK_UNSET_MS) return gatewayMs;
  return sensorMs;
}

/** `fresh`: read it. `old`: greyed, with its age. `lost`: not shown as a value. */
export type Freshness = "fresh" | "old" | "lost";

export class NumericSeries {
  readonly presentation: Presentation;
  readonly pressure: PressureCode | null;
  readonly trend = new Trend();
  /** The newest by time, whatever came last. */
  value = Number.NaN;
  atMs = -Infinity;
  /** What the core has not made durable yet, if it is newer. */
  private foreseen: { readonly atMs: number; readonly value: number } | null = null;
  /** Page's clock at the arrival of the last live reading. */
  private heardMs = -Infinity;
  private readonly intervals: number[] = [];

  constructor(
    readonly key: string,
    readonly device: string,
    readonly code: Code,
  ) {
    this.presentation = present(code);
    this.pressure = pressurePart(code);
  }

  add(atMs: number, value: number, nowMs: number, live: boolean): void {
    this.trend.add(atMs, value);
    if (live) this.heardMs = nowMs;
    if (atMs < this.atMs) return;
    if (Number.isFinite(this.atMs) && live) {
      this.intervals.push(atMs - this.atMs);
      if (this.intervals.length > INTERVALS) this.intervals.shift();
    }
    this.atMs = atMs;
    this.value = value;
  }

  /** Takes what the core has not made durable: it is shown, and counts for nothing else until it comes as a reading. */
  foresee(atMs: number, value: number): void {
    if (atMs > this.atMs) this.foreseen = { atMs, value };
  }

  /** What was foreseen never was. */
  withdraw(): void {
    this.foreseen = null;
  }

  /** The value to show, and whether it is provisional. */
  get shown(): { readonly value: number; readonly provisional: boolean } {
    const { foreseen } = this;
    if (foreseen !== null && foreseen.atMs > this.atMs) return { value: foreseen.value, provisional: true };
    return { value: this.value, provisional: false };
  }

  /** How old the value is, ms, never less than the time since something live was heard of it. */
  ageMs(nowMs: number, feedNowMs: number): number {
    const silent = Number.isFinite(this.heardMs) ? nowMs - this.heardMs : 0;
    return Math.max(0, feedNowMs - this.atMs, silent);
  }

  /** How long a value usually holds until the next; null until two intervals were seen. */
  private usualMs(): number | null {
    return this.intervals.length < 2 ? null : Math.min(...this.intervals);
  }

  freshness(nowMs: number, feedNowMs: number): Freshness {
    const age = this.ageMs(nowMs, feedNowMs);
    const usual = this.usualMs();
    const expected = usual === null ? null : Math.max(LOST_MS, LATE_INTERVALS * usual);
    if (this.presentation.spot) return age <= (expected ?? SPOT_OLD_MS) ? "fresh" : "old";
    if (age <= LOST_MS / 2) return "fresh";
    // What comes every minute is not lost after ten seconds; until then it says its age.
    return age <= (expected ?? LOST_MS) ? "old" : "lost";
  }
}

/** An age as one reads it: `4 s`, `12 min`, `3 h`, `2 d`. */
export function printAge(ageMs: number): string {
  const seconds = Math.floor(ageMs / 1000);
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 6000) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}
