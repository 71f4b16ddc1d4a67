/** The trends strip: a row for each large numeric over the last minutes, with its range, gaps left open. */
import { useEffect, useRef } from "preact/hooks";
import { trendRows } from "../model/cells";
import type { NumericSeries } from "../model/numeric";
import { TREND_BIN_MS, trendSpanMs } from "../model/trend";
import type { Bed, Ward } from "../model/ward";
import { COLOURS, fit } from "./canvas";
import type { Fitted } from "./canvas";
import { onFrame } from "./frames";

/** Heart, saturation, pressure, respiration, temperature. */
export const TREND_ROWS_MAX = 5;
/** Below this a row shows no shape; those at the bottom are left out. */
const ROW_CSS_PX_MIN = 17;
const AXIS_CSS_PX = 13;
/** Trends move by a bin of 5 s; once a second is ample. */
const PAINT_MS = 1_000;
const LABEL_CSS_PX = 50;
/** Half the side of a spot value's mark. */
const DOT_CSS_PX = 1.5;
const SCALE_CSS_PX = 38;

function rowRange(series: NumericSeries, first: number, last: number): readonly [number, number] {
  let [low, high] = series.presentation.trend ?? [Infinity, -Infinity];
  for (let bin = first; bin <= last; bin += 1) {
    const value = series.trend.at(bin);
    if (value < low) low = Math.floor(value);
    if (value > high) high = Math.ceil(value);
  }
  return low < high ? [low, high] : [low - 1, low + 1];
}

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

function paintRow(context: CanvasRenderingContext2D, series: NumericSeries, box: Box, first: number, last: number, ratio: number): void {
  const [low, high] = rowRange(series, first, last);
  const colour = COLOURS[series.presentation.kind];
  context.fillStyle = colour;
  context.font = `600 ${11 * ratio}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.fillText(series.presentation.label, 0, box.y + box.height / 2);
  context.fillStyle = "#8b97a8";
  context.font = `${9 * ratio}px system-ui, sans-serif`;
  context.textAlign = "right";
  context.fillText(`${low}–${high}`, box.x - 6 * ratio, box.y + box.height / 2);
  context.fillStyle = "#0d141d";
  context.fillRect(box.x, box.y, box.width, box.height);
  context.fillStyle = colour;
  context.strokeStyle = colour;
  context.lineWidth = 1.4 * ratio;
  context.beginPath();
  const columns = Math.max(1, last - first);
  let down = false;
  for (let bin = first; bin <= last; bin += 1) {
    const value = series.trend.at(bin);
    if (Number.isNaN(value)) {
      down = false;
      continue;
    }
    const x = box.x + ((bin - first) / columns) * box.width;
    const y = box.y + box.height * (1 - 0.08 - (0.84 * (value - low)) / (high - low));
    if (down) context.lineTo(x, y);
    else context.moveTo(x, y);
    // A spot value has no neighbours and would be no line.
    if (!down && Number.isNaN(series.trend.at(bin + 1))) context.fillRect(x - DOT_CSS_PX * ratio, y - DOT_CSS_PX * ratio, 2 * DOT_CSS_PX * ratio, 2 * DOT_CSS_PX * ratio);
    down = true;
  }
  context.stroke();
}

function paintStrip(target: Fitted, bed: Bed, feedNowMs: number): void {
  const { context, canvas, ratio } = target;
  context.clearRect(0, 0, canvas.width, canvas.height);
  const axis = AXIS_CSS_PX * ratio;
  const room = Math.floor((canvas.height - axis) / (ROW_CSS_PX_MIN * ratio));
  const rows = trendRows(bed, Math.min(TREND_ROWS_MAX, Math.max(1, room)));
  if (rows.length === 0) return;
  const oldest = Math.min(...rows.map((series) => series.trend.oldestMs(feedNowMs) ?? feedNowMs));
  const spanMs = trendSpanMs(oldest, feedNowMs);
  const last = Math.floor(feedNowMs / TREND_BIN_MS);
  const first = last - spanMs / TREND_BIN_MS;
  const x = (LABEL_CSS_PX + SCALE_CSS_PX) * ratio;
  const height = (canvas.height - axis) / rows.length;
  rows.forEach((series, i) => {
    const box = { x, y: i * height + ratio, width: canvas.width - x - 2 * ratio, height: height - 2 * ratio };
    paintRow(context, series, box, first, last, ratio);
  });
  context.fillStyle = "#8b97a8";
  context.font = `${10 * ratio}px system-ui, sans-serif`;
  context.textBaseline = "bottom";
  context.textAlign = "left";
  context.fillText(`−${spanMs / 60_000} min`, x, canvas.height);
  context.textAlign = "right";
  context.fillText("now", canvas.width - 2 * ratio, canvas.height);
}

/** `rows` is how many there are to show: they set how much of the tile the strip asks for. */
export function Trends({ bed, ward, rows }: { readonly bed: Bed; readonly ward: Ward; readonly rows: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (canvas.current === null) return undefined;
    let target: Fitted | null = null;
    let paintedMs = -Infinity;
    const unfit = fit(canvas.current, (fitted) => {
      target = fitted;
      paintedMs = -Infinity;
    });
    const stop = onFrame((nowMs) => {
      if (target === null || nowMs - paintedMs < PAINT_MS) return;
      paintedMs = nowMs;
      paintStrip(target, bed, ward.feedNowMs(nowMs));
    });
    return () => {
      stop();
      unfit();
    };
  }, [bed, ward]);
  return <canvas class={`trends trends-${rows}`} ref={canvas} role="img" aria-label="Trends of the last minutes" />;
}
