// The operators' page. Looks every second; a figure that stands still says so.
"use strict";

const LOOK_MS = 1000;
// After so long without an answer what is shown is old.
const STALE_MS = 5000;
const FIGURES_MAX = 5000;

const open = new Set();
const before = new Map();
let answeredMs = 0;
let failure = "";

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") node.className = value;
    else node.setAttribute(key, value);
  }
  fill(node, children);
  return node;
}

// Puts in place what there is; what is null is left out.
function fill(node, children) {
  node.replaceChildren(...children.filter((child) => child !== null && child !== undefined).map(asNode));
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

function badge(text, kind = "") {
  return element("span", { class: `badge ${kind}` }, text);
}

function count(number) {
  if (number === null || number === undefined) return "–";
  return number >= 1e15 ? number.toExponential(2) : number.toLocaleString("en-US");
}

function span(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 10_000) return `${(Math.max(ms, 0) / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} d`;
}

function bytes(number) {
  if (number === null || number === undefined) return "–";
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (number >= size) return `${(number / size).toFixed(1)} ${unit}`;
  }
  return `${number} B`;
}

// Per second since the last look.
function rate(key, number, nowMs) {
  // Flows that are gone leave their figures; some thousand of them are enough.
  if (before.size > FIGURES_MAX) before.clear();
  const last = before.get(key);
  before.set(key, [number, nowMs]);
  if (!last || nowMs <= last[1] || number === null || number < last[0]) return null;
  return ((number - last[0]) * 1000) / (nowMs - last[1]);
}

function rateText(key, number, nowMs) {
  const perSecond = rate(key, number, nowMs);
  return perSecond === null || perSecond < 0.5 ? "" : ` (${count(Math.round(perSecond))}/s)`;
}

function list(pairs) {
  return element("dl", {}, ...pairs.flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value)]));
}

function figure(number, label, kind = "", more = null) {
  return element("div", { class: `figure ${kind}` }, element("b", {}, number), element("span", {}, label), more);
}

// What a chain is whose blocks one party alone seals; nothing of others, and where it is not known.
function sealed(ledger) {
  if (ledger === null || ledger.sealers !== 1) return null;
  const title = "Whoever holds its key can rewrite it. Across institutions a ledger has four validators or more.";
  return element("span", { title }, "one party seals the ledger");
}

function table(heads, rows) {
  const cells = (tag, row) => row.map(([text, kind]) => element(tag, kind ? { class: kind } : {}, text));
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...cells("th", heads))),
    element("tbody", {}, ...rows.map(({ kind, cells: row }) => element("tr", kind ? { class: kind } : {}, ...cells("td", row))))));
}

function fields(match) {
  const entries = Object.entries(match);
  return entries.length === 0 ? "any" : entries.map(([key, value]) => `${key}=${value}`).join(", ");
}

function actions(flow) {
  const words = flow.actions.map((action) => {
    if ("output" in action) return `output ${action.output}`;
    if ("set_queue" in action) return `queue ${action.set_queue}`;
    if ("set_field" in action) return `set ${fields(action.set_field)}`;
    return Object.entries(action).map(([key, value]) => `${key} ${JSON.stringify(value)}`).join(" ");
  });
  for (const key of ["write_actions", "goto_table", "meter", "clear_actions", "write_metadata", "other_instruction"]) {
    if (key in flow) words.push(`${key.replace("_", " ")} ${JSON.stringify(flow[key])}`);
  }
  return words.length === 0 ? "drop" : words.join(", ");
}

function showSummary(state) {
  const switches = state.switches;
  const inSync = switches.filter((s) => s.reconcile.state === "in-sync").length;
  const refused = switches.reduce((sum, s) => sum + s.reconcile.refused.length, 0);
  const gateways = state.policy ? state.policy.gateways : [];
  const connected = gateways.filter((g) => g.connected).length;
  const refusing = gateways.filter((g) => g.verdict && g.verdict.refused).length;
  const dropped = switches.reduce((sum, s) => sum + s.dropped_packets, 0);
  const ledger = state.policy ? state.policy.ledger : null;
  document.getElementById("summary").replaceChildren(
    figure(`${inSync}/${switches.length}`, "switches in sync", switches.length === 0 ? "" : inSync === switches.length ? "good" : "warn"),
    figure(`${connected}/${gateways.length}`, "gateways connected", connected < gateways.length ? "warn" : connected > 0 ? "good" : ""),
    figure(count(refusing), "refuse their policy", refusing > 0 ? "bad" : ""),
    figure(count(state.quarantines), "quarantines", state.quarantines > 0 ? "warn" : ""),
    figure(count(dropped), "frames dropped by rule", dropped > 0 ? "warn" : ""),
    figure(count(refused), "intents refused", refused > 0 ? "bad" : ""),
    figure(ledger === null ? "off" : ledger.number === null ? "–" : count(ledger.number),
      ledger === null ? "no ledger configured" : ledger.state === "following" ? "ledger’s block" : `ledger ${ledger.state}`,
      ledger === null ? "" : ledger.state === "following" ? "good" : "bad", sealed(ledger)),
  );
}

