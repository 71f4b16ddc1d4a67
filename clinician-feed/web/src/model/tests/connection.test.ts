import { describe, expect, it } from "vitest";
import { ATTEMPT_MS_MAX, BACKOFF_MS_MAX, BACKOFF_MS_MIN, Contact, INITIAL, SILENCE_MS_MAX, backoffMs, next } from "../connection";
import type { Action, Event, State } from "../connection";
import { T0 } from "./frames";

/** Plays events at times; answers the state and all actions. */
function play(script: readonly (readonly [Event["is"], number])[], from: State = INITIAL): { state: State; actions: Action[] } {
  let state = from;
  const actions: Action[] = [];
  for (const [is, nowMs] of script) {
    const outcome = next(state, { is }, nowMs, 0);
    state = outcome.state;
    actions.push(...outcome.actions);
  }
  return { state, actions };
}

const OPENED = [
  ["start", T0],
  ["sessionHeld", T0 + 10],
  ["opened", T0 + 20],
] as const;

describe("backoffMs", () => {
  it("doubles from 250 ms to 5 s, half of it by lot, never below the least", () => {
    expect([0, 1, 2, 3, 4, 5, 50].map((attempt) => backoffMs(attempt, 0.999_999))).toEqual(
      [250, 500, 1000, 2000, 4000, 5000, 5000].map((ms) => expect.closeTo(ms, 1)),
    );
    expect([0, 1, 4, 9].map((attempt) => backoffMs(attempt, 0))).toEqual([250, 250, 2000, 2500]);
    for (let attempt = 0; attempt < 100; attempt += 1) {
      const pause = backoffMs(attempt, (attempt * 0.37) % 1);
      expect(pause).toBeGreaterThanOrEqual(BACKOFF_MS_MIN);
      expect(pause).toBeLessThanOrEqual(BACKOFF_MS_MAX);
    }
  });
});

describe("next", () => {
  it("asks for the session, connects, opens", () => {
    expect(play(OPENED)).toMatchObject({ state: { at: "open" }, actions: ["checkSession", "connect"] });
  });

  it("shows the login without a session and connects after it", () => {
    const { state, actions } = play([["start", T0], ["sessionRefused", T0 + 5]]);
    expect(actions).toEqual(["checkSession", "drop", "showLogin"]);
    expect(play([["loggedIn", T0 + 900], ["opened", T0 + 910]], state)).toMatchObject({ state: { at: "open" }, actions: ["connect"] });
  });

  it("waits longer each time the feed is not there, and asks for the session before each attempt", () => {
    let { state } = play(OPENED);
    let nowMs = T0 + 100;
    const pauses: number[] = [];
    state = next(state, { is: "closed" }, nowMs, 0.999_999).state;
    for (let attempt = 0; attempt < 7; attempt += 1) {
      if (state.at !== "waiting") throw new Error(state.at);
      pauses.push(Math.round(state.untilMs - nowMs));
      expect(next(state, { is: "tick" }, state.untilMs - 1, 0)).toEqual({ state, actions: [] });
      nowMs = state.untilMs;
      const checking = next(state, { is: "tick" }, nowMs, 0);
      expect(checking.actions).toEqual(["checkSession"]);
      state = next(checking.state, { is: "sessionUnknown" }, nowMs, 0.999_999).state;
    }
    expect(pauses).toEqual([250, 500, 1000, 2000, 4000, 5000, 5000]);
  });

  it("keeps the long pause for a feed that closes at once, and forgets it after a stable connection", () => {
    const attempt = 5;
    const unstable = play([["sessionHeld", T0], ["opened", T0], ["closed", T0 + 100]], { at: "checking", sinceMs: T0, attempt });
    expect(unstable.state).toMatchObject({ at: "waiting", attempt: attempt + 1 });
    const stable = play([["sessionHeld", T0], ["opened", T0], ["closed", T0 + 6_000]], { at: "checking", sinceMs: T0, attempt });
    expect(stable.state).toMatchObject({ at: "waiting", attempt: 1 });
  });

  it("gives up an attempt that hangs", () => {
    const checking = play([["start", T0], ["tick", T0 + ATTEMPT_MS_MAX]]);
    expect(checking).toMatchObject({ state: { at: "waiting" }, actions: ["checkSession", "drop"] });
    const connecting = play([["start", T0], ["sessionHeld", T0], ["tick", T0 + ATTEMPT_MS_MAX]]);
    expect(connecting).toMatchObject({ state: { at: "waiting" }, actions: ["checkSession", "connect", "drop"] });
  });

  it("probes a silent socket once, and drops it when nobody answers", () => {
    const silent = [...OPENED, ["tick", T0 + 20 + SILENCE_MS_MAX], ["tick", T0 + 200 + SILENCE_MS_MAX]] as const;
    const { state, actions } = play(silent);
    expect(actions).toEqual(["checkSession", "connect", "checkSession"]);
    expect(play([["sessionUnknown", T0 + 15_000]], state)).toMatchObject({ state: { at: "waiting" }, actions: ["drop"] });
    expect(play([["sessionHeld", T0 + 15_000]], state)).toMatchObject({ state: { at: "open", probing: false }, actions: [] });
    expect(play([["sessionRefused", T0 + 15_000]], state)).toMatchObject({ state: { at: "loggedOut" }, actions: ["drop", "showLogin"] });
    expect(play([["heard", T0 + 15_000], ["tick", T0 + 24_000]], state).actions).toEqual([]);
  });

  it("goes to the login from every state that has a session, and ignores what comes late", () => {
    const states: State[] = [
      { at: "checking", sinceMs: T0, attempt: 1 },
      { at: "connecting", sinceMs: T0, attempt: 1 },
      { at: "open", sinceMs: T0, attempt: 0, heardMs: T0, probing: false },
      { at: "waiting", untilMs: T0 + 500, attempt: 1 },
    ];
    for (const state of states) expect(play([["loggedOut", T0 + 1]], state)).toMatchObject({ state: INITIAL, actions: ["drop", "showLogin"] });
    for (const is of ["opened", "closed", "heard", "sessionHeld", "sessionRefused", "tick"] as const) {
      expect(play([[is, T0 + 9]])).toEqual({ state: INITIAL, actions: [] });
    }
    const waiting: State = { at: "waiting", untilMs: T0 + 500, attempt: 1 };
    expect(play([["sessionHeld", T0 + 9], ["closed", T0 + 9]], waiting)).toEqual({ state: waiting, actions: [] });
  });
});

describe("Contact", () => {
  it("counts from the first loss, whichever link it was, until both are up", () => {
    const contact = new Contact();
    contact.observe(T0, true, true);
    expect(contact.lostForMs(T0 + 50)).toBe(0);
    contact.observe(T0 + 100, true, false);
    contact.observe(T0 + 4_000, false, false);
    contact.observe(T0 + 8_000, false, true);
    expect(contact.lostForMs(T0 + 10_100)).toBe(10_000);
    contact.observe(T0 + 10_200, true, true);
    expect(contact.lostForMs(T0 + 10_300)).toBe(0);
  });
});
