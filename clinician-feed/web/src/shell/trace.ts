/**
 * For measuring from sensor to page: with `?trace` in its address the page notes each new reading as
 * `[device, stream, seq, arrivedMs]` in `window.caregateTrace`. `arrivedMs` is Unix ms (`performance.timeOrigin +
 * performance.now()`) in the WebSocket's message handler, after the reading was handed to the view. A harness drains it
 * with `window.caregateTrace.splice(0)`.
 */
import type { Reading } from "../model/protocol";

export type TraceEntry = [device: string, stream: string, seq: number | null, arrivedMs: number];

declare global {
  interface Window {
    caregateTrace?: TraceEntry[];
    /** Entries that found the array full. */
    caregateTraceDropped?: number;
  }
}

/** A bed sends under 20 readings a second: hours of one, or minutes of a ward, if nobody drains it. */
const TRACE_MAX = 500_000;

if (new URLSearchParams(location.search).has("trace")) {
  window.caregateTrace = [];
  window.caregateTraceDropped = 0;
}

export function record(reading: Reading, arrivedMs: number): void {
  const entries = window.caregateTrace;
  if (entries === undefined) return;
  if (entries.length >= TRACE_MAX) {
    window.caregateTraceDropped = (window.caregateTraceDropped ?? 0) + 1;
    return;
  }
  entries.push([reading.device, reading.stream, reading.seq, arrivedMs]);
}
