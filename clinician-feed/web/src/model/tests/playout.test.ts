import { describe, expect, it } from "vitest";
import { EXCERPT_MS, Playout } from "../playout";
import { T0 } from "./frames";

const CHUNK_MS = 250;

/** Chunks of 250 ms, each arriving `delay(k)` after its end; `skewMs` is how far the device's clock is behind. */
function play(playout: Playout, from: number, count: number, delay: (k: number) => number, skewMs = 0): string[] {
  const seen: string[] = [];
  for (let k = from; k < from + count; k += 1) {
    const firstMs = T0 + k * CHUNK_MS;
    seen.push(playout.observe(firstMs + CHUNK_MS + delay(k), firstMs - skewMs));
  }
  return seen;
}

describe("Playout", () => {
  it("holds back a chunk and the jitter, so that samples are there before their column", () => {
    const playout = new Playout();
    play(playout, 0, 40, (k) => 20 + (k % 5) * 10);
    const offset = playout.offsetMs ?? 0;
    // The slowest chunk: its first sample is drawn after it came.
    expect(offset).toBeGreaterThan(CHUNK_MS + 60);
    expect(offset).toBeLessThan(CHUNK_MS + 60 + 100);
  });

  it("keeps its offset while the network is steady", () => {
    const playout = new Playout();
    expect(play(playout, 0, 1, () => 20)).toEqual(["anchored"]);
    expect(new Set(play(playout, 1, 400, () => 20))).toEqual(new Set(["kept"]));
  });

  it("does not care what the device's clock says", () => {
    const playout = new Playout();
    play(playout, 0, 40, () => 20, 86_400_000);
    expect(playout.heldBackMs).toBeLessThan(100);
  });

  it("follows a slower network at once and a faster one within a quarter of a minute", () => {
    const playout = new Playout();
    play(playout, 0, 40, () => 20);
    expect(play(playout, 40, 1, () => 500)).toEqual(["moved"]);
    expect(playout.offsetMs).toBeGreaterThan(CHUNK_MS + 500);
    play(playout, 41, 60, () => 20);
    expect(playout.offsetMs).toBeLessThan(CHUNK_MS + 120);
  });

  it("is not held back by an outage's chunks", () => {
    const playout = new Playout();
    play(playout, 0, 40, () => 20);
    const before = playout.offsetMs;
    expect(new Set(play(playout, 40, 20, () => 4_000))).toEqual(new Set(["kept"]));
    expect(playout.offsetMs).toBe(before);
  });

  it("anchors anew when the device's clock is set forward, and within forty seconds when it is set back", () => {
    const forward = new Playout();
    play(forward, 0, 40, () => 20);
    expect(play(forward, 40, 1, () => 20, -3_600_000)).toEqual(["anchored"]);
    expect(forward.heldBackMs).toBeLessThan(100);
    const back = new Playout();
    play(back, 0, 40, () => 20);
    const seen = play(back, 40, 164, () => 20, 3_600_000);
    expect(seen.filter((observation) => observation === "anchored")).toHaveLength(1);
    expect(back.heldBackMs).toBeLessThan(100);
  });

  it("shows a device whose time runs fast in excerpts of at most ten seconds", () => {
    const playout = new Playout();
    const SPEED = 60;
    let drawnTo = -Infinity;
    const anchors: number[] = [];
    for (let arrivedMs = T0; arrivedMs < T0 + 60_000; arrivedMs += CHUNK_MS / SPEED) {
      const firstMs = T0 + (arrivedMs - T0) * SPEED;
      const observation = playout.observe(arrivedMs, firstMs);
      if (observation === "anchored") anchors.push(arrivedMs - T0);
      if (observation !== "ahead") drawnTo = firstMs + (playout.offsetMs ?? Number.NaN) - arrivedMs;
      // What the window holds is never pushed out by what comes after it.
      expect(drawnTo).toBeLessThanOrEqual(EXCERPT_MS);
    }
    // At first, when that was found out, then one each ten seconds.
    expect(anchors).toHaveLength(7);
    expect(playout.runsAhead(T0 + 60_000)).toBe(true);
    expect(playout.runsAhead(T0 + 60_000 + EXCERPT_MS)).toBe(false);
  });

  it("does not take a clock that was set once for one that runs fast", () => {
    const playout = new Playout();
    play(playout, 0, 8, () => 20);
    play(playout, 8, 40, () => 20, -3_600_000);
    expect(playout.runsAhead(T0 + 48 * CHUNK_MS)).toBe(false);
  });
});
