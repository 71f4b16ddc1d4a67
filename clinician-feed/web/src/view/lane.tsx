/** One waveform channel: label, gain mark, and the sweep, drawn column by column as time passes them. */
import { useEffect, useRef, useState } from "preact/hooks";
import { chooseGain } from "../model/gain";
import type { Gain } from "../model/gain";
import { LOST_MS } from "../model/numeric";
import { printUnit } from "../model/quantity";
import { step, sweepScale, trace } from "../model/sweep";
import type { SweepScale } from "../model/sweep";
import type { Channel } from "../model/ward";
import { clockMs } from "../shell/client";
import { COLOURS, fit } from "./canvas";
import type { Fitted } from "./canvas";
import { onFrame, second, useWatched } from "./frames";

/** The gain is looked at again so often; each change draws the sweep anew. */
const GAIN_MS = 1_000;
const LINE_CSS_PX = 1.6;

/** Draws one channel; holds what has been drawn. */
class SweepPainter {
  private target: Fitted | null = null;
  private scale: SweepScale = sweepScale(1, 1);
  private last: number | null = null;
  private redraw = -1;
  private gain: Gain | null = null;
  private gainMs = -Infinity;

  constructor(
    private readonly channel: Channel,
    private readonly gainChanged: (gain: Gain) => void,
  ) {}

  resize(target: Fitted): void {
    this.target = target;
    this.scale = sweepScale(target.canvas.width, target.ratio);
    this.last = null;
    this.gain = null;
    this.gainMs = -Infinity;
  }

  paint(nowMs: number): void {
    const { target, channel } = this;
    const { offsetMs } = channel.playout;
    if (target === null || offsetMs === null) return;
    if (nowMs - this.gainMs >= GAIN_MS) this.adjustGain(nowMs, offsetMs, target);
    if (this.redraw !== channel.redraw) {
      this.redraw = channel.redraw;
      this.last = null;
    }
    const work = step(this.last, nowMs, this.scale);
    if (work === null || this.gain === null) return;
    this.last = work.column;
    this.draw(work, offsetMs, target, this.gain);
  }

  private adjustGain(nowMs: number, offsetMs: number, target: Fitted): void {
    const windowMs = this.scale.width / this.scale.columnsPerMs;
    const range = this.channel.samples.range(nowMs - offsetMs - windowMs);
    if (range === null) return;
    this.gainMs = nowMs;
    const { presentation, unit } = this.channel;
    const gain = chooseGain(presentation.kind, unit, range, target.canvas.height / target.ratio, this.gain);
    if (gain === this.gain) return;
    this.gain = gain;
    this.last = null;
    this.gainChanged(gain);
  }

  private draw(work: NonNullable<ReturnType<typeof step>>, offsetMs: number, target: Fitted, gain: Gain): void {
    const { context, canvas, ratio } = target;
    for (const run of work.clear) context.clearRect(run.x, 0, run.width, canvas.height);
    context.lineWidth = LINE_CSS_PX * ratio;
    context.lineJoin = "round";
    context.strokeStyle = COLOURS[this.channel.presentation.kind];
    const middle = canvas.height / 2;
    const perUnit = gain.pxPerUnit * ratio;
    const y = (value: number): number => middle - (value - gain.centre) * perUnit;
    for (const run of work.draw) {
      context.save();
      context.beginPath();
      context.rect(run.x, 0, run.width, canvas.height);
      context.clip();
      context.beginPath();
      trace(context, this.channel.samples, run, this.scale, offsetMs, this.channel.periodMs, y);
      context.stroke();
      context.restore();
    }
  }
}

function GainMark({ gain, unit }: { readonly gain: Gain | null; readonly unit: string }) {
  const mark = gain?.mark ?? null;
  if (gain === null || mark === null) return <div class="gain" />;
  const height = { height: `${(mark.high - mark.low) * gain.pxPerUnit}px` };
  if (gain.label !== null) {
    return (
      <div class="gain" title={`Gain ${gain.label}; the mark is 1 mV`}>
        <span class="gain-bar gain-bar-ecg" style={height} />
        <span class="gain-text">1 mV</span>
      </div>
    );
  }
  const decimals = mark.high - mark.low < 2 ? 2 : 0;
  return (
    <div class="gain" title={`From ${mark.low} to ${mark.high} ${unit}`}>
      <span class="gain-bar" style={height} />
      <span class="gain-ends" style={height}>
        <span>{mark.high.toFixed(decimals)}</span>
        <span>{mark.low.toFixed(decimals)}</span>
      </span>
    </div>
  );
}

export function Lane({ channel }: { readonly channel: Channel }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [gain, setGain] = useState<Gain | null>(null);
  useWatched(() => String(second()));
  useEffect(() => {
    if (canvas.current === null) return undefined;
    const painter = new SweepPainter(channel, setGain);
    const unfit = fit(canvas.current, (target) => {
      painter.resize(target);
    });
    const stop = onFrame((nowMs) => {
      painter.paint(nowMs);
    });
    return () => {
      stop();
      unfit();
    };
  }, [channel]);
  const { presentation } = channel;
  const unit = printUnit(channel.unit);
  const nowMs = clockMs();
  const isLost = nowMs - channel.liveMs > LOST_MS;
  return (
    <div class={`lane kind-${presentation.kind}`}>
      <div class="lane-label">
        {presentation.label} <span class="dim lane-gain">{gain?.label ?? unit}</span>
        {channel.playout.runsAhead(nowMs) && <span class="lane-ahead">device time runs fast: excerpts</span>}
      </div>
      <GainMark gain={gain} unit={unit} />
      <canvas ref={canvas} role="img" aria-label={`${presentation.label} trace, 25 mm/s${isLost ? ", no data" : ""}`} />
      {isLost && <div class="lane-lost">NO DATA</div>}
    </div>
  );
}
