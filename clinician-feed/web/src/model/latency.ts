/** The feed's clock as seen from here, and how long readings take to the page. */

/** The middle of the last so many readings: a few seconds of one bed, and one slow reading can't move it. */
export const DELAYS_MAX = 101;
/** Clocks drift by tens of ppm: 5 to 10 minutes cost at most some ms. */
const OFFSET_BUCKET_MS = 300_000;

/**
 * Feed clock minus page clock, ms. Every message that carries the feed's time bounds it from below (it took some time
 * to come), so the largest of the last minutes is nearest. What the fastest message took is the error; it makes delays
 * look shorter by that much, a millisecond in a hospital's network.
 */
export class ClockOffset {
  private older = -Infinity;
  private newer = -Infinity;
  private newerSinceMs = -Infinity;

  observe(nowMs: number, feedMs: number): void {
    if (nowMs - this.newerSinceMs >= OFFSET_BUCKET_MS) {
      this.older = this.newer;
      this.newer = -Infinity;
      this.newerSinceMs = nowMs;
    }
    this.newer = Math.max(this.newer, feedMs - nowMs);
  }

  get offsetMs(): number {
    const offset = Math.max(this.older, this.newer);
    return Number.isFinite(offset) ? offset : 0;
  }
}

/** Median of the last {@link DELAYS_MAX} delays. */
export class Delays {
  private readonly ring = new Float64Array(DELAYS_MAX);
  private count = 0;

  add(delayMs: number): void {
    this.ring[this.count % DELAYS_MAX] = delayMs;
    this.count += 1;
  }

  clear(): void {
    this.count = 0;
  }

  /** ms; null before the first. */
  median(): number | null {
    const length = Math.min(this.count, DELAYS_MAX);
    if (length === 0) return null;
    const sorted = this.ring.slice(0, length).sort();
    const upper = sorted[length >> 1] ?? 0;
    return length % 2 === 1 ? upper : (upper + (sorted[(length >> 1) - 1] ?? 0)) / 2;
  }
}
