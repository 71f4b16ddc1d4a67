/** A time of the past of one bed: what is asked for, how far it has come, and what came. */
import { useEffect, useRef, useState } from "preact/hooks";
import { whenText } from "../model/access";
import { History, PARTS, SPANS, historyFault, historyText } from "../model/history";
import type { HistoryRequest, HistoryRow } from "../model/history";
import { DATA_CLASSES } from "../model/protocol";
import type { DataClass } from "../model/protocol";
import { present } from "../model/quantity";
import { clockMs } from "../shell/client";
import type { Client } from "../shell/client";
import { COLOURS, fit } from "./canvas";
import type { Fitted } from "./canvas";
import { onFrame, second, useWatched } from "./frames";

/** Painted anew so often while more comes. */
const PAINT_MS = 250;
const USUAL_MINUTES = 10;

function paintRow({ context, canvas, ratio }: Fitted, row: HistoryRow): void {
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (row.min > row.max) return;
  const span = row.max > row.min ? row.max - row.min : 1;
  const y = (value: number): number => canvas.height * (0.94 - (0.88 * (value - row.min)) / span);
  context.fillStyle = COLOURS[present(row.code).kind];
  const width = Math.max(1, canvas.width / PARTS);
  for (let part = 0; part < PARTS; part += 1) {
    const [low, high] = [row.low[part] ?? Number.NaN, row.high[part] ?? Number.NaN];
    if (Number.isNaN(low)) continue;
    const top = y(high);
    context.fillRect((part * canvas.width) / PARTS, top - ratio / 2, Math.max(width, ratio), Math.max(ratio, y(low) - top));
  }
}

function Row({ row, history }: { readonly row: HistoryRow; readonly history: History }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (canvas.current === null) return undefined;
    let target: Fitted | null = null;
    let painted = -1;
    let paintedMs = -Infinity;
    const unfit = fit(canvas.current, (fitted) => {
      target = fitted;
      painted = -1;
    });
    const stop = onFrame((nowMs) => {
      if (target === null || painted === history.revision || nowMs - paintedMs < PAINT_MS) return;
      [painted, paintedMs] = [history.revision, nowMs];
      paintRow(target, row);
    });
    return () => {
      stop();
      unfit();
    };
  }, [row, history]);
  const range = row.min > row.max ? "" : `${Number(row.min.toPrecision(4))}–${Number(row.max.toPrecision(4))} ${row.code.unit ?? ""}`;
  return (
    <li class="history-row">
      <span>
        {row.code.display} <span class="dim">{row.device}</span> <strong>{range}</strong>
      </span>
      <canvas ref={canvas} role="img" aria-label={`${row.code.display}: ${range}`} />
    </li>
  );
}

function Shown({ history, feedNowMs }: { readonly history: History; readonly feedNowMs: number }) {
  const { state, request } = history;
  return (
    <>
      <progress value={history.progress} max={1} aria-label="How much has come" />
      <p class={state.is === "failed" ? "refusal" : "dim"} role={state.is === "failed" ? "alert" : "status"}>
        {historyText(history)}
      </p>
      <p class="dim">
        {whenText(request.fromMs, feedNowMs)} to {whenText(request.untilMs, feedNowMs)}
      </p>
      <ol class="history-rows">
        {[...history.rows.values()].map((row) => (
          <Row key={row.key} row={row} history={history} />
        ))}
      </ol>
      {history.events.length > 0 && (
        <ol class="history-events">
          {history.events.map((event, i) => (
            <li key={i}>
              <time>{whenText(event.atMs, feedNowMs)}</time> {event.display} <span class="dim">{event.device}</span>
            </li>
          ))}
        </ol>
      )}
    </>
  );
}

/** As `datetime-local` has it, by the viewer's clock. */
function localText(ms: number): string {
  const local = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 16);
}

function requestOf(form: HTMLFormElement): HistoryRequest {
  const data = new FormData(form);
  const text = (name: string): string => String(data.get(name) ?? "");
  const fromMs = new Date(text("from")).getTime();
  const dataClass = DATA_CLASSES.find((known) => known === text("class")) ?? "vitals";
  return { patient: text("patient"), dataClass, fromMs, untilMs: fromMs + Number(text("minutes")) * 60_000 };
}

export interface HistoryProps {
  readonly client: Client;
  /** Whose bed is open, if one is. */
  readonly patient: string | null;
  readonly close: () => void;
}

export function HistoryPanel({ client, patient, close }: HistoryProps) {
  const [fault, setFault] = useState<string | null>(null);
  const [history, setHistory] = useState<History | null>(null);
  const asking = useRef<AbortController | null>(null);
  useEffect(() => () => asking.current?.abort(), []);
  useWatched(() => `${history?.state.is ?? ""}:${history?.rows.size ?? 0}:${history?.state.is === "coming" ? history.revision : 0}:${second()}`);
  const feedNowMs = client.ward.feedNowMs(clockMs());
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    if (!(event.currentTarget instanceof HTMLFormElement)) return;
    const request = requestOf(event.currentTarget);
    const wrong = historyFault(request, client.ward.feedNowMs(clockMs()));
    setFault(wrong);
    if (wrong !== null) return;
    asking.current?.abort();
    asking.current = new AbortController();
    const asked = new History(request);
    setHistory(asked);
    void client.history(request, asked, asking.current.signal);
  };
  // The field has whole minutes: the one that is running counts as past, so that the newest readings are in it.
  const [from] = useState(() => localText((Math.ceil(feedNowMs / 60_000) - USUAL_MINUTES) * 60_000));
  return (
    <section class="panel history" role="dialog" aria-label="History">
      <header class="panel-head">
        <h2>History</h2>
        <button type="button" class="panel-close" onClick={close} aria-label="Close">
          ×
        </button>
      </header>
      <div class="panel-body">
        <form class="history-form" onSubmit={(event) => submit(event as unknown as SubmitEvent)} noValidate>
          <label>
            Bed
            <select name="patient">
              {[...client.ward.beds.values()].map((bed) => (
                <option key={bed.patient} value={bed.patient} selected={bed.patient === patient}>
                  {bed.name}
                </option>
              ))}
            </select>
          </label>
          <label>
            What
            <select name="class">
              {DATA_CLASSES.map((dataClass: DataClass) => (
                <option key={dataClass} value={dataClass} selected={dataClass === "vitals"}>
                  {dataClass}
                </option>
              ))}
            </select>
          </label>
          <label>
            From
            <input type="datetime-local" name="from" defaultValue={from} />
          </label>
          <label>
            For
            <select name="minutes">
              {SPANS.map(([minutes, text]) => (
                <option key={minutes} value={minutes} selected={minutes === USUAL_MINUTES}>
                  {text}
                </option>
              ))}
            </select>
          </label>
          <p class="panel-buttons">
            <button type="submit" class="primary">
              Show this time
            </button>
            {history?.state.is === "coming" && (
              <button type="button" onClick={() => asking.current?.abort()}>
                Stop
              </button>
            )}
          </p>
        </form>
        {fault !== null && (
          <p class="refusal" role="alert">
            {fault}
          </p>
        )}
        {history !== null && <Shown history={history} feedNowMs={feedNowMs} />}
      </div>
    </section>
  );
}
