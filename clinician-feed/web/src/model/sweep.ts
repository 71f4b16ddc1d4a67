/**
 * Where a sweep draws. Columns are device pixels, numbered without end from the Unix epoch; a canvas `width` wide shows
 * column `c` at `c mod width`, and the bar that erases runs ahead of the newest. Only columns that time has passed are drawn, each
 * once.
 *
 *      newest ▼  bar
 *   ──╮╱╲──────░░░░░░──╮╱╲────    one sweep = width / columnsPerMs
 */
import type { SampleWindow } from "./samples";

/** Paper speed of monitors and recorders. */
export const SWEEP_MM_PER_S = 25;
/** CSS defines 96 px to the inch; how many real millimetres that is, only the screen's maker knows. */
export const CSS_PX_PER_MM = 96 / 25.4;
/** Wide enough to be seen as the seam, 3 mm. */
const ERASE_CSS_PX = 12;
/** A step of time between two samples of more than this many periods is a gap. */
const GAP_PERIODS = 1.5;

export interface SweepScale {
  /** Canvas width in device pixels. */
  readonly width: number;
  /** Device pixels per ms. */
  readonly columnsPerMs: number;
  readonly eraseColumns: number;
}

export function sweepScale(width: number, pixelRatio: number): SweepScale {
  return {
    width: Math.max(1, Math.floor(width)),
    columnsPerMs: (SWEEP_MM_PER_S * CSS_PX_PER_MM * pixelRatio) / 1000,
    eraseColumns: Math.min(Math.round(ERASE_CSS_PX * pixelRatio), Math.floor(width / 4)),
  };
}

/** The column that ends at `timeMs`: all columns below it are complete. */
export function columnAt(timeMs: number, scale: SweepScale): number {
  return Math.floor(timeMs * scale.columnsPerMs);
}

/** A run of columns on the canvas: `x` to `x + width`, of which the first is column `column`. */
export interface Span {
  readonly x: number;
  readonly width: number;
  readonly column: number;
}

/** Columns `first` (included) to `end` (not), cut where the canvas wraps: at most two runs, never more than a canvas. */
export function spans(first: number, end: number, width: number): Span[] {
  const start = Math.max(first, end - width);
  const runs: Span[] = [];
  for (let column = start; column < end; ) {
    const x = ((column % width) + width) % width;
    const run = Math.min(end - column, width - x);
    runs.push({ x, width: run, column });
    column += run;
  }
  return runs;
}

/** What one frame draws: columns to clear and, of these, columns to draw. */
export interface Step {
  readonly clear: readonly Span[];
  readonly draw: readonly Span[];
  /** To be handed to the next step. */
  readonly column: number;
}

/**
 * The step from the frame that ended at column `last` to `nowMs`. `last` null (first frame, new size, late samples, new
 * gain) draws the whole sweep. One column is drawn again, so that a line's soft edge has no seam. Null: nothing to do.
 */
export function step(last: number | null, nowMs: number, scale: SweepScale): Step | null {
  const column = columnAt(nowMs, scale);
  const shown = scale.width - scale.eraseColumns;
  if (last === null || column - last >= shown || column < last) {
    return {
      clear: [{ x: 0, width: scale.width, column: 0 }],
      draw: spans(column - shown, column, scale.width),
      column,
    };
  }
  if (column === last) return null;
  return {
    clear: spans(last - 1, column + scale.eraseColumns, scale.width),
    draw: spans(last - 1, column, scale.width),
    column,
  };
}

/** Receives a trace as a pen would. */
export interface Pen {
  moveTo(x: number, y: number): void;
  lineTo(x: number, y: number): void;
}

/**
 * Moves the pen over the samples of one run, with one sample more on each side so that lines reach its edges. Missing
 * samples and steps of time lift the pen. Returns the number of points drawn.
 */
export function trace(
  pen: Pen,
  samples: SampleWindow,
  run: Span,
  scale: SweepScale,
  offsetMs: number,
  periodMs: number,
  y: (value: number) => number,
): number {
  const fromMs = run.column / scale.columnsPerMs - offsetMs;
  const toMs = (run.column + run.width) / scale.columnsPerMs - offsetMs;
  let lastMs = -Infinity;
  let points = 0;
  for (let i = Math.max(0, samples.lowerBound(fromMs) - 2); i < samples.length; i += 1) {
    const timeMs = samples.timeAt(i);
    const value = samples.valueAt(i);
    if (Number.isNaN(value)) {
      lastMs = -Infinity;
    } else {
      const x = run.x + (timeMs + offsetMs) * scale.columnsPerMs - run.column;
      if (timeMs - lastMs > GAP_PERIODS * periodMs) pen.moveTo(x, y(value));
      else pen.lineTo(x, y(value));
      lastMs = timeMs;
      points += 1;
    }
    if (timeMs > toMs) break;
  }
  return points;
}
