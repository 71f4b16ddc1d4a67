/**
 * A time of the past: lines of `GET /api/history` go in, rows to be drawn come out. What is kept does not grow with what comes: each
 * row has the lowest and highest value of each part of the time, so that an hour of a trace and ten seconds of it take the same room.
 */
import { FrameError, parsePast } from "./protocol";
import type { Code, DataClass, Past, PastEnd } from "./protocol";

/** Parts of the time: more than a screen has columns. */
export const PARTS = 2_048;
/** Rows: more than one device has leads and a bed numerics. */
export const ROWS_MAX = 32;
/** Events that are listed. */
export const EVENTS_MAX = 200;
/** Longest line: a chunk of 8,192 samples is some 57 kB. */
export const LINE_CHARS_MAX = 1 << 20;
/** Longest time by class, minutes: as the feed has it, and of traces what a ward's line brings in seconds. */
export const MINUTES_MAX: Readonly<Record<DataClass, number>> = { alarm: 1_440, vitals: 1_440, waveform: 60, activity: 1_440, sensitive: 1_440 };
/** To choose from. */
export const SPANS: readonly (readonly [minutes: number, text: string])[] = [
  [1, "1 minute"],
  [10, "10 minutes"],
  [60, "1 hour"],
  [360, "6 hours"],
  [1_440, "24 hours"],
];

/** What somebody asked for. */
export interface HistoryRequest {
  readonly patient: string;
  readonly dataClass: DataClass;
  readonly fromMs: number;
  readonly untilMs: number;
}

/** What is wrong with it, in words; null where nothing is. */
export function historyFault({ dataClass, fromMs, untilMs }: HistoryRequest, feedNowMs: number): string | null {
  if (!Number.isFinite(fromMs)) return "Say from when.";
  if (fromMs >= feedNowMs) return "That time has not come yet.";
  const minutes = MINUTES_MAX[dataClass];
  if (untilMs - fromMs > minutes * 60_000) return `Of ${dataClass} at most ${minutes >= 120 ? `${minutes / 60} hours` : `${minutes} minutes`} at once.`;
  return null;
}

export function historyPath({ patient, dataClass, fromMs, untilMs }: HistoryRequest): string {
  return `/api/history?patient=${patient}&class=${dataClass}&from_ms=${Math.floor(fromMs)}&until_ms=${Math.floor(untilMs)}`;
}

/** One numeric or one lead of one device. */
export interface HistoryRow {
  readonly key: string;
  readonly device: string;
  readonly code: Code;
  /** By part; NaN where there is nothing. */
  readonly low: Float32Array;
  readonly high: Float32Array;
  /** Of all of it. */
  min: number;
  max: number;
}

export interface HistoryEvent {
  readonly atMs: number;
  readonly display: string;
  readonly device: string;
}

export type HistoryState =
  | { readonly is: "coming" }
  | { readonly is: "whole"; readonly end: PastEnd }
  | { readonly is: "failed"; readonly why: string };

export class History {
  readonly rows = new Map<string, HistoryRow>();
  /** Oldest first. */
  readonly events: HistoryEvent[] = [];
  readings = 0;
  /** Readings that had no room, or were none. */
  leftOut = 0;
  state: HistoryState = { is: "coming" };
  /** Raised with what changes what is shown. */
  revision = 0;
  private reachedMs: number;
  private rest = "";

  constructor(readonly request: HistoryRequest) {
    this.reachedMs = request.fromMs;
  }

  /** From 0 to 1. */
  get progress(): number {
    const { fromMs, untilMs } = this.request;
    if (this.state.is === "whole") return 1;
    return Math.min(1, Math.max(0, (this.reachedMs - fromMs) / (untilMs - fromMs)));
  }

  /** Takes a piece of the answer; lines may be cut anywhere. */
  receive(piece: string): void {
    const lines = (this.rest + piece).split("\n");
    this.rest = lines.pop() ?? "";
    for (const line of lines) this.line(line);
    if (this.rest.length > LINE_CHARS_MAX) this.fail("The feed's answer can't be read.");
    this.revision += 1;
  }

