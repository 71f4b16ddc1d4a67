/**
 * How a quantity is shown: colour family, short label, place in the tile, unit in print. By its code first (MDC, ISO/IEEE
 * 11073-10101; LOINC), by its name where it has none.
 */
import type { Code } from "./protocol";

export type Kind = "ecg" | "spo2" | "pressure" | "respiration" | "temperature" | "other";

export interface Presentation {
  readonly kind: Kind;
  readonly label: string;
  /** Large beside the traces, or small below them. */
  readonly large: boolean;
  /** Order in the tile, and of traces: lower is higher up. */
  readonly rank: number;
  /** Measured now and then (a cuff, a scale): its value holds until the next, with its age. */
  readonly spot: boolean;
  /** Range of the trend, in the unit; null: what the values need. */
  readonly trend: readonly [number, number] | null;
}

/** Part of a blood pressure: one numeric shows up to three. */
export type PressurePart = "systolic" | "diastolic" | "mean";

type Row = readonly [kind: Kind, label: string, large: boolean, rank: number, spot: boolean, trend: readonly [number, number] | null];

const BY_MDC: ReadonlyMap<number, Row> = new Map<number, Row>([
  [147842, ["ecg", "HR", true, 0, false, [30, 180]]],
  [149530, ["spo2", "PR", false, 12, false, [30, 180]]],
  [149546, ["pressure", "PR (cuff)", false, 13, true, [30, 180]]],
  [150456, ["spo2", "SpO₂", true, 1, false, [80, 100]]],
  [150448, ["spo2", "PI", false, 14, false, [0, 10]]],
  [151562, ["respiration", "RR", true, 3, false, [0, 40]]],
  [151578, ["respiration", "RR", true, 3, false, [0, 40]]],
  [150364, ["temperature", "Temp", true, 4, true, [34, 41]]],
  [188428, ["temperature", "Temp (ear)", true, 4, true, [34, 41]]],
  [188452, ["temperature", "Temp (axilla)", true, 4, true, [34, 41]]],
  [188736, ["other", "Weight", false, 20, true, null]],
  [160184, ["other", "Glucose", false, 21, true, null]],
  [160212, ["other", "Glucose", false, 21, true, null]],
  [8455161, ["other", "Walk", false, 23, true, null]],
]);

const BY_NAME: readonly (readonly [RegExp, Row])[] = [
  [/^(heart-?rate|hr)$/i, ["ecg", "HR", true, 0, false, [30, 180]]],
  [/pulse-?rate/i, ["spo2", "PR", false, 12, false, [30, 180]]],
  [/^(spo2|oxygen-?saturation)$/i, ["spo2", "SpO₂", true, 1, false, [80, 100]]],
  [/^(resp(iratory|iration)?-?rate|rr)$/i, ["respiration", "RR", true, 3, false, [0, 40]]],
  [/temp/i, ["temperature", "Temp", true, 4, true, [34, 41]]],
  [/ecg|lead/i, ["ecg", "", false, 30, false, null]],
  [/pleth|spo2|perfusion/i, ["spo2", "", false, 31, false, null]],
  [/abp|art|press|systolic|diastolic|\bbp\b|cvp|pap/i, ["pressure", "", false, 32, false, null]],
  [/resp/i, ["respiration", "", false, 33, false, null]],
  [/weight|glucose|steps/i, ["other", "", false, 22, true, null]],
];

const PRESSURE_PART_BY_LOINC: ReadonlyMap<string, PressurePart> = new Map([
  ["8480-6", "systolic"],
  ["8462-4", "diastolic"],
  ["8478-0", "mean"],
]);

/** MDC numbers pressures in blocks: n, n+1 systolic, n+2 diastolic, n+3 mean. These are the cuff's and the artery line's. */
const PRESSURE_BASES = [
  { base: 150020, spot: true, label: "NIBP" },
  { base: 150036, spot: false, label: "ABP" },
  { base: 150032, spot: false, label: "BP" },
  { base: 150016, spot: false, label: "BP" },
] as const;

export interface PressureCode {
  readonly part: PressurePart;
  readonly label: string;
  readonly spot: boolean;
}

/** Which part of a blood pressure a code is, null for all others. */
export function pressurePart(code: Code): PressureCode | null {
  for (const { base, spot, label } of PRESSURE_BASES) {
    const part = ([null, "systolic", "diastolic", "mean"] as const)[(code.mdc ?? 0) - base];
    if (part !== null && part !== undefined) return { part, label, spot };
  }
  const part = code.loinc === null ? undefined : PRESSURE_PART_BY_LOINC.get(code.loinc);
  return part === undefined ? null : { part, label: "BP", spot: true };
}

function presentation(row: Row, code: Code): Presentation {
  const [kind, label, large, rank, spot, trend] = row;
  return { kind, label: label === "" ? code.display : label, large, rank, spot, trend };
}

export function present(code: Code): Presentation {
  const pressure = pressurePart(code);
  if (pressure !== null) {
    return { kind: "pressure", label: pressure.label, large: true, rank: 2, spot: pressure.spot, trend: [40, 200] };
  }
  const known = code.mdc === null ? undefined : BY_MDC.get(code.mdc);
  if (known !== undefined) return presentation(known, code);
  const named = BY_NAME.find(([pattern]) => pattern.test(code.name));
  return presentation(named?.[1] ?? ["other", "", false, 40, false, null], code);
}

/** Rank of a waveform: ECG leads first, then as the numerics. */
export function waveRank(kind: Kind): number {
  return ["ecg", "spo2", "pressure", "respiration", "temperature", "other"].indexOf(kind);
}

const UNITS: ReadonlyMap<string, string> = new Map([
  ["mm[Hg]", "mmHg"],
  ["Cel", "°C"],
  ["{steps}", "steps"],
  ["1", ""],
]);

/** A UCUM unit as it is printed. */
export function printUnit(unit: string | null): string {
  return unit === null ? "" : (UNITS.get(unit) ?? unit);
}

const MDC_PERFUSION_INDEX = 150448;

/** A value with the digits that its quantity is read with. */
export function printValue(value: number, code: Code): string {
  const { unit } = code;
  if (unit === "Cel" || unit === "kg" || code.mdc === MDC_PERFUSION_INDEX) return value.toFixed(1);
  if (unit === "/min" || unit === "%" || unit === "mm[Hg]" || unit === "{steps}") return value.toFixed(0);
  if (Number.isInteger(value) || Math.abs(value) >= 100) return value.toFixed(0);
  return value.toPrecision(3);
}
