/** A bed's alarms, its score, and what staff do about them. */
import { useState } from "preact/hooks";
import { clockText } from "../model/access";
import { PAUSE_S, limitsOf } from "../model/command";
import type { Action, CommandAnswer } from "../model/command";
import { CONSCIOUSNESS } from "../model/protocol";
import type { AlarmEntry, LimitsEntry, ScoreEntry, Standing } from "../model/protocol";
import type { Bed } from "../model/ward";

export type Send = (patient: string, action: Action) => Promise<CommandAnswer>;

/** In a tile; an opened bed shows all. */
const ALARMS_IN_TILE = 3;

const REFUSALS = {
  category_unknown: "NEWS2: say who it is",
  not_adult: "NEWS2: not below 16 years",
  pregnant: "NEWS2: not in pregnancy",
} as const;

function Score({ score }: { readonly score: ScoreEntry }) {
  if (score.is === "refused") return <span class="score dim">{REFUSALS[score.why]}</span>;
  const partial = score.missing.length > 0;
  const level = score.total >= 7 ? "high" : score.total >= 5 ? "medium" : "none";
  return (
    <span class={`score score-${level}`} title={partial ? `Missing: ${score.missing.join(", ")}` : "All seven parameters"}>
      NEWS2 {partial ? "≥ " : ""}
      <strong>{score.total}</strong>
      {partial && " partial"}
    </span>
  );
}

function Alarm({ alarm }: { readonly alarm: AlarmEntry }) {
  return (
    <li class={`alarm alarm-${alarm.priority} is-${alarm.state}`} title={`since ${clockText(alarm.sinceMs)}`}>
      {alarm.text}
      {alarm.state === "latched" && <span class="alarm-state"> (over)</span>}
      {alarm.state === "acknowledged" && <span class="alarm-state"> ✓</span>}
    </li>
  );
}

interface BarProps {
  readonly bed: Bed;
  readonly opened: boolean;
  readonly feedNowMs: number;
  readonly send: Send;
}

export function AlarmBar({ bed, opened, feedNowMs, send }: BarProps) {
  const [said, setSaid] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const { standing } = bed;
  const tell = async (action: Action): Promise<void> => {
    setBusy(true);
    setSaid(null);
    const answer = await send(bed.patient, action);
    setBusy(false);
    setSaid(answer.is === "done" ? null : answer.why);
  };
  const silent = bed.heard === false;
  const policy = bed.policy;
  if (standing === null && !silent && policy?.stale !== true) return null;
  const alarms = standing?.alarms ?? [];
  const open = alarms.filter((alarm) => alarm.state !== "acknowledged");
  const shown = opened ? alarms : alarms.slice(0, ALARMS_IN_TILE);
  const paused = standing?.pausedUntilMs ?? null;
  return (
    <section class="alarms" aria-label="Alarms">
      {silent && (
        <strong class="bed-no-contact" role="alert">
          NO CONTACT with the gateway: alarms there can't be seen here
        </strong>
      )}
      {policy?.stale === true && (
        <strong class="bed-policy-stale" role="status" title="What the patient has granted or revoked since is not known there">
          {policy.clockUnknown
            ? "CONSENT NOT KNOWN: the gateway's clock was set back; nothing more comes until it hears of the ledger"
            : "CONSENT OLD: the gateway hears nothing of the ledger; nobody new comes in, and access ends by its own bounds"}
        </strong>
      )}
      <ul class="alarm-list" role="alert">
        {shown.map((alarm) => (
          <Alarm key={alarm.number} alarm={alarm} />
        ))}
        {alarms.length > shown.length && <li class="dim">{alarms.length - shown.length} more</li>}
      </ul>
      {paused !== null && paused > feedNowMs && <strong class="alarm-paused">TONES PAUSED until {clockText(paused)}</strong>}
      {standing?.provisional === true && (
        <span class="dim" title="Shown before the core has stored it">
          not stored yet
        </span>
      )}
      {standing !== null && <Score score={standing.score} />}
      <span class="alarm-buttons">
        {open.length > 0 && (
          <button type="button" disabled={busy} onClick={() => void tell({ acknowledge: { alarms: open.map((alarm) => alarm.number) } })}>
            Acknowledge
          </button>
        )}
        {opened && standing !== null && (
          <button type="button" disabled={busy} onClick={() => void tell({ pause: { seconds: paused === null ? PAUSE_S : 0 } })}>
            {paused === null ? "Pause tones" : "End pause"}
          </button>
        )}
      </span>
      {said !== null && (
        <span class="refusal" role="alert">
          {said}
        </span>
      )}
      {opened && standing !== null && <Entries standing={standing} busy={busy} tell={(action) => void tell(action)} setSaid={setSaid} />}
    </section>
  );
}

interface EntriesProps {
  readonly standing: Standing;
  readonly busy: boolean;
  readonly tell: (action: Action) => void;
  readonly setSaid: (said: string) => void;
}

/** What people enter, and limits; of an opened bed alone. */
function Entries({ standing, busy, tell, setSaid }: EntriesProps) {
  return (
    <div class="entries">
      <label>
        Air or oxygen
        <select
          disabled={busy}
          value={standing.oxygen === null ? "" : String(standing.oxygen)}
          onChange={(event) => tell({ oxygen: { given: event.currentTarget.value === "true" } })}
        >
          {standing.oxygen === null && <option value="">not entered</option>}
          <option value="false">air</option>
          <option value="true">oxygen</option>
        </select>
      </label>
      <label>
        Consciousness
        <select
          disabled={busy}
          value={standing.consciousness ?? ""}
          onChange={(event) => {
            const found = CONSCIOUSNESS.find((word) => word === event.currentTarget.value);
            if (found !== undefined) tell({ consciousness: { found } });
          }}
        >
          {standing.consciousness === null && <option value="">not entered</option>}
          {CONSCIOUSNESS.map((word) => (
            <option key={word} value={word}>
              {word}
            </option>
          ))}
        </select>
      </label>
      {standing.limits.map((entry) => (
        <LimitsRow key={entry.quantity} entry={entry} busy={busy} tell={tell} setSaid={setSaid} />
      ))}
    </div>
  );
}

function LimitsRow({ entry, busy, tell, setSaid }: Omit<EntriesProps, "standing"> & { readonly entry: LimitsEntry }) {
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    if (!(event.currentTarget instanceof HTMLFormElement)) return;
    const data = new FormData(event.currentTarget);
    const limits = limitsOf(entry, String(data.get("low") ?? ""), String(data.get("high") ?? ""));
    if (typeof limits === "string") setSaid(limits);
    else tell({ limits: { quantity: entry.quantity, limits } });
  };
  return (
    <form class="limits" onSubmit={(event) => submit(event as unknown as SubmitEvent)} autocomplete="off">
      <span>
        {entry.display} <span class="dim">{entry.unit}</span>
      </span>
      <input name="low" inputMode="decimal" aria-label={`${entry.display}: lower limit`} defaultValue={entry.low === null ? "" : String(entry.low)} />
      <input name="high" inputMode="decimal" aria-label={`${entry.display}: upper limit`} defaultValue={entry.high === null ? "" : String(entry.high)} />
      <button type="submit" disabled={busy}>
        Set
      </button>
    </form>
  );
}
