// The patient's page. Plain script, no library: it asks the gateway every 1.5 seconds and shows what it says.
// Everything shown is set as text; nothing that came over the network becomes markup.
'use strict';

const EVERY_MS = 1500;
// The trail and the inventory change seldom: with each third look.
const SELDOM = 3;

const CLASSES = {
  alarm: 'Alarms: limits with their values, early-warning score, falls, call button',
  vitals: 'Vital signs: pulse, oxygen, blood pressure',
  waveform: 'Curves: ECG, pulse wave',
  activity: 'Movement and steps',
  sensitive: 'Weight and glucose, and what you keep as closely',
};
const STATUS = {
  open: ['May see it now', 'good'],
  waiting: ['Not yet', 'warn'],
  expired: ['Time is over', ''],
  suspended: ['Stopped: no longer a registered participant', 'warn'],
  paused: ['Paused: no fresh word from the ledger', 'warn'],
  revoked: ['Ended by you', ''],
  none: ['No access', ''],
};
const MEANS = {
  arp: 'ARP', nd: 'IPv6', dhcp: 'DHCP', dhcpv6: 'DHCPv6', mdns: 'mDNS', lldp: 'LLDP', eapol: '802.1X', ip: 'traffic', other: 'other',
};

// What can be handed in, by the first byte of the file: the CBOR list that it is, which tells them apart.
const OFFERS = {
  0x83: ['/policy/revocation', 'revocation'],
  0x86: ['/policy/bundle', 'policy'],
  0x87: ['/policy/bundle', 'policy'],
  0x88: ['/policy/emergency', 'emergency request'],
};
// As the box takes a policy; all else is shorter.
const OFFER_BYTES_MAX = 1048576;
// A policy of full size over a bad link, and its check.
const OFFER_MS = 15000;
const WHY = {
  not_pinned: 'it is not about anybody at this box',
  revocation_signature: 'it is not signed with a key that may end this access',
  emergency_stranger: 'whoever signed it may not use emergency access',
  emergency_signature: 'it is not signed by who it says it is',
  emergency_not_now: 'it is for another time',
  emergency_too_long: 'it is for more than four hours',
  emergency_number: 'it was used before, or a newer one was',
  clock_behind: 'the clock of this box was set back',
  other_chain: 'it is of another ledger',
  other_contract: 'it is of another ledger',
  header_older: 'the box knows a newer one',
};

const byId = (id) => document.getElementById(id);
const shown = new Map();
let looks = 0;
let timer;
let asking = null;

function make(tag, classes, ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ''));
  return element;
}

