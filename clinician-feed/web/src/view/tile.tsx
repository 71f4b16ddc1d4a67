/** One bed: banner, traces with numerics beside them, trends, events, and how far its chains are verified. */
import { accessText } from "../model/access";
import { cells, trendRows } from "../model/cells";
import type { Cell } from "../model/cells";
import { LOST_MS, printAge } from "../model/numeric";
import { DATA_CLASSES } from "../model/protocol";
import type { DataClass, Told } from "../model/protocol";
import { waveRank } from "../model/quantity";
import { BACKLOG_SHOWN_MS } from "../model/ward";
import type { Bed, BedEvent, Channel, ChainState, Ward } from "../model/ward";
import { clockMs } from "../shell/client";
import { AlarmBar } from "./alarms";
import type { Send } from "./alarms";
import { second, useWatched } from "./frames";
import { Lane } from "./lane";
import { TREND_ROWS_MAX, Trends } from "./trends";

/** Lanes and large numerics in the grid, by how many beds share it; an opened bed shows all. */
const CROWDED_BEDS = 9;
const LANES_MAX = { roomy: 4, crowded: 1 } as const;
const LARGE_MAX = { roomy: 6, crowded: 4 } as const;
const EVENTS_IN_TILE = 2;
const EVENTS_IN_OPENED = 12;

function Numeric({ cell, large }: { readonly cell: Cell; readonly large: boolean }) {
  const sized = large ? "numeric" : "numeric numeric-small";
  const size = cell.provisional ? `${sized} is-provisional` : sized;
  return (
    <div class={`${size} kind-${cell.kind} is-${cell.freshness}`}>
      <div class="numeric-head">
        <span class="numeric-label">{cell.label}</span>
        <span class="numeric-unit">{cell.unit}</span>
        {cell.device !== null && <span class="numeric-device">{cell.device}</span>}
      </div>
      <div class={cell.text.length > 4 ? "numeric-value numeric-long" : "numeric-value"}>
        {cell.text}
        {cell.extra !== null && <span class="numeric-extra">{cell.extra}</span>}
      </div>
      {cell.aged && (
        <div class="numeric-age">
          {cell.last === null ? `${cell.age} ago` : <><strong>NO DATA</strong> {cell.last}, {cell.age} ago</>}
        </div>
      )}
    </div>
  );
}

/** What the gateway let go, or its disk lost, in words. */
function toldText({ why, first, last, fromMs, toMs }: Told): string {
  const [from, to] = [fromMs === null ? null : clockTime(fromMs), toMs === null ? null : clockTime(toMs)];
  const when = from === null || to === null ? (first === last ? `#${first}` : `#${first}–${last}`) : from === to ? from : `${from}–${to}`;
  return why === "expired" ? `let go undelivered ${when}` : `lost by the gateway's disk ${when}`;
}

function ChainBadge({ dataClass, chain }: { readonly dataClass: DataClass; readonly chain: ChainState }) {
  const { verified, gap, told } = chain;
  const missing = gap === null ? null : gap[0] === gap[1] ? `#${gap[0]}` : `#${gap[0]}–${gap[1]}`;
  return (
    <li class={missing === null ? "chain" : "chain chain-gap"}>
      <span class="chain-class">{dataClass}</span>{" "}
      {verified === null ? "not verified yet" : `verified to #${verified}`}
      {missing !== null && <strong> missing {missing}</strong>}
      {told !== null && <span class="chain-told"> {toldText(told)}</span>}
    </li>
  );
}

function clockTime(ms: number): string {
  return new Date(ms).toLocaleTimeString("en-GB");
}

function EventList({ events, feedNowMs }: { readonly events: readonly BedEvent[]; readonly feedNowMs: number }) {
  if (events.length === 0) return <p class="events-none">No events</p>;
  return (
    <ol class="events">
      {events.map((event) => (
        <li key={event.id} class={event.dataClass === "alarm" ? "event event-alarm" : "event"}>
          <time>{clockTime(event.atMs)}</time> <span class="event-name">{event.display}</span>{" "}
          <span class="dim">{printAge(Math.max(0, feedNowMs - event.atMs))} ago{event.late ? ", arrived late" : ""}</span>
        </li>
      ))}
    </ol>
  );
}

function delayText(bed: Bed, nowMs: number): string {
  const median = nowMs - bed.liveMs > LOST_MS ? null : bed.delays.median();
  return median === null ? "delay –" : `delay ${Math.round(median)} ms`;
}

/** Traces run behind the numerics by a chunk; the page says by how much. */
function heldBackText(channels: readonly Channel[], nowMs: number): string | null {
  if (channels.some((channel) => channel.playout.runsAhead(nowMs))) return "traces in excerpts";
  const heldBack = Math.max(0, ...channels.map((channel) => channel.playout.heldBackMs));
  return channels.length === 0 ? null : `traces +${Math.round(heldBack / 10) * 10} ms`;
}

