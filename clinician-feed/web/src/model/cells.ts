/** What a tile's numerics say at a moment: the parts of a blood pressure together, large ones first. */
import { printAge } from "./numeric";
import type { Freshness, NumericSeries } from "./numeric";
import { printUnit, printValue } from "./quantity";
import type { Kind, PressurePart } from "./quantity";
import type { Bed } from "./ward";

export interface Cell {
  readonly key: string;
  readonly kind: Kind;
  readonly label: string;
  readonly unit: string;
  readonly large: boolean;
  /** The value, or dashes where it must not be read as the present. */
  readonly text: string;
  /** A pressure's mean. */
  readonly extra: string | null;
  readonly age: string;
  /** Whether the age is to be read with the value: always, but for a continuous value of the last seconds. */
  readonly aged: boolean;
  readonly freshness: Freshness;
  /** For a lost value: what it last was. */
  readonly last: string | null;
  /** The core has not made it durable yet. */
  readonly provisional: boolean;
  /** Named where a bed has the same quantity twice. */
  readonly device: string | null;
}

type Group = { readonly key: string; readonly series: NumericSeries; readonly parts: Map<PressurePart, NumericSeries> | null };

const WORST: readonly Freshness[] = ["fresh", "old", "lost"];

function groups(bed: Bed): Group[] {
  const found = new Map<string, Group>();
  for (const series of bed.numerics.values()) {
    const { pressure } = series;
    const key = pressure === null ? series.key : `${series.device}/${pressure.label}`;
    const group = found.get(key) ?? { key, series, parts: pressure === null ? null : new Map() };
    if (pressure !== null) group.parts?.set(pressure.part, series);
    found.set(key, group);
  }
  return [...found.values()].sort(
    (a, b) =>
      Number(b.series.presentation.large) - Number(a.series.presentation.large) ||
      a.series.presentation.rank - b.series.presentation.rank ||
      a.key.localeCompare(b.key),
  );
}

function printed(series: NumericSeries | undefined): string {
  return series === undefined ? "–" : printValue(series.shown.value, series.code);
}

/** The group's text and mean, e.g. `120/80` and `(93)`. */
function texts(group: Group): { text: string; extra: string | null } {
  const { parts } = group;
  if (parts === null) return { text: printed(group.series), extra: null };
  const mean = parts.get("mean");
  if (!parts.has("systolic") && !parts.has("diastolic")) return { text: printed(mean), extra: mean === undefined ? null : "mean" };
  return {
    text: `${printed(parts.get("systolic"))}/${printed(parts.get("diastolic"))}`,
    extra: mean === undefined ? null : `(${printed(mean)})`,
  };
}

/** A group is as old as its oldest part. */
function cell(group: Group, named: boolean, nowMs: number, feedNowMs: number): Cell {
  const members = group.parts === null ? [group.series] : [...group.parts.values()];
  const freshness = WORST[Math.max(...members.map((m) => WORST.indexOf(m.freshness(nowMs, feedNowMs))))] ?? "lost";
  const { text, extra } = texts(group);
  const lost = freshness === "lost";
  const { presentation, code } = group.series;
  return {
    key: group.key,
    kind: presentation.kind,
    label: presentation.label,
    unit: printUnit(code.unit),
    large: presentation.large,
    text: lost ? "– –" : text,
    extra: lost ? null : extra,
    age: printAge(Math.max(...members.map((m) => m.ageMs(nowMs, feedNowMs)))),
    freshness,
    aged: presentation.spot || freshness !== "fresh",
    last: lost ? text : null,
    provisional: members.some((m) => m.shown.provisional),
    device: named ? group.series.device : null,
  };
}

export function cells(bed: Bed, nowMs: number, feedNowMs: number): Cell[] {
  const all = groups(bed);
  const labels = new Map<string, number>();
  for (const { series } of all) labels.set(series.presentation.label, (labels.get(series.presentation.label) ?? 0) + 1);
  return all.map((group) => cell(group, (labels.get(group.series.presentation.label) ?? 0) > 1, nowMs, feedNowMs));
}

/** The numerics with a trend row, in the tile's order: of a pressure the systolic (or its only part). */
export function trendRows(bed: Bed, rowsMax: number): NumericSeries[] {
  return groups(bed)
    .filter((group) => group.series.presentation.large)
    .map((group) => group.parts?.get("systolic") ?? group.parts?.get("mean") ?? group.series)
    .slice(0, rowsMax);
}
