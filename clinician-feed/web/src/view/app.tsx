/** The page: login, or the header with the state of the data path above the grid of beds. */
import { useEffect, useState } from "preact/hooks";
import { whenText } from "../model/access";
import { NO_CONTACT_MS } from "../model/connection";
import { LOST_MS, printAge } from "../model/numeric";
import { clockMs } from "../shell/client";
import type { Client } from "../shell/client";
import { AuditPanel } from "./audit";
import { Emergency } from "./emergency";
import { second, useWatched } from "./frames";
import { HistoryPanel } from "./history";
import { Login } from "./login";
import { PolicyPanel } from "./policy";
import { Tile } from "./tile";

function linkText(client: Client): { text: string; state: "live" | "lost" } {
  if (!client.isOpen) return { text: "reconnecting", state: "lost" };
  if (!client.ward.coreUp) return { text: "core link down", state: "lost" };
  if (client.ward.beds.size > 0 && clockMs() - client.ward.liveMs > LOST_MS) return { text: "no live readings", state: "lost" };
  return { text: "live", state: "live" };
}

type Panel = "emergency" | "audit" | "history" | "policy";

/** Only what is not as it should be. */
function LedgerState({ client }: { readonly client: Client }) {
  const { ledger } = client.ward;
  if (ledger === null || ledger.state === "following") return null;
  const since = ledger.sinceMs === null ? "" : ` since ${whenText(ledger.sinceMs, client.ward.feedNowMs(clockMs()))}`;
  return (
    <span class="warn" role="status" title="What access rests on may have changed meanwhile">
      {ledger.state === "away" ? `ledger unreachable${since}` : "reading the ledger"}
    </span>
  );
}

function Header({ client, show }: { readonly client: Client; readonly show: (panel: Panel) => void }) {
  const { ward } = client;
  const link = linkText(client);
  // What the last readings took says nothing of now once none comes.
  const median = link.state === "live" ? ward.delays.median() : null;
  const refused = [...ward.refused.values()].reduce((sum, count) => sum + count, 0);
  const reasons = [...ward.refused].map(([reason, count]) => `${reason}: ${count}`).join(", ");
  return (
    <header class="top">
      <h1>
        <img src="/favicon.svg" alt="" width="22" height="22" /> <span>Caregate</span>
      </h1>
      <span class={`link link-${link.state}`} role="status">
        {link.text}
      </span>
      <span class="top-delay" title="Median of the last readings, from measurement to this page">
        delay <strong>{median === null ? "–" : `${Math.round(median)} ms`}</strong>
      </span>
      {ward.missed > 0 && (
        <span class="warn" title="Readings that the feed no longer held when the page returned">
          {ward.missed} missed
        </span>
      )}
      {refused > 0 && (
        <span class="warn" title={reasons}>
          {refused} refused
        </span>
      )}
      {client.tones.isSilent && (
        <span class="warn" role="status" title="A browser plays nothing before somebody has touched the page">
          tones off: touch the page
        </span>
      )}
      <LedgerState client={client} />
      {[...ward.beds.values()].some((bed) => bed.policy?.oneSealer === true) && (
        <span class="dim" title="Whoever holds its key can rewrite it. Across institutions a ledger has four validators or more.">
          one party seals the ledger
        </span>
      )}
      <span class="spring" />
      {ward.ledger !== null && ward.ledger.breakGlass !== "no_key" && (
        <button type="button" class="logout danger" onClick={() => show("emergency")}>
          Emergency access
        </button>
      )}
      {(ward.ledger !== null || ward.audit.length > 0) && (
        <button type="button" class="logout" onClick={() => show("audit")}>
          Journal
        </button>
      )}
      {ward.beds.size > 0 && (
        <button type="button" class="logout" onClick={() => show("history")}>
          History
        </button>
      )}
      <button type="button" class="logout" title="Hands policy to a gateway whose controller can't be reached" onClick={() => show("policy")}>
        Policy
      </button>
      <button type="button" class="logout" title="Plays the tones of a medium alarm" onClick={() => client.tones.play("medium")}>
        Speaker test
      </button>
      <time class="top-clock">{new Date(ward.feedNowMs(clockMs())).toLocaleTimeString("en-GB")}</time>
      <span class="who" title="Logged in">
        {client.user}
      </span>
      <button type="button" class="logout" onClick={() => void client.logout()}>
        Log out
      </button>
    </header>
  );
}

function NoContact({ client, lostForMs }: { readonly client: Client; readonly lostForMs: number }) {
  const why = client.isOpen ? "the feed has lost the core" : "the page has lost the feed";
  return (
    <div class="no-contact" role="alert">
      <strong>NO CONTACT</strong> for {printAge(lostForMs)}: {why}. What is shown is not the present.
    </div>
  );
}

/** Shape of the grid: beds stacked, in two columns, or in low strips as on a central station. */
function gridClass(beds: number): string {
  if (beds <= 1) return "beds-one";
  if (beds === 2) return "beds-stacked";
  if (beds <= 4) return "beds-halves";
  return beds <= 8 ? "beds-low" : "beds-strips";
}

export function App({ client }: { readonly client: Client }) {
  const [openedPatient, setOpened] = useState<string | null>(null);
  const [panel, setPanel] = useState<Panel | null>(null);
  useWatched(() => `${client.ward.revision}:${client.isOpen}:${client.needsLogin}:${client.ward.beds.size}:${second()}`);
  useEffect(() => {
    const close = (event: KeyboardEvent): void => {
      if (event.key !== "Escape") return;
      setOpened(null);
      setPanel(null);
    };
    window.addEventListener("keydown", close);
    return () => {
      window.removeEventListener("keydown", close);
    };
  }, []);
  if (client.needsLogin) return <Login login={(user, password) => client.login(user, password)} />;
  if (client.user === null) return <main class="waiting">Connecting to the feed…</main>;
  const { ward } = client;
  const lostForMs = client.contact.lostForMs(clockMs());
  const all = [...ward.beds.values()];
  const openedBed = openedPatient === null ? undefined : ward.beds.get(openedPatient);
  const beds = openedBed === undefined ? all : [openedBed];
  return (
    <>
      <Header client={client} show={setPanel} />
      {panel === "emergency" && (
        <Emergency
          client={client}
          close={() => setPanel(null)}
          user={client.user}
          refused={ward.ledger?.breakGlass === "refused"}
        />
      )}
      {panel === "history" && <HistoryPanel client={client} patient={openedPatient} close={() => setPanel(null)} />}
      {panel === "policy" && <PolicyPanel client={client} close={() => setPanel(null)} />}
      {panel === "audit" && <AuditPanel ward={ward} feedNowMs={ward.feedNowMs(clockMs())} close={() => setPanel(null)} />}
      {lostForMs >= NO_CONTACT_MS && <NoContact client={client} lostForMs={lostForMs} />}
      <main class={`beds ${gridClass(beds.length)}${lostForMs >= NO_CONTACT_MS ? " is-out" : ""}`}>
        {beds.map((bed) => (
          <Tile
            key={bed.patient}
            bed={bed}
            ward={ward}
            opened={openedBed !== undefined}
            send={(patient, action) => client.command(patient, action)}
            toggle={() => {
              setOpened(openedBed === undefined ? bed.patient : null);
            }}
          />
        ))}
        {beds.length === 0 && <p class="beds-none">No beds yet. The feed lists none and no reading has come.</p>}
      </main>
    </>
  );
}
