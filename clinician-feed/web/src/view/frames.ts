/** The page's one animation loop: painters draw in it, components look in it whether they are out of date. */
import { useEffect, useReducer } from "preact/hooks";
import { clockMs } from "../shell/client";

/** A sweep moves 94.5 px/s: 30 frames a second are three pixels each, and leave half of a small machine to others. */
const FRAME_MS = 1000 / 30;
/** With `prefers-reduced-motion` traces advance once a second. */
const CALM_FRAME_MS = 1000;
/** Timers jitter; a frame that comes this much early still counts. */
const SLACK_MS = 4;

type Painter = (nowMs: number) => void;

const painters = new Set<Painter>();
const watchers = new Set<() => void>();
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let lastFrameMs = -Infinity;
let lastPaintMs = -Infinity;

function frame(): void {
  requestAnimationFrame(frame);
  const nowMs = clockMs();
  if (nowMs - lastFrameMs < FRAME_MS - SLACK_MS) return;
  lastFrameMs = nowMs;
  for (const watch of watchers) watch();
  if (calm.matches && nowMs - lastPaintMs < CALM_FRAME_MS - SLACK_MS) return;
  lastPaintMs = nowMs;
  for (const paint of painters) paint(nowMs);
}

export function startFrames(): void {
  requestAnimationFrame(frame);
}

/** Calls `painter` each frame until the returned function is called. */
export function onFrame(painter: Painter): () => void {
  painters.add(painter);
  return () => {
    painters.delete(painter);
  };
}

/** Renders the component again when `read` answers something else than at the frame before. */
export function useWatched(read: () => string): void {
  const [, render] = useReducer((count: number, _: undefined) => count + 1, 0);
  useEffect(() => {
    let seen = read();
    const watch = (): void => {
      const present = read();
      if (present === seen) return;
      seen = present;
      render(undefined);
    };
    watchers.add(watch);
    return () => {
      watchers.delete(watch);
    };
  });
}

/** Counts whole seconds, for what shows ages. */
export function second(): number {
  return Math.floor(clockMs() / 1000);
}