function showGateways(state) {
  const target = document.getElementById("gateways");
  const gateways = state.policy ? state.policy.gateways : [];
  if (gateways.length === 0) {
    const why = state.policy ? "No gateway has come for policy yet." : "Policy delivery is not configured.";
    target.replaceChildren(element("p", { class: "empty card" }, why));
    return;
  }
  target.replaceChildren(...gateways.map((gateway) => {
    const age = gateway.policy_age_ms;
    const ageKind = age === null ? "" : age < 30_000 ? "good" : age < 600_000 ? "warn" : "bad";
    const verdict = gateway.verdict;
    return element("article", { class: "card" },
      element("div", { class: "row" }, element("h3", {}, gateway.name),
        badge(gateway.connected ? "connected" : "gone", gateway.connected ? "good" : "bad")),
      list([
        ["policy’s age", badge(span(age), ageKind)],
        ["epoch", verdict ? count(verdict.epoch) : "–"],
        ["verdict", verdict ? (verdict.refused ? badge(verdict.refused, "bad") : badge("accepted", "good")) : "–"],
        ["block", gateway.bundle ? `${count(gateway.bundle.number)} · ${bytes(gateway.bundle.bytes)}` : "–"],
        ["watches", `${gateway.watches.relationships} relationships, ${gateway.watches.bindings} devices`],
      ]));
  }));
}

function reconcileBadge(reconcile) {
  if (reconcile.state === "in-sync") return badge("in sync", "good");
  return reconcile.state === "busy" ? badge("being written", "warn") : badge(`${reconcile.differing} flows differ`, "bad");
}

function switchShell(target, id) {
  let shell = [...target.children].find((child) => child.dataset.id === id);
  if (!shell) {
    shell = element("details", { class: "panel" }, element("summary", {}), element("div", { class: "inside" }));
    shell.dataset.id = id;
    shell.open = open.has(id) || target.children.length === 0;
    if (shell.open) open.add(id);
    shell.addEventListener("toggle", () => (shell.open ? open.add(id) : open.delete(id)));
  }
  return shell;
}

function showSwitches(state, details) {
  const target = document.getElementById("switches");
  if (state.switches.length === 0) {
    target.replaceChildren(element("p", { class: "empty panel" }, "No switch is connected."));
    return;
  }
  if (target.firstElementChild && !target.firstElementChild.dataset.id) target.replaceChildren();
  const shells = state.switches.map((listed) => {
    const shell = switchShell(target, listed.datapath_id);
    const refused = listed.reconcile.refused.map((name) => badge(`refuses ${name}`, "bad"));
    fill(shell.firstElementChild, [
      element("h3", {}, listed.peer), element("span", { class: "quiet code" }, listed.datapath_id),
      reconcileBadge(listed.reconcile), ...refused,
      listed.dropped_packets > 0 ? badge(`${count(listed.dropped_packets)} dropped`, "bad") : null,
      element("span", { class: "quiet tail" },
        `${listed.flows} flows · ${listed.ports} ports · up ${span(state.now_ms - listed.since_ms)}` +
        (listed.last_echo_rtt_us === null ? "" : ` · echo ${(listed.last_echo_rtt_us / 1000).toFixed(1)} ms`)),
    ]);
    const detail = details.get(listed.datapath_id);
    if (detail) fill(shell.lastElementChild, switchDetail(listed, detail, state.now_ms));
    return shell;
  });
  const same = shells.length === target.children.length && shells.every((shell, at) => target.children[at] === shell);
  if (!same) target.replaceChildren(...shells);
}

