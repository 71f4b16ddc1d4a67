/** A canvas that keeps the size of its box in device pixels, and the colours of the traces. */
import type { Kind } from "../model/quantity";

export const COLOURS: Readonly<Record<Kind, string>> = {
  ecg: "#3ddc64",
  spo2: "#35d6f5",
  pressure: "#ff6b62",
  respiration: "#ffd83d",
  temperature: "#f0f3f7",
  other: "#d3dae4",
};

export interface Fitted {
  readonly canvas: HTMLCanvasElement;
  readonly context: CanvasRenderingContext2D;
  /** Device pixels per CSS pixel. */
  readonly ratio: number;
}

/** Calls `fitted` at first and after each change of size; returns what ends it. */
export function fit(canvas: HTMLCanvasElement, fitted: (target: Fitted) => void): () => void {
  const context = canvas.getContext("2d");
  if (context === null) return () => undefined;
  const apply = (): void => {
    // Above 2 a trace looks no sharper and costs four times the pixels.
    const ratio = Math.min(2, Math.max(1, window.devicePixelRatio));
    const box = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, Math.round(box.width * ratio));
    canvas.height = Math.max(1, Math.round(box.height * ratio));
    fitted({ canvas, context, ratio });
  };
  const observer = new ResizeObserver(apply);
  observer.observe(canvas);
  apply();
  return () => {
    observer.disconnect();
  };
}
