/**
 * When a device's samples are drawn.
 *
 * Chunks of 100–250 ms come in one piece; a trace that is to run smoothly must be held back by a chunk and a little.
 * A device's clock may also be wrong by any amount. Both are one number: the offset from the device's time to the
 * page's, so that sample `t` is drawn at `t + offset`. It is learnt from the chunks of the last seconds, follows a
 * slower network at once and a faster one soon, and is shared by all channels of a device, so that they stay aligned.
 */

/** The slowest chunk of the last 5 to 10 s, some twenty, is the jitter; a stall is forgotten as soon. */
const SLOWEST_MS = 5_000;
/** The fastest is remembered for 20 to 40 s: longer than a short outage, whose backlog is then known as such. */
const FASTEST_MS = 20_000;
/** Beyond the slowest chunk seen: two frames at 30/s. */
const MARGIN_MS = 60;
/** A chunk later than this after the fastest is an outage's, not the network's jitter; the trace is not held back for it. */
const LATE_MS_MAX = 600;
/** The offset shrinks only by so much at once: each change moves the whole trace. */
const SHRINK_MS_MIN = 200;

/** A punctual chunk is drawn at most this long after it came (slowest, margin, and as much again); above it the clock has leapt. */
const LEAD_MS_MAX = 2 * LATE_MS_MAX;
/**
 * A clock that leaps forward twice within this time was not set: it runs faster than time, as a record's does that is
 * replayed faster. Its trace is then shown in excerpts of about a sweep.
 */
export const EXCERPT_MS = 10_000;

/** The largest value of the last one to two spans. */
class RecentMax {
  private older = -Infinity;
  private newer = -Infinity;
  private newerSinceMs = -Infinity;

  constructor(private readonly spanMs: number) {}

  observe(nowMs: number, value: number): void {
    this.turn(nowMs);
    this.newer = Math.max(this.newer, value);
  }

  /** −∞ when nothing was seen for two spans. */
  value(nowMs: number): number {
    this.turn(nowMs);
    return Math.max(this.older, this.newer);
  }

  clear(): void {
    this.older = -Infinity;
    this.newer = -Infinity;
  }

  private turn(nowMs: number): void {
    const passedMs = nowMs - this.newerSinceMs;
    if (passedMs < this.spanMs) return;
    this.older = passedMs < 2 * this.spanMs ? this.newer : -Infinity;
    this.newer = -Infinity;
    this.newerSinceMs = nowMs;
  }
}

/** `kept`: nothing changed. `moved`: the trace shifts. `anchored`: the device's time has a new meaning. `ahead`: beyond this excerpt, not to be drawn. */
export type Observation = "kept" | "moved" | "anchored" | "ahead";

export class Playout {
  /** Transit is arrival minus first sample, ms; its smallest is the largest of its negative. */
  private readonly fastest = new RecentMax(FASTEST_MS);
  private readonly slowest = new RecentMax(SLOWEST_MS);
  private offset: number | null = null;
  private heldBack = 0;
  /** When the device's clock last leapt forward, and when it did so again too soon. */
  private leaptMs = -Infinity;
  private aheadMs = -Infinity;

  /** Device time to page time, ms; null before the first punctual chunk. */
  get offsetMs(): number | null {
    return this.offset;
  }

  /** How long after its arrival the first sample of the fastest chunk is drawn: what traces lag behind the numerics. */
  get heldBackMs(): number {
    return this.heldBack;
  }

  /** Whether the device's clock has been running faster than time. */
  runsAhead(nowMs: number): boolean {
    return nowMs - this.aheadMs < EXCERPT_MS;
  }

  /**
   * Takes the arrival of a chunk that the gateway received just now. After `anchored` (first chunk, or the device's
   * clock was set) what was drawn before belongs to another time.
   */
  observe(nowMs: number, firstSampleMs: number): Observation {
    const transit = nowMs - firstSampleMs;
    const fastest = -this.fastest.value(nowMs);
    const isKnown = Number.isFinite(fastest);
    if (isKnown && transit > fastest + LATE_MS_MAX) return "kept";
    const lead = this.offset === null ? 0 : this.offset - transit;
    const isSetForward = (isKnown && transit < fastest - LATE_MS_MAX) || lead > LEAD_MS_MAX;
    if (isSetForward) {
      if (nowMs - this.leaptMs < EXCERPT_MS) {
        this.aheadMs = nowMs;
        return lead > EXCERPT_MS ? "ahead" : "kept";
      }
      this.leaptMs = nowMs;
      this.fastest.clear();
      this.slowest.clear();
    }
    this.fastest.observe(nowMs, -transit);
    this.slowest.observe(nowMs, transit);
    const observation = this.follow(this.slowest.value(nowMs) + MARGIN_MS, isSetForward || !isKnown);
    this.heldBack = (this.offset ?? 0) + this.fastest.value(nowMs);
    return observation;
  }

  private follow(wanted: number, anew: boolean): Observation {
    const { offset } = this;
    if (offset === null || (anew && Math.abs(wanted - offset) > LATE_MS_MAX)) {
      this.offset = wanted;
      return "anchored";
    }
    if (wanted <= offset && wanted >= offset - SHRINK_MS_MIN) return "kept";
    this.offset = wanted;
    return "moved";
  }
}
