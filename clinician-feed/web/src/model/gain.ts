/**
 * Height of a trace. An ECG is drawn at one of a monitor's fixed gains with its 1 mV mark; other signals fill the lane,
 * between round numbers where they have a unit. A gain stays as long as the trace fits and is not tiny, so that amplitudes can be compared.
 */
import { printUnit } from "./quantity";
import type { Kind } from "./quantity";
import { CSS_PX_PER_MM } from "./sweep";

/** Monitors' gains, mm per mV. 10 is the standard and the largest: low voltage must look low. The others are for giants and small lanes. */
const ECG_MM_PER_MV = [10, 5, 2.5, 1.25, 0.625] as const;
/** Part of the lane that the trace may fill. */
const FILL = 0.92;
/** A trace lower than this part of what the next larger gain would fill is drawn larger. */
const GROW_BELOW = 0.6;
/** A filling trace that has become lower than this part of the lane is scaled anew. */
const SHRUNK_BELOW = 0.45;

export interface Gain {
  /** Value at the middle of the lane. */
  readonly centre: number;
  /** CSS pixels per unit. */
  readonly pxPerUnit: number;
  /** The mark at the lane's edge, from `low` to `high` in the signal's unit; null for a signal without one. */
  readonly mark: Range | null;
  /** What is written there: `10 mm/mV` for an ECG, null otherwise. */
  readonly label: string | null;
}

export interface Range {
  readonly low: number;
  readonly high: number;
}

function fits(gain: Gain, range: Range, heightPx: number): boolean {
  const half = heightPx / 2 / gain.pxPerUnit;
  return range.high <= gain.centre + half && range.low >= gain.centre - half;
}

function ecgGain(range: Range, heightPx: number, current: Gain | null): Gain {
  const span = Math.max(range.high - range.low, 1e-6);
  const mm = ECG_MM_PER_MV.find((step) => step * CSS_PX_PER_MM * span <= heightPx * FILL) ?? 0.625;
  const pxPerUnit = mm * CSS_PX_PER_MM;
  if (current !== null && fits(current, range, heightPx)) {
    if (current.pxPerUnit >= pxPerUnit || span * pxPerUnit > heightPx * GROW_BELOW) return current;
  }
  const centre = (range.high + range.low) / 2;
  return { centre, pxPerUnit, mark: { low: centre - 0.5, high: centre + 0.5 }, label: `${mm} mm/mV` };
}

/** The round step (1, 2 or 5 times a power of ten) that is at least `raw`. */
function roundStep(raw: number): number {
  const power = 10 ** Math.floor(Math.log10(raw));
  const factor = [1, 2, 5, 10].find((f) => f * power >= raw * 0.999) ?? 10;
  return factor * power;
}

function fillGain(range: Range, heightPx: number, current: Gain | null, hasUnit: boolean): Gain {
  const span = range.high - range.low;
  if (current !== null && fits(current, range, heightPx) && span * current.pxPerUnit > heightPx * SHRUNK_BELOW) return current;
  const flat = span <= Math.max(Math.abs(range.high), 1e-3) * 1e-3;
  if (!hasUnit) {
    const pxPerUnit = (heightPx * FILL) / (flat ? Math.max(Math.abs(range.high), 1) : span);
    return { centre: (range.low + range.high) / 2, pxPerUnit, mark: null, label: null };
  }
  const unit = roundStep((flat ? Math.max(Math.abs(range.high), 1) : span) / 4);
  const low = Math.floor(range.low / unit) * unit;
  const high = Math.max(Math.ceil(range.high / unit) * unit, low + unit);
  return { centre: (low + high) / 2, pxPerUnit: (heightPx * FILL) / (high - low), mark: { low, high }, label: null };
}

/** The gain for what is in the window; `current` when it still serves. */
export function chooseGain(kind: Kind, unit: string | null, range: Range, heightPx: number, current: Gain | null): Gain {
  if (kind === "ecg" && unit === "mV") return ecgGain(range, heightPx, current);
  return fillGain(range, heightPx, current, printUnit(unit) !== "");
}
