/** Hands policy to a gateway by way of the core, where its controller can't be reached. */
import { useEffect, useState } from "preact/hooks";
import { NO_ANSWER, POLICY_KINDS, fileFault, policyText } from "../model/policy";
import type { PolicyKind, PolicyState } from "../model/policy";
import type { Client } from "../shell/client";

/** The gateways that the feed knows; null until it has said so. */
export function useGateways(client: Client): readonly string[] | null {
  const [gateways, setGateways] = useState<readonly string[] | null>(null);
  useEffect(() => {
    let wanted = true;
    void client.gateways().then((names) => {
      if (wanted) setGateways(names);
    });
    return () => {
      wanted = false;
    };
  }, [client]);
  return gateways;
}

interface Handed {
  readonly gateway: string;
  readonly state: PolicyState;
}

function tone(state: PolicyState): string {
  if (state.is === "in_force") return "policy-state is-in-force";
  return state.is === "sending" ? "policy-state dim" : "policy-state refusal";
}

export function PolicyPanel({ client, close }: { readonly client: Client; readonly close: () => void }) {
  const gateways = useGateways(client);
  const [fault, setFault] = useState<string | null>(null);
  const [handed, setHanded] = useState<Handed | null>(null);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    if (handed?.state.is === "sending" || !(event.currentTarget instanceof HTMLFormElement)) return;
    const data = new FormData(event.currentTarget);
    const kind: PolicyKind = POLICY_KINDS.find(([name]) => name === data.get("kind"))?.[0] ?? "revocation";
    const [gateway, file] = [String(data.get("gateway") ?? ""), data.get("file")];
    const wrong = fileFault(kind, file instanceof File ? file.size : 0);
    setFault(wrong);
    if (wrong !== null || !(file instanceof File)) return;
    setHanded({ gateway, state: { is: "sending" } });
    const bytes = await file.arrayBuffer().catch(() => null);
    setHanded({ gateway, state: bytes === null ? NO_ANSWER : await client.handIn(kind, gateway, bytes) });
  };
  return (
    <section class="panel policy" role="dialog" aria-label="Hand in policy">
      <header class="panel-head">
        <h2>Hand in policy</h2>
        <button type="button" class="panel-close" onClick={close} aria-label="Close">
          ×
        </button>
      </header>
      <form class="panel-body" onSubmit={(event) => void submit(event as unknown as SubmitEvent)} noValidate>
        <p class="dim">
          Straight to a gateway by way of the core, where its controller or the ledger can't be reached. The file carries its own authority; the core
          can't read it, and the gateway answers for itself.
        </p>
        <label>
          Gateway
          <select name="gateway" disabled={gateways === null || gateways.length === 0}>
            {(gateways ?? []).map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        {gateways?.length === 0 && <p class="refusal">The feed names no gateway.</p>}
        <label>
          What
          <select name="kind">
            {POLICY_KINDS.map(([name, text]) => (
              <option key={name} value={name}>
                {text}
              </option>
            ))}
          </select>
        </label>
        <label>
          File
          <input name="file" type="file" />
        </label>
        <p class="refusal" role="alert">
          {fault}
        </p>
        {handed !== null && (
          <p class={tone(handed.state)} role="status">
            {policyText(handed.state, handed.gateway)}
          </p>
        )}
        <p class="panel-buttons">
          <button type="submit" class="primary" disabled={handed?.state.is === "sending" || (gateways ?? []).length === 0}>
            {handed?.state.is === "sending" ? "Waiting for the gateway…" : "Hand in"}
          </button>
          <button type="button" onClick={close}>
            Close
          </button>
        </p>
      </form>
    </section>
  );
}
