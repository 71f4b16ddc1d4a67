/** The break-glass form. */
import { useState } from "preact/hooks";
import { clockText } from "../model/access";
import { MINUTES_MAX, MINUTES_USUAL, REASON_CHARS_MIN, faultOf } from "../model/emergency";
import type { EmergencyRequest } from "../model/emergency";
import type { Client } from "../shell/client";
import { useGateways } from "./policy";

export interface EmergencyProps {
  readonly client: Client;
  readonly close: () => void;
  readonly user: string;
  /** Whether the ledger says that this hospital may not. */
  readonly refused: boolean;
}

function requestOf(form: HTMLFormElement): EmergencyRequest {
  const data = new FormData(form);
  const text = (name: string): string => String(data.get(name) ?? "");
  return {
    pseudonym: text("pseudonym"),
    reason: text("reason"),
    minutes: Number(text("minutes")),
    confirm: data.get("confirm") !== null,
    gateway: text("gateway") === "" ? null : text("gateway"),
  };
}

function Opened({ untilMs, close }: { readonly untilMs: number; readonly close: () => void }) {
  return (
    <div class="panel-body">
      <p role="status">
        <strong>Emergency access is open until {clockText(untilMs)}.</strong> The patient's tile comes with the first readings, within seconds
        where the patient's gateway is connected.
      </p>
      <p class="panel-buttons">
        <button type="button" class="primary" onClick={close}>
          Close
        </button>
      </p>
    </div>
  );
}

/** Which way it goes: by the ledger, or straight to a gateway where ledger or controller can't be reached. */
function Way({ client, way, setWay }: { readonly client: Client; readonly way: string; readonly setWay: (way: string) => void }) {
  const gateways = useGateways(client) ?? [];
  const away = client.ward.ledger?.state === "away";
  if (gateways.length === 0) return null;
  return (
    <>
      <label>
        By
        <select name="gateway" value={way} onChange={(event) => setWay(event.currentTarget.value)}>
          <option value="">the ledger, and from there to the patient's gateway</option>
          {gateways.map((name) => (
            <option key={name} value={name}>
              the core, straight to {name}
            </option>
          ))}
        </select>
      </label>
      {away && way === "" && (
        <p class="refusal" role="status">
          The ledger can't be reached. If you know the patient's gateway, go straight to it.
        </p>
      )}
      {way !== "" && <p class="dim">It holds there at once, without ledger and controller, if that gateway is the patient's; the ledger gets it later.</p>}
    </>
  );
}

export function Emergency({ client, close, user, refused }: EmergencyProps) {
  const [way, setWay] = useState("");
  const [fault, setFault] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [untilMs, setUntil] = useState<number | null>(null);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    if (busy || !(event.currentTarget instanceof HTMLFormElement)) return;
    const request = requestOf(event.currentTarget);
    const wrong = faultOf(request);
    setFault(wrong);
    if (wrong !== null) return;
    setBusy(true);
    const answer = await client.openEmergency(request);
    setBusy(false);
    if (answer.is === "opened") setUntil(answer.untilMs);
    else setFault(answer.why);
  };
  return (
    <section class="panel emergency" role="dialog" aria-modal="true" aria-label="Emergency access">
      <header class="panel-head">
        <h2>Emergency access</h2>
        <button type="button" class="panel-close" onClick={close} aria-label="Close">
          ×
        </button>
      </header>
      {untilMs !== null ? (
        <Opened untilMs={untilMs} close={close} />
      ) : (
        <form class="panel-body" onSubmit={(event) => void submit(event as unknown as SubmitEvent)} noValidate autocomplete="off">
          <p class="emergency-warning">
            This opens a patient's live readings without their consent. <strong>The patient sees it at once</strong>: this hospital and the time.
            Your name ({user}) and the reason are kept here for review, and committed to on the ledger.
          </p>
          {refused && <p class="refusal">The ledger does not list this hospital for emergencies; it will refuse.</p>}
          <label>
            Pseudonym on the patient's card
            <textarea name="pseudonym" rows={2} spellcheck={false} autofocus />
          </label>
          <label>
            Reason, at least {REASON_CHARS_MIN} characters
            <textarea name="reason" rows={3} maxLength={1000} />
          </label>
          <label>
            Minutes, at most {MINUTES_MAX}
            <input name="minutes" type="number" min={1} max={MINUTES_MAX} defaultValue={String(MINUTES_USUAL)} />
          </label>
          <Way client={client} way={way} setWay={setWay} />
          <label class="check">
            <input name="confirm" type="checkbox" /> It is an emergency, and I know that the patient will see this.
          </label>
          <p class="refusal" role="alert">
            {fault}
          </p>
          <p class="panel-buttons">
            <button type="submit" class="primary danger" disabled={busy}>
              {busy ? (way === "" ? "Asking the ledger…" : `Waiting for ${way}…`) : "Break the glass"}
            </button>
            <button type="button" onClick={close}>
              Cancel
            </button>
          </p>
        </form>
      )}
    </section>
  );
}
