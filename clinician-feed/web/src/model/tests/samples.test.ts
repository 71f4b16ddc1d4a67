import { describe, expect, it } from "vitest";
import type { Wave } from "../protocol";
import { CHANNEL_SAMPLES_MAX, SampleWindow } from "../samples";

const PERIOD_MS = 100;

/** A chunk whose values are its samples' times. */
function chunk(t0Ms: number, count: number): Wave {
  return { t0Ms, periodMs: PERIOD_MS, values: Float32Array.from({ length: count }, (_, i) => t0Ms + i * PERIOD_MS) };
}

function times(samples: SampleWindow): number[] {
  return Array.from({ length: samples.length }, (_, i) => samples.timeAt(i));
}

function expectConsistent(samples: SampleWindow): void {
  const all = times(samples);
  expect(samples.length).toBeLessThanOrEqual(samples.capacity);
  for (let i = 0; i < all.length; i += 1) {
    expect(samples.valueAt(i)).toBe(all[i]);
    if (i > 0) expect(all[i]).toBeGreaterThan(all[i - 1] ?? Infinity);
  }
}

describe("SampleWindow", () => {
  it("keeps the newest capacity of samples in order", () => {
    const samples = new SampleWindow(PERIOD_MS);
    for (let k = 0; k < 200; k += 1) expect(samples.add(chunk(k * 700, 7))).toBe("appended");
    expectConsistent(samples);
    expect(samples.length).toBe(samples.capacity);
    expect(samples.timeAt(samples.length - 1)).toBe(199 * 700 + 600);
  });

  it("puts a late chunk where its time belongs, once", () => {
    const samples = new SampleWindow(PERIOD_MS);
    samples.add(chunk(0, 5));
    samples.add(chunk(1000, 5));
    expect(samples.add(chunk(500, 5))).toBe("inserted");
    expect(samples.add(chunk(500, 5))).toBe("refused");
    expect(samples.add(chunk(1200, 9))).toBe("refused");
    expect(times(samples)).toEqual(Array.from({ length: 15 }, (_, i) => i * 100));
    expectConsistent(samples);
  });

  it("accepts chunks in any order and shows the same", () => {
    const order = [4, 0, 9, 2, 7, 1, 8, 3, 6, 5];
    const samples = new SampleWindow(PERIOD_MS);
    for (const k of order) expect(samples.add(chunk(k * 500, 5))).not.toBe("refused");
    expect(times(samples)).toEqual(Array.from({ length: 50 }, (_, i) => i * 100));
  });

  it("has no room before its oldest when it is full, and makes room in its middle", () => {
    const samples = new SampleWindow(PERIOD_MS);
    const { capacity } = samples;
    samples.add(chunk(100_000, capacity - 5));
    samples.add(chunk(100_000 + (capacity + 5) * 100, 5));
    expect(samples.add(chunk(50_000, 5))).toBe("refused");
    expect(samples.add(chunk(100_000 + (capacity - 2) * 100, 5))).toBe("inserted");
    expect(samples.length).toBe(capacity);
    expectConsistent(samples);
  });

  it("keeps the end of a chunk that is larger than itself", () => {
    const samples = new SampleWindow(PERIOD_MS);
    samples.add(chunk(0, samples.capacity + 30));
    expect(samples.length).toBe(samples.capacity);
    expect(samples.timeAt(0)).toBe(3000);
  });

  it("bounds its memory whatever the rate", () => {
    expect(new SampleWindow(0.0001).capacity).toBe(CHANNEL_SAMPLES_MAX);
    expect(new SampleWindow(1e9).capacity).toBe(64);
  });

  it("finds the range and ignores missing samples", () => {
    const samples = new SampleWindow(PERIOD_MS);
    expect(samples.range(0)).toBeNull();
    samples.add({ t0Ms: 0, periodMs: PERIOD_MS, values: Float32Array.of(-9, 1, Number.NaN, 5, 2) });
    expect(samples.range(100)).toEqual({ low: 1, high: 5 });
    expect(samples.range(200)).toEqual({ low: 2, high: 5 });
    expect(samples.range(900)).toBeNull();
  });
});
