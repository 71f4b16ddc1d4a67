/**
 * When a device's samples are drawn.
 *
 * Chunks of 100–250 ms come in one piece; a trace that is to run smoothly must be held back by a chunk and a little.
 * A device's clock may also be wrong by any amount. Both are one number: the offset from the device's time to the
 * page's, so that sample `t` is drawn at `t + offset`. It is learnt from the chunks of the last half minute, follows a
 * slower network at once and a faster one lazily, and is shared by all channels of a device, so that they stay aligned.
 */

/** Extremes are kept for one to two buckets: long enough to see the jitter, short enough to forget a stall or a clock step. */
const BUCKET_MS = 15_000;
/** Beyond the slowest chunk seen: two frames at 30/s. */
const MARGIN_MS = 60;
/** A chunk later than this after the fastest is an outage's, not the network's jitter; the trace is not held back for it. */
const LATE_MS_MAX = 1_000;
/** The offset shrinks only by so much at once: each change moves the whole trace. */
const SHRINK_MS_MIN = 200;

interface Bucket {
  startMs: number;
  /** Shortest and longest transit (arrival − first sample) of punctual chunks, ms. */
  fastest: number;
  slowest: number;
}

export type Observation = "kept" | "moved" | "anchored";

export class Playout {
  private older: Bucket | null = null;
  private newer: Bucket | null = null;
  private offset: number | null = null;

  /** Device time to page time, ms; null before the first punctual chunk. */
  get offsetMs(): number | null {
    return this.offset;
  }

  /** How long after its arrival the slowest part of a punctual chunk is drawn; what the trace lags behind the numerics. */
  get heldBackMs(): number {
    const fastest = this.fastest();
    return this.offset === null || fastest === null ? 0 : this.offset - fastest;
  }

  /**
   * Takes the arrival of a chunk that the gateway received just now. Returns `anchored` when the device's time has a
   * new meaning (first chunk, or its clock was set back): what was drawn before belongs to another time.
   */
  observe(nowMs: number, firstSampleMs: number): Observation {
    this.expire(nowMs);
    const transit = nowMs - firstSampleMs;
    const fastest = this.fastest();
    if (fastest !== null && transit > fastest + LATE_MS_MAX) return "kept";
    if (fastest === null || transit < fastest - LATE_MS_MAX) return this.anchor(nowMs, transit);
    if (this.newer === null || nowMs - this.newer.startMs >= BUCKET_MS) {
      this.older = this.newer;
      this.newer = { startMs: nowMs, fastest: transit, slowest: transit };
    } else {
      this.newer.fastest = Math.min(this.newer.fastest, transit);
      this.newer.slowest = Math.max(this.newer.slowest, transit);
    }
    const wanted = this.wanted();
    if (this.offset === null || wanted > this.offset || wanted < this.offset - SHRINK_MS_MIN) {
      this.offset = wanted;
      return "moved";
    }
    return "kept";
  }

  /** Starts anew: nothing is known of the last half minute, or the clock was set forward. */
  private anchor(nowMs: number, transit: number): Observation {
    this.older = null;
    this.newer = { startMs: nowMs, fastest: transit, slowest: transit };
    const wanted = this.wanted();
    if (this.offset !== null && Math.abs(wanted - this.offset) <= LATE_MS_MAX) return "kept";
    this.offset = wanted;
    return "anchored";
  }

  private expire(nowMs: number): void {
    if (this.older !== null && nowMs - this.older.startMs >= 2 * BUCKET_MS) this.older = null;
    if (this.newer !== null && nowMs - this.newer.startMs >= 2 * BUCKET_MS) this.newer = null;
  }

  private fastest(): number | null {
    if (this.newer === null) return this.older?.fastest ?? null;
    return Math.min(this.newer.fastest, this.older?.fastest ?? Infinity);
  }

  private wanted(): number {
    return Math.max(this.newer?.slowest ?? -Infinity, this.older?.slowest ?? -Infinity) + MARGIN_MS;
  }
}