export interface TileProps {
  readonly bed: Bed;
  readonly ward: Ward;
  readonly opened: boolean;
  readonly toggle: () => void;
  readonly send: Send;
}

/** What the foot says, in short, for tiles too low to have one. */
function BannerNews({ bed }: { readonly bed: Bed }) {
  const gaps = [...bed.chains].filter(([, chain]) => chain.gap !== null).map(([dataClass]) => dataClass);
  const newest = bed.events[0];
  return (
    <span class="news">
      {gaps.length > 0 && <strong class="news-gap">missing: {gaps.join(", ")}</strong>}
      {newest !== undefined && (
        <span class={newest.dataClass === "alarm" ? "event event-alarm" : "event"}>
          <time>{clockTime(newest.atMs)}</time> <span class="event-name">{newest.display}</span>
        </span>
      )}
    </span>
  );
}

interface BannerProps extends TileProps {
  readonly channels: readonly Channel[];
  readonly nowMs: number;
}

function Banner({ bed, ward, channels, opened, toggle, nowMs }: BannerProps) {
  const heldBack = heldBackText(channels, nowMs);
  const access = accessText(bed.access, ward.feedNowMs(nowMs));
  return (
    <header class="banner">
      <h2>
        <button type="button" aria-expanded={opened} onClick={toggle} title={opened ? "Back to all beds (Esc)" : "This bed alone"}>
          {bed.name}
        </button>
      </h2>
      <span class="pseudonym" title={`Pseudonym ${bed.patient}`}>
        {bed.patient.slice(0, 4)} {bed.patient.slice(4, 8)}
      </span>
      <span class={`category category-${bed.category}`}>{bed.category}</span>
      {access !== null && (
        <span class={`access access-${access.state}`} role="status">
          {access.text}
        </span>
      )}
      {nowMs - bed.backlogMs < BACKLOG_SHOWN_MS && <span class="backlog">backlog arriving</span>}
      <BannerNews bed={bed} />
      <span class="delay" title="Median from measurement to this page; traces are held back so that they run smoothly">
        {delayText(bed, nowMs)}
        {heldBack !== null && <span class="dim heldback"> · {heldBack}</span>}
      </span>
    </header>
  );
}

export function Tile(props: TileProps) {
  const { bed, ward, opened } = props;
  useWatched(() => `${bed.revision}:${second()}`);
  const nowMs = clockMs();
  const feedNowMs = ward.feedNowMs(nowMs);
  const numerics = cells(bed, nowMs, feedNowMs);
  const channels = [...bed.channels.values()].sort(
    (a, b) => waveRank(a.presentation.kind) - waveRank(b.presentation.kind) || a.key.localeCompare(b.key),
  );
  const room = ward.beds.size < CROWDED_BEDS ? "roomy" : "crowded";
  const shown = opened ? channels : channels.slice(0, LANES_MAX[room]);
  const large = numerics.filter((cell) => cell.large).slice(0, opened ? numerics.length : LARGE_MAX[room]);
  const small = numerics.filter((cell) => !large.includes(cell));
  const rows = trendRows(bed, TREND_ROWS_MAX).length;
  return (
    <article class={`tile access-of-${bed.access?.basis ?? "unknown"}${bed.heard === false ? " is-unheard" : ""}`} aria-label={`${bed.name}, ${bed.category}`}>
      <Banner {...props} channels={shown} nowMs={nowMs} />
      <AlarmBar bed={bed} opened={opened} feedNowMs={feedNowMs} send={props.send} />
      <div class="signals">
        <div class="lanes">
          {shown.map((channel) => (
            <Lane key={channel.key} channel={channel} />
          ))}
          {channels.length === 0 && <p class="lanes-none">No traces received yet</p>}
          {channels.length > shown.length && <p class="lanes-more">{channels.length - shown.length} more: open the bed</p>}
          {rows > 0 && <Trends bed={bed} ward={ward} rows={rows} />}
        </div>
        <div class={numerics.length === 0 ? "numerics is-empty" : "numerics"}>
          {large.map((cell) => (
            <Numeric key={cell.key} cell={cell} large />
          ))}
          {numerics.length === 0 && <p class="numerics-none">No numerics received yet</p>}
        </div>
      </div>
      {small.length > 0 && (
        <div class="smalls">
          {small.map((cell) => (
            <Numeric key={cell.key} cell={cell} large={false} />
          ))}
        </div>
      )}
      <footer class="tile-foot">
        <EventList events={bed.events.slice(0, opened ? EVENTS_IN_OPENED : EVENTS_IN_TILE)} feedNowMs={feedNowMs} />
        <ul class="chains" aria-label="Chains of sealed segments">
          {DATA_CLASSES.map((dataClass) => {
            const chain = bed.chains.get(dataClass);
            return chain === undefined ? null : <ChainBadge key={dataClass} dataClass={dataClass} chain={chain} />;
          })}
        </ul>
      </footer>
    </article>
  );
}
