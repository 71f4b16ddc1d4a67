/**
 * The last seconds of one waveform channel, by the device's own time.
 *
 * Two flat arrays of twice the capacity: samples are appended, and when the end is reached the newest half slides to
 * the front. So the live part is always contiguous (binary search, no wrap) and an append costs O(1) on average. A
 * chunk that comes late is put where its time belongs; one whose time is taken already is refused.
 */
import type { Wave } from "./protocol";

/** The widest sweep kept: a 1,500 px trace at 25 mm/s (94.5 px/s) is 16 s. */
export const SWEEP_MS_MAX = 16_000;
/** 16 s at 2 kHz, four times the 500 Hz of a diagnostic ECG; with its twin 768 kB. A faster channel keeps fewer seconds. */
export const CHANNEL_SAMPLES_MAX = 32_768;

export type Placement =
  /** After all that was there. */
  | "appended"
  /** Before the newest: the columns there have been passed by the sweep. */
  | "inserted"
  /** Overlaps what is there (a chunk seen twice), or no room before the oldest. */
  | "refused";

export class SampleWindow {
  readonly capacity: number;
  private readonly times: Float64Array;
  private readonly values: Float32Array;
  /** Invariant: 0 ≤ start ≤ end ≤ 2 × capacity; times[start..end) ascends strictly. */
  private start = 0;
  private end = 0;

  constructor(periodMs: number) {
    this.capacity = Math.min(CHANNEL_SAMPLES_MAX, Math.max(64, Math.ceil(SWEEP_MS_MAX / periodMs)));
    this.times = new Float64Array(2 * this.capacity);
    this.values = new Float32Array(2 * this.capacity);
  }

  get length(): number {
    return this.end - this.start;
  }

  timeAt(i: number): number {
    return this.times[this.start + i] ?? Number.NaN;
  }

  valueAt(i: number): number {
    return this.values[this.start + i] ?? Number.NaN;
  }

  clear(): void {
    this.start = 0;
    this.end = 0;
  }

  /** Index of the first sample at or after `timeMs`; `length` when all are before. */
  lowerBound(timeMs: number): number {
    let low = this.start;
    let high = this.end;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.times[middle] ?? Infinity) < timeMs) low = middle + 1;
      else high = middle;
    }
    return low - this.start;
  }

  /** Puts a chunk where its time belongs. Of a chunk longer than the capacity the newest samples are kept. */
  add(wave: Wave): Placement {
    const count = Math.min(wave.values.length, this.capacity);
    const skipped = wave.values.length - count;
    const first = wave.t0Ms + skipped * wave.periodMs;
    const last = wave.t0Ms + (wave.values.length - 1) * wave.periodMs;
    const slack = wave.periodMs / 2;
    const at = this.lowerBound(first - slack);
    const isNewest = at === this.length;
    if (!isNewest && this.timeAt(at) < last + slack) return "refused";
    if (!isNewest && this.length + count > this.capacity && at === 0) return "refused";
    this.makeRoom(count);
    // Sliding or dropping the oldest may have moved the place.
    const place = this.start + this.lowerBound(first - slack);
    this.times.copyWithin(place + count, place, this.end);
    this.values.copyWithin(place + count, place, this.end);
    for (let i = 0; i < count; i += 1) {
      this.times[place + i] = first + i * wave.periodMs;
      this.values[place + i] = wave.values[skipped + i] ?? Number.NaN;
    }
    this.end += count;
    return isNewest ? "appended" : "inserted";
  }

  private makeRoom(count: number): void {
    this.start = Math.max(this.start, this.end + count - this.capacity);
    if (this.end + count <= this.times.length) return;
    this.times.copyWithin(0, this.start, this.end);
    this.values.copyWithin(0, this.start, this.end);
    this.end -= this.start;
    this.start = 0;
  }

  /** Smallest and largest value at or after `fromMs`; null where there is none. */
  range(fromMs: number): { low: number; high: number } | null {
    let low = Infinity;
    let high = -Infinity;
    for (let i = this.start + this.lowerBound(fromMs); i < this.end; i += 1) {
      const value = this.values[i] ?? Number.NaN;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return low <= high ? { low, high } : null;
  }
}
