import { describe, expect, it } from "vitest";
import { SampleWindow } from "../samples";
import { columnAt, spans, step, sweepScale, trace } from "../sweep";
import type { Span } from "../sweep";
import { T0 } from "./frames";

const SCALE = sweepScale(600, 1);

function columnsOf(runs: readonly Span[]): number[] {
  return runs.flatMap((run) => Array.from({ length: run.width }, (_, i) => run.column + i));
}

function xsOf(runs: readonly Span[]): number[] {
  return runs.flatMap((run) => Array.from({ length: run.width }, (_, i) => run.x + i));
}

/** A repeatable sequence in [0, 1). */
function lot(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state / 2_147_483_648;
  };
}

describe("sweepScale", () => {
  it("is 25 mm/s: one second is 94.5 CSS pixels, twice that at a ratio of 2", () => {
    expect(columnAt(1000, sweepScale(600, 1))).toBe(94);
    expect(columnAt(10_000, sweepScale(600, 1))).toBe(944);
    expect(columnAt(10_000, sweepScale(1200, 2))).toBe(1889);
  });
});

describe("spans", () => {
  it("cuts where the canvas wraps", () => {
    expect(spans(595, 607, 600)).toEqual([
      { x: 595, width: 5, column: 595 },
      { x: 0, width: 7, column: 600 },
    ]);
    expect(spans(600, 600, 600)).toEqual([]);
  });

  it("never covers a column twice", () => {
    const runs = spans(0, 5000, 600);
    expect(xsOf(runs).sort((a, b) => a - b)).toEqual(Array.from({ length: 600 }, (_, x) => x));
    expect(columnsOf(runs)[0]).toBe(4400);
  });
});

describe("step", () => {
  it("draws each column that passed, and only those, at frames of any length", () => {
    const random = lot(7);
    let nowMs = T0;
    let last = step(null, nowMs, SCALE)?.column ?? 0;
    let drawnTo = last;
    for (let frame = 0; frame < 2000; frame += 1) {
      nowMs += random() * 90;
      const work = step(last, nowMs, SCALE);
      if (work === null) {
        expect(columnAt(nowMs, SCALE)).toBe(last);
        continue;
      }
      const drawn = columnsOf(work.draw);
      expect(drawn[0]).toBe(drawnTo - 1);
      expect(drawn.at(-1)).toBe(work.column - 1);
      expect(drawn).toHaveLength(work.column - drawnTo + 1);
      // All that is drawn was cleared, and the bar ahead is clear.
      expect(columnsOf(work.clear)).toEqual(Array.from({ length: drawn.length + SCALE.eraseColumns }, (_, i) => drawnTo - 1 + i));
      drawnTo = work.column;
      last = work.column;
    }
  });

  it("draws the whole sweep but the bar at first, after a pause, and when time went back", () => {
    const shown = SCALE.width - SCALE.eraseColumns;
    const { column } = step(null, T0, SCALE) ?? { column: 0 };
    for (const work of [step(null, T0, SCALE), step(column, T0 + 60_000, SCALE), step(column, T0 - 60_000, SCALE)]) {
      expect(work?.clear).toEqual([{ x: 0, width: 600, column: 0 }]);
      expect(columnsOf(work?.draw ?? [])).toHaveLength(shown);
      expect(columnsOf(work?.draw ?? []).at(-1)).toBe((work?.column ?? 0) - 1);
    }
    expect(step(column, T0, SCALE)).toBeNull();
  });
});

class Recorder {
  readonly strokes: { x: number; y: number }[][] = [];
  moveTo(x: number, y: number): void {
    this.strokes.push([{ x, y }]);
  }
  lineTo(x: number, y: number): void {
    this.strokes.at(-1)?.push({ x, y });
  }
}

describe("trace", () => {
  const periodMs = 10;
  const samples = new SampleWindow(periodMs);
  const values = Float32Array.from({ length: 100 }, (_, i) => (i === 50 ? Number.NaN : i));
  samples.add({ t0Ms: T0, periodMs, values });
  samples.add({ t0Ms: T0 + 1200, periodMs, values });
  const first = columnAt(T0, SCALE);

  function record(run: Span, offsetMs = 0): Recorder {
    const pen = new Recorder();
    trace(pen, samples, run, SCALE, offsetMs, periodMs, (value) => value);
    return pen;
  }

  it("lifts the pen at a missing sample and where chunks are missing", () => {
    const pen = record({ x: 0, width: 300, column: first - 1 });
    expect(pen.strokes.map((stroke) => [stroke[0]?.y, stroke.at(-1)?.y])).toEqual([
      [0, 49],
      [51, 99],
      [0, 49],
      [51, 99],
    ]);
  });

  it("puts a sample on the column of its time, also after the canvas wrapped", () => {
    const pen = record({ x: 7, width: 40, column: first });
    const at = pen.strokes[0]?.[10];
    expect(at?.x).toBeCloseTo(7 + (T0 + 100) * SCALE.columnsPerMs - first, 6);
  });

  it("reaches over both edges of its run and no further", () => {
    const pen = record({ x: 0, width: 10, column: first + 20 });
    const xs = pen.strokes.flat().map((point) => point.x);
    expect(Math.min(...xs)).toBeLessThan(0);
    expect(Math.max(...xs)).toBeGreaterThan(10);
    expect(xs.length).toBeLessThan(16);
  });

  it("shifts with the device's offset", () => {
    const pen = record({ x: 0, width: 300, column: columnAt(T0 + 5000, SCALE) }, 5000);
    expect(pen.strokes[0]?.[0]?.x).toBeLessThan(1);
  });

  it("draws nothing where there is nothing", () => {
    const points = record({ x: 0, width: 5, column: first + 1000 }).strokes.flat();
    expect(points.filter((point) => point.x >= 0)).toEqual([]);
    expect(points.length).toBeLessThanOrEqual(2);
  });
});