function switchDetail(listed, detail, nowMs) {
  const id = listed.datapath_id;
  const flowRows = detail.flows.map((flow) => {
    const does = actions(flow);
    const what = flow.intent ? badge(flow.intent, does === "drop" ? "bad" : "good") : flow.own ? badge("own", "warn") : "";
    const key = `${id}/${flow.table}/${flow.priority}/${fields(flow.match)}`;
    return {
      kind: does === "drop" ? "drop" : "",
      cells: [[flow.table], [flow.priority], [fields(flow.match), "code"], [does, "code"], [what],
        [count(flow.packets) + rateText(key, flow.packets, nowMs), "number"], [bytes(flow.bytes), "number"]],
    };
  });
  const portRows = detail.ports.map((port) => ({
    cells: [[port.port], [port.name], [badge(port.up ? "up" : "down", port.up ? "good" : "bad")],
      [count(port.rx_packets) + rateText(`${id}/rx/${port.port}`, port.rx_packets, nowMs), "number"],
      [count(port.tx_packets) + rateText(`${id}/tx/${port.port}`, port.tx_packets, nowMs), "number"],
      [count(port.rx_dropped), "number"], [count(port.rx_errors), "number"]],
  }));
  const tableRows = detail.tables.map((entry) => ({
    cells: [[entry.table], [count(entry.active), "number"], [count(entry.lookups), "number"],
      [count(entry.matched), "number"], [count(Math.max(entry.lookups - entry.matched, 0)), "number"]],
  }));
  const missing = detail.total - detail.flows.length;
  return [
    element("h4", {}, "Flows"),
    flowRows.length === 0 ? element("p", { class: "quiet" }, "none: the switch forwards as it would alone")
      : table([["table"], ["priority"], ["match"], ["does"], ["intent"], ["frames", "number"], ["bytes", "number"]], flowRows),
    missing > 0 ? element("p", { class: "quiet" }, `and ${count(missing)} more of others`) : null,
    element("h4", {}, "Ports"),
    table([["port"], ["name"], [""], ["frames in", "number"], ["frames out", "number"], ["dropped in", "number"], ["errors in", "number"]], portRows),
    element("h4", {}, "Tables"),
    table([["table"], ["flows", "number"], ["looked up", "number"], ["matched", "number"], ["missed", "number"]], tableRows),
  ];
}

function showIntents(state) {
  const target = document.getElementById("intents");
  if (state.intents.length === 0) {
    target.replaceChildren(element("p", { class: "empty panel" }, "Nothing is asked of the switches."));
    return;
  }
  const kinds = { confirmed: "good", pending: "warn", refused: "bad", absent: "" };
  target.replaceChildren(...state.intents.map(({ name, intent, switches }) => {
    const what = intent.kind === "lane"
      ? `${intent.lane} → DSCP ${intent.dscp}${intent.queue === undefined ? "" : `, queue ${intent.queue}`}`
      : `${intent.mac} on ${intent.switch}`;
    const states = switches.map((entry) => badge(
      `${entry.switch.replace(/^0+/, "") || "0"}: ${entry.error ? entry.error.code_name : entry.state}`, kinds[entry.state]));
    return element("article", { class: "panel intent" },
      element("div", { class: "row" }, element("strong", {}, name), badge(intent.kind, intent.kind === "quarantine" ? "bad" : "")),
      element("div", { class: "row" }, element("span", { class: "quiet" }, what), element("span", {}, ...states)));
  }));
}

function showEvents(state) {
  const loud = new Set(["switch-gone", "drift", "rule-refused", "diverged", "gateway-gone"]);
  const events = [...state.events].reverse();
  document.getElementById("events").replaceChildren(...(events.length === 0
    ? [element("li", { class: "empty" }, "Nothing yet.")]
    : events.map((event) => element("li", {},
      element("time", { datetime: new Date(event.at_ms).toISOString() }, new Date(event.at_ms).toLocaleTimeString("en-GB")),
      element("p", {}, badge(event.kind.replaceAll("-", " "), loud.has(event.kind) ? "bad" : ""), " ", element("strong", {}, event.subject), " ", event.detail)))));
}

function showFreshness() {
  const node = document.getElementById("fresh");
  const age = performance.now() - answeredMs;
  const stale = answeredMs === 0 ? failure !== "" : age > STALE_MS;
  node.classList.toggle("stale", stale);
  if (answeredMs === 0) node.textContent = failure || "connecting…";
  else node.textContent = stale ? `no answer for ${span(age)}: what you see is old` : `live · ${new Date().toLocaleTimeString("en-GB")}`;
}

async function fetchJson(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(STALE_MS) });
  if (response.status === 404) return null;
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

async function look() {
  try {
    const state = await fetchJson("/api/state");
    for (const known of open) {
      if (!state.switches.some((listed) => listed.datapath_id === known)) open.delete(known);
    }
    // Before the first look none is open; the first switch opens itself.
    if (open.size === 0 && before.size === 0 && state.switches.length > 0) open.add(state.switches[0].datapath_id);
    const details = new Map(await Promise.all(
      [...open].map(async (id) => [id, await fetchJson(`/api/switches/${id}`)])));
    showSummary(state);
    showGateways(state);
    showSwitches(state, details);
    showIntents(state);
    showEvents(state);
    answeredMs = performance.now();
    failure = "";
  } catch (error) {
    failure = "the controller does not answer";
    console.warn(error);
  }
  showFreshness();
  setTimeout(look, LOOK_MS);
}

setInterval(showFreshness, LOOK_MS);
look();