// Puts new content in place only where what it shows has changed, so that a button stays under the finger.
function show(id, facts, build) {
  const key = JSON.stringify(facts);
  if (shown.get(id) === key) return;
  shown.set(id, key);
  byId(id).replaceChildren(...build());
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

function at(seconds) {
  const date = new Date(seconds * 1000);
  const element = make('time', '', date.toDateString() === new Date().toDateString() ? clock.format(date) : day.format(date));
  element.dateTime = date.toISOString();
  return element;
}

function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return `${whole} s`;
  if (whole < 90 * 60) return `${Math.round(whole / 60)} min`;
  if (whole < 36 * 3600) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86400)} days`;
}

// Coarse, so that a list is not built anew with each second.
function ago(now, seconds) {
  if (seconds === null || seconds === undefined) return 'never';
  const age = Math.max(0, now - seconds);
  return age < 15 ? 'just now' : `${span(age < 90 ? Math.ceil(age / 15) * 15 : age)} ago`;
}

const short = (address) => `${address.slice(0, 8)}…${address.slice(-4)}`;
const whose = (state, one) => (state.patients > 1 ? ` · patient ${one.patient}` : '');

function policy(state) {
  const { policy } = state;
  const chip = byId('policy');
  chip.classList.toggle('warn', policy.is_stale || policy.age_s === null);
  if (policy.age_s === null) chip.textContent = 'No word from the ledger yet: nobody may see anything';
  else if (policy.clock_unknown) chip.textContent = 'The clock was set back: nobody may see anything until the ledger is heard';
  else if (policy.is_stale) chip.textContent = `No word from the ledger for ${span(policy.age_s)}: nobody new comes in`;
  else chip.textContent = `Checked against the ledger ${span(policy.age_s)} ago`;
  byId('sealer').hidden = !policy.one_sealer;
}

function alarm(state) {
  const running = state.emergencies.filter((one) => one.is_running);
  show('alarm', running, () => running.map((one) => make('div', 'banner',
    make('strong', '', 'Emergency access is open'),
    `${one.label ?? `The emergency service ${short(one.domain)}`} may see your data until `, at(one.until_s),
    `. They signed who looks and why.${whose(state, one)}`)));
}

const REFUSED = {
  category_unknown: 'no early-warning score: nobody has entered the patient’s age group',
  not_adult: 'no early-warning score below 16 years',
  pregnant: 'no early-warning score in pregnancy',
};

// Each patient's alarms as this box knows them.
function watch(state, patients) {
  show('watch', patients, () => patients.length === 0
    ? [make('p', 'card', 'No readings yet.')]
    : patients.map((one) => {
      const paused = one.paused_until_ms === null ? null
        : make('p', 'status warn', 'Tones paused until ', at(one.paused_until_ms / 1000));
      const { score } = one;
      const scored = score.refused ? REFUSED[score.refused]
        : `early-warning score (NEWS2) ${score.total}${score.missing.length ? `, partial: without ${score.missing.join(', ')}` : ''}`;
      const said = { acknowledged: 'acknowledged', latched: 'over, not acknowledged', active: '' };
      const alarms = one.alarms.map((alarm) => make('li', `alarm alarm-${alarm.priority} is-${alarm.state}`, make('div', 'row',
        make('span', '', alarm.text), make('span', '', said[alarm.state])), make('p', '', 'since ', at(alarm.since_ms / 1000))));
      const list = alarms.length === 0 ? make('p', 'status good', 'No alarm') : make('ul', 'list', ...alarms);
      return make('article', 'card', state.patients > 1 ? make('h3', '', `Patient ${one.patient}`) : null, paused, list,
        make('p', 'hint', scored));
    }));
}

const printable = (hex) => hex.replace(/../g, (byte) => {
  const code = parseInt(byte, 16);
  return code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : '·';
});

let kept = [];
// Whether the box may have older ones, and whether all are being loaded.
let older = false;
let finding = false;
// As many as it lists at once.
const LISTED = 100;

function quarantine() {
  const wanted = byId('quarantine-filter').value.trim().toLowerCase();
  const found = kept.filter((one) => `${one.device} ${one.topic} ${one.reason}`.toLowerCase().includes(wanted));
  byId('quarantine-older').hidden = !older;
  show('quarantine', found, () => found.length === 0
    ? [make('li', '', wanted === '' ? 'Nothing.' : 'Nothing with that.')]
    : found.map((one) => make('li', '',
      make('div', 'row', make('span', '', `${one.device} → ${one.topic}`), make('span', 'status warn', one.reason)),
      make('p', 'hint', at(one.received_us / 1e6), ` · ${one.detail} · ${one.bytes} bytes`),
      make('code', '', printable(one.payload.slice(0, 400)) + (one.bytes > 200 ? '…' : '')))));
}

function access(state) {
  const order = (one) => (one.until_s === null ? 1 : 0);
  const all = [...state.access].sort((a, b) => order(a) - order(b));
  show('access', [all, state.patients], () => all.length === 0
    ? [make('p', 'card', 'Nobody is set up to see your data.')]
    : all.map((one) => card(state, one)));
}

function card(state, one) {
  const [text, tone] = STATUS[one.status] ?? [one.status, ''];
  const parts = [make('div', 'row', make('h3', '', one.label + whose(state, one)), make('span', `status ${tone}`, text))];
  if (one.until_s !== null) {
    parts.push(make('ul', 'tags', ...one.classes.map((name) => make('li', '', CLASSES[name] ?? name))));
    parts.push(make('p', 'hint', 'From ', at(one.from_s), ' until ', at(one.until_s)));
  }
  if (one.is_revocable) {
    const button = make('button', 'danger', 'End access');
    button.type = 'button';
    button.setAttribute('aria-label', `End the access of ${one.label}`);
    button.addEventListener('click', () => ask(one));
    parts.push(button);
  } else if (one.until_s !== null) {
    parts.push(make('p', 'hint', 'This box can’t end it; your wallet can.'));
  }
  return make('article', 'card', ...parts);
}

function emergencies(state) {
  show('emergencies', state.emergencies, () => state.emergencies.length === 0
    ? [make('li', '', 'Nobody has broken the glass.')]
    : state.emergencies.map((one) => make('li', '', make('div', 'row',
      make('span', '', (one.label ?? `Emergency service ${short(one.domain)}`) + whose(state, one)),
      make('span', one.is_running ? 'status bad' : 'hint', one.is_running ? 'sees your data now' : 'ended')),
    make('p', 'hint', at(one.from_s), ' to ', at(one.until_s)))));
}

// What the patient said of a sensor’s readings, where it is not the usual.
const shared = (classes) => Object.entries(classes).map(([name, as]) => `${name === 'all' ? 'all its readings' : name} as ${as}`).join(', ');

function sensors(state) {
  const rows = state.devices.map((one) => ({
    name: one.device + whose(state, one),
    shared: shared(one.classes),
    mac: one.mac,
    status: one.is_quarantined ? ['Shut out by the operator', 'bad'] : one.is_bound ? ['Bound', 'good'] : ['Not bound', 'warn'],
    reading: ago(state.now_s, one.last_reading_s),
    seen: ago(state.now_s, one.last_seen_s),
  }));
  show('sensors', rows, () => rows.length === 0
    ? [make('li', '', 'No sensor is set up.')]
    : rows.map((row) => make('li', '',
      make('div', 'row', make('span', '', row.name), make('span', `status ${row.status[1]}`, row.status[0])),
      make('p', 'hint', `Last reading ${row.reading} · last seen on the network ${row.seen} · ${row.mac}`),
      row.shared === '' ? null : make('p', 'hint', `By your word shared: ${row.shared}`))));
  const strangers = state.strangers === 0 ? '' : ` (${state.strangers} unknown)`;
  show('seen-title', strangers, () => [`Everything on the sensor network${strangers}`]);
}

function seen(now, devices) {
  const rows = devices.map((one) => ({
    title: one.device ?? one.name ?? one.addresses.at(-1) ?? one.mac,
    status: one.is_quarantined ? ['shut out', 'bad'] : one.device ? ['bound', 'good'] : ['unknown', 'warn'],
    facts: [
      one.device ? one.name : null,
      one.vendor ?? (one.is_private_address ? 'made up its own address' : 'maker unknown'),
      one.about,
      one.mac,
      one.addresses.join(', '),
      `port ${one.port}`,
      `by ${one.means.map((means) => MEANS[means] ?? means).join(', ')}`,
      `last seen ${ago(now, one.last_seen_s)}`,
    ].filter(Boolean).join(' · '),
  }));
  show('seen', rows, () => rows.length === 0
    ? [make('li', '', 'Nobody was seen yet.')]
    : rows.map((row) => make('li', '',
      make('div', 'row', make('span', '', row.title), make('span', `status ${row.status[1]}`, row.status[0])),
      make('p', 'hint', row.facts))));
}

function trail(entries) {
  show('trail', entries, () => entries.length === 0
    ? [make('li', '', 'Nothing yet.')]
    : entries.map((one) => make('li', '', make('span', 'hint', at(one.at_s)), ` ${one.text}`)));
}

async function request(path, options) {
  const answer = await fetch(path, { credentials: 'same-origin', signal: AbortSignal.timeout(8000), ...options });
  if (answer.status === 401) {
    logIn();
    return null;
  }
  return answer;
}

const post = (path, body) => request(path, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify(body),
});

function logIn() {
  clearTimeout(timer);
  shown.clear();
  byId('alarm').replaceChildren();
  byId('policy').textContent = '';
  byId('content').hidden = true;
  byId('logout').hidden = true;
  byId('login').hidden = false;
  byId('code').focus();
}

async function look() {
  clearTimeout(timer);
  try {
    const answer = await request('/api/state');
    if (answer === null) return;
    if (!answer.ok) throw new Error(String(answer.status));
    const state = await answer.json();
    byId('login').hidden = true;
    byId('content').hidden = false;
    byId('logout').hidden = false;
    byId('lost').hidden = true;
    policy(state);
    alarm(state);
    const alarms = await request('/api/alarms');
    if (alarms === null) return;
    if (alarms.ok) watch(state, await alarms.json());
    access(state);
    emergencies(state);
    sensors(state);
    if (looks % SELDOM === 0) {
      const [devices, events] = await Promise.all([request('/api/devices'), request('/api/trail')]);
      if (devices === null || events === null) return;
      if (devices.ok) seen(state.now_s, await devices.json());
      if (events.ok) trail(await events.json());
      if (byId('quarantine-details').open) await browse();
    }
    looks += 1;
  } catch (_failure) {
    byId('lost').textContent = 'The box does not answer. What you see may be old; trying again…';
    byId('lost').hidden = false;
  }
  timer = setTimeout(look, EVERY_MS);
}

// Only while somebody looks at it. What came since goes before what was loaded; who wants older ones, or looks for something, loads them.
async function browse() {
  const newest = await listed(Number.MAX_SAFE_INTEGER);
  if (newest === null) return;
  const last = newest.at(-1)?.number ?? 0;
  // Where more came since than are listed, what was loaded is behind a gap, and is loaded anew.
  const rest = last <= (kept[0]?.number ?? -1) ? kept.filter((one) => one.number < last) : [];
  if (rest.length === 0) older = newest.length === LISTED;
  kept = [...newest, ...rest];
  quarantine();
}

async function browseOlder() {
  const more = await listed(kept.at(-1)?.number ?? Number.MAX_SAFE_INTEGER);
  if (more === null) return false;
  older = more.length === LISTED;
  kept = [...kept, ...more];
  quarantine();
  return older;
}

async function listed(before) {
  const answer = await request(`/api/quarantine?before=${before}`);
  return answer === null || !answer.ok ? null : answer.json();
}

async function find() {
  quarantine();
  if (byId('quarantine-filter').value.trim() === '' || finding) return;
  finding = true;
  try {
    while (older && await browseOlder());
  } finally {
    finding = false;
  }
}

function ask(one) {
  asking = one;
  byId('confirm-title').textContent = `End the access of ${one.label}?`;
  byId('confirm').showModal();
  byId('keep').focus();
}

async function end() {
  const one = asking;
  byId('end').disabled = true;
  const outcome = byId('outcome');
  let failed = true;
  try {
    const answer = await post('/api/revoke', { relationship: one.relationship });
    if (answer === null) return;
    const said = await answer.json();
    failed = !answer.ok;
    outcome.textContent = failed
      ? `The access of ${one.label} could not be ended: ${said.error}. Try again, or use your wallet.`
      : `Ended at ${clock.format(new Date())}. ${one.label} can open nothing that comes in from now on.`;
  } catch (_failure) {
    outcome.textContent = `The box did not answer, so the access of ${one.label} may still be open. Try again.`;
  } finally {
    byId('end').disabled = false;
    byId('confirm').close();
  }
  outcome.classList.toggle('failed', failed);
  outcome.hidden = false;
  looks = 0;
  look();
}

// What it says of itself only finds the door; the box decides by what is signed.
async function handedIn(file) {
  if (file === undefined) return ['Choose a file first.', true];
  const unknown = ['This file is no revocation, emergency request or policy; nothing was handed in.', true];
  if (file.size === 0 || file.size > OFFER_BYTES_MAX) return unknown;
  const body = await file.arrayBuffer();
  const offer = OFFERS[new Uint8Array(body)[0]];
  if (offer === undefined) return unknown;
  const [path, name] = offer;
  try {
    const answer = await fetch(path, { method: 'POST', body, signal: AbortSignal.timeout(OFFER_MS) });
    // Some refusals are the server's own, and not in JSON.
    const said = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
    if (answer.ok) return [`The ${name} is in force since ${clock.format(new Date())}.`, false];
    if (said.refused) return [`The ${name} is refused: ${WHY[said.refused] ?? 'its check failed'} (${said.refused}). Nothing has changed.`, true];
    return [`The ${name} was not taken: ${said.error}. Nothing has changed.`, true];
  } catch (_failure) {
    return [`The box did not answer, so the ${name} may be in force. Handing it in again does no harm.`, true];
  }
}

let handing = false;

async function handIn() {
  // Not disabled meanwhile: that would take the focus away from who has only a keyboard.
  if (handing) return;
  handing = true;
  const outcome = byId('handed-in');
  outcome.textContent = 'The box checks it…';
  outcome.classList.remove('failed');
  outcome.hidden = false;
  const [text, failed] = await handedIn(byId('hand-in-file').files[0])
    .catch(() => ['The file can’t be read.', true]);
  outcome.textContent = text;
  outcome.classList.toggle('failed', failed);
  handing = false;
  if (!failed && !byId('content').hidden) {
    looks = 0;
    look();
  }
}

byId('hand-in').addEventListener('click', handIn);
byId('quarantine-details').addEventListener('toggle', () => { if (byId('quarantine-details').open) browse().catch(() => null); });
byId('quarantine-filter').addEventListener('input', () => { find().catch(() => null); });
byId('quarantine-older').addEventListener('click', () => { browseOlder().catch(() => null); });
byId('keep').addEventListener('click', () => byId('confirm').close());
byId('end').addEventListener('click', end);
byId('logout').addEventListener('click', async () => {
  await post('/api/logout', {}).catch(() => null);
  logIn();
});
byId('login').addEventListener('submit', async (event) => {
  event.preventDefault();
  const error = byId('login-error');
  error.textContent = '';
  try {
    const answer = await fetch('/api/login', {
      method: 'POST',
      credentials: 'same-origin',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ code: byId('code').value }),
    });
    if (!answer.ok) {
      const said = (await answer.json()).error;
      error.textContent = said[0].toUpperCase() + said.slice(1) + '.';
      return;
    }
    byId('code').value = '';
    looks = 0;
    look();
  } catch (_failure) {
    error.textContent = 'The box does not answer. Try again.';
  }
});
look();