  /** The answer has ended: where nothing said that it is whole, it is not. */
  ended(): void {
    this.fail("The connection to the feed was lost before all had come.");
  }

  /** What came stays; a later word changes nothing. */
  fail(why: string): void {
    if (this.state.is !== "coming") return;
    this.state = { is: "failed", why };
    this.rest = "";
    this.revision += 1;
  }

  private line(line: string): void {
    if (this.state.is !== "coming" || line === "") return;
    let past: Past;
    try {
      past = parsePast(line);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.leftOut += 1;
      return;
    }
    switch (past.type) {
      case "past":
        this.readings += 1;
        this.reachedMs = Math.max(this.reachedMs, past.gatewayMs);
        this.take(past);
        break;
      case "progress":
        this.reachedMs = Math.max(this.reachedMs, past.atMs);
        break;
      case "end":
        this.state = { is: "whole", end: past };
        break;
      case "failed":
        this.fail(`Not all has come: ${past.error}.`);
        break;
    }
  }

  private take(past: Extract<Past, { type: "past" }>): void {
    const { value } = past;
    if (value.kind === "event") {
      if (this.events.length < EVENTS_MAX) this.events.push({ atMs: past.sensorMs ?? past.gatewayMs, display: past.code.display, device: past.device });
      else this.leftOut += 1;
      return;
    }
    const row = this.rowOf(past.device, past.stream, past.code);
    if (row === null) {
      this.leftOut += 1;
      return;
    }
    if (value.kind === "numeric") {
      this.put(row, past.sensorMs ?? past.gatewayMs, value.numeric);
      return;
    }
    const { t0Ms, periodMs, values } = value.wave;
    values.forEach((sample, i) => {
      if (!Number.isNaN(sample)) this.put(row, t0Ms + i * periodMs, sample);
    });
  }

  private rowOf(device: string, stream: string, code: Code): HistoryRow | null {
    const key = `${device}/${stream}`;
    const known = this.rows.get(key);
    if (known !== undefined) return known;
    if (this.rows.size >= ROWS_MAX) return null;
    const empty = (): Float32Array => new Float32Array(PARTS).fill(Number.NaN);
    const row: HistoryRow = { key, device, code, low: empty(), high: empty(), min: Infinity, max: -Infinity };
    this.rows.set(key, row);
    return row;
  }

  private put(row: HistoryRow, atMs: number, value: number): void {
    const { fromMs, untilMs } = this.request;
    const part = Math.floor(((atMs - fromMs) / (untilMs - fromMs)) * PARTS);
    // By the sensor's clock it may lie beyond what was asked for by the gateway's.
    if (part < 0 || part >= PARTS) return;
    const [low, high] = [row.low[part] ?? Number.NaN, row.high[part] ?? Number.NaN];
    if (!(low <= value)) row.low[part] = value;
    if (!(high >= value)) row.high[part] = value;
    row.min = Math.min(row.min, value);
    row.max = Math.max(row.max, value);
  }
}

/** How it stands, in words. */
export function historyText(history: History): string {
  const { state, readings } = history;
  const count = readings === 1 ? "1 reading" : `${readings.toLocaleString("en-GB")} readings`;
  if (state.is === "failed") return `${state.why} ${count} ${readings === 1 ? "is" : "are"} shown.`;
  if (state.is === "coming") return `${Math.round(history.progress * 100)} %, ${count}`;
  const { gap, told, refused } = state.end;
  const faults = [
    readings === 0 ? `Nothing of ${history.request.dataClass} is there of this time that this hospital may open` : count,
    ...(gap === null ? [] : [`missing #${gap[0]}–${gap[1]}`]),
    ...(told === null ? [] : [told.why === "expired" ? "some was let go undelivered by the gateway" : "some was lost by the gateway's disk"]),
    ...(refused === 0 ? [] : [`${refused} could not be opened`]),
    ...(history.leftOut === 0 ? [] : [`${history.leftOut} not shown`]),
  ];
  return `${faults.join("; ")}.`;
}
