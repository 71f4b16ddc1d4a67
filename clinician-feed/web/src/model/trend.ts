/**
 * The last hour of one numeric in bins of fixed time. A bin belongs to a time, not to an order of arrival, so backlog
 * finds its place whenever it comes, and what never came stays a gap.
 */

export const TREND_BIN_MS = 5_000;
/** 720 bins of 5 s are one hour: a shift's question ("since when?") for 6 kB a numeric. */
export const TREND_BINS = 720;

export class Trend {
  private readonly values = new Float32Array(TREND_BINS).fill(Number.NaN);
  /** Number of the bin that each slot holds, counted from the epoch. */
  private readonly bins = new Float64Array(TREND_BINS).fill(-1);
  /** Time of the reading in each slot: the latest of a bin wins. */
  private readonly times = new Float64Array(TREND_BINS);

  /** Returns false for a reading older than what its slot holds by now. */
  add(timeMs: number, value: number): boolean {
    const bin = Math.floor(timeMs / TREND_BIN_MS);
    const slot = ((bin % TREND_BINS) + TREND_BINS) % TREND_BINS;
    const held = this.bins[slot] ?? -1;
    if (held > bin || (held === bin && (this.times[slot] ?? 0) > timeMs)) return false;
    this.bins[slot] = bin;
    this.times[slot] = timeMs;
    this.values[slot] = value;
    return true;
  }

  /** Value of a bin, NaN where there is none. */
  at(bin: number): number {
    const slot = ((bin % TREND_BINS) + TREND_BINS) % TREND_BINS;
    return this.bins[slot] === bin ? (this.values[slot] ?? Number.NaN) : Number.NaN;
  }

  /** Time of the oldest value within the hour before `nowMs`, null for none. */
  oldestMs(nowMs: number): number | null {
    const last = Math.floor(nowMs / TREND_BIN_MS);
    for (let bin = last - TREND_BINS + 1; bin <= last; bin += 1) {
      if (!Number.isNaN(this.at(bin))) return bin * TREND_BIN_MS;
    }
    return null;
  }
}

/** Shortest of these that shows all there is, so that a new page's trend isn't a dot at the edge. */
const TREND_SPANS_MS = [5, 15, 30, 60].map((minutes) => minutes * 60_000);

export function trendSpanMs(oldestMs: number | null, nowMs: number): number {
  const need = oldestMs === null ? 0 : nowMs - oldestMs;
  return TREND_SPANS_MS.find((span) => span >= need) ?? TREND_BINS * TREND_BIN_MS;
}
