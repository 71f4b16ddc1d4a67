/** Plays alarm tones. A browser plays none before somebody has touched the page; until then the page says that it is silent. */
import { BURSTS, HARMONICS, isDue } from "../model/tone";
import type { Priority } from "../model/protocol";

/** A pulse rises and falls within this, so that it does not click. */
const EDGE_S = 0.02;
const LOUDNESS = 0.3;

export class Tones {
  private context: AudioContext | null = null;
  private wave: PeriodicWave | null = null;
  private last: { priority: Priority; atMs: number } | null = null;

  /** Whether nothing would be heard. */
  get isSilent(): boolean {
    return this.context?.state !== "running";
  }

  /** Call when somebody touches the page. */
  wake(): void {
    this.context ??= new AudioContext();
    void this.context.resume();
  }

  /** Call often; plays a burst when one is due. */
  look(sounds: Priority | null, nowMs: number): void {
    if (sounds === null) {
      this.last = null;
      return;
    }
    if (this.isSilent || !isDue(sounds, this.last, nowMs)) return;
    this.last = { priority: sounds, atMs: nowMs };
    this.play(sounds);
  }

  /** A burst, also for a speaker test. */
  play(priority: Priority): void {
    const { context } = this;
    if (context === null) return;
    this.wave ??= context.createPeriodicWave(new Float32Array(HARMONICS + 1), Float32Array.from({ length: HARMONICS + 1 }, (_, n) => (n === 0 ? 0 : 1 / n)));
    const { pulses, hertz } = BURSTS[priority];
    for (const { atS, lengthS } of pulses) {
      const from = context.currentTime + atS;
      const gain = context.createGain();
      gain.gain.setValueAtTime(0, from);
      gain.gain.linearRampToValueAtTime(LOUDNESS, from + EDGE_S);
      gain.gain.setValueAtTime(LOUDNESS, from + lengthS - EDGE_S);
      gain.gain.linearRampToValueAtTime(0, from + lengthS);
      const oscillator = context.createOscillator();
      oscillator.setPeriodicWave(this.wave);
      oscillator.frequency.value = hertz;
      oscillator.connect(gain).connect(context.destination);
      oscillator.start(from);
      oscillator.stop(from + lengthS);
    }
  }
}
