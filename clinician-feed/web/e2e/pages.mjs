#!/usr/bin/env node
/**
 * Keeps several pages open in headless Chromium and says whether they show what they should: for a story that is played
 * from outside.
 *
 *   node e2e/pages.mjs --commands commands.jsonl --out answers.jsonl
 *
 * Follows the file of commands, one JSON object a line, in order, and answers each with a line {"id", "ok", "ms", "error"?}:
 *   {"id", "open": NAME, "url", "fill"?: {SELECTOR: TEXT}, "submit"?: SELECTOR}   instead of the one of that name; fills in a login
 *   {"id", "expect": NAME, "text": REGEXP, "timeout_ms"}                          until the page's visible text matches, in any case
 *   {"id", "click": NAME, "button": TEXT}                                         the first button of that name
 *   {"id", "form": NAME, "fill"?: {SELECTOR: TEXT}, "select"?: {SELECTOR: VALUE}, "files"?: {SELECTOR: PATH}, "check"?: [SELECTOR]}
 *   {"id", "post": NAME, "path", "body", "timeout_ms"}                            JSON, from within the page; its answer must be good
 *   {"id", "screenshot": NAME, "path"}
 * Prints "ready" when the browser stands. SIGTERM or SIGINT: closes the browser, exit 0. Chromium: $CHROMIUM, else /usr/bin/chromium.
 */
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

/** Between two looks at the file, or at a page. */
const POLL_MS = 50;
/** No single step with the browser may hang longer. */
const STEP_MS_MAX = 15_000;
/** Longest line of commands. */
const COMMAND_BYTES_MAX = 65_536;
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-background-timer-throttling",
  "--disable-renderer-backgrounding",
];

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Whole lines as they are appended to a file. */
function follower(path) {
  const file = openSync(path, "a+");
  const buffer = Buffer.alloc(COMMAND_BYTES_MAX);
  let position = 0;
  let rest = "";
  return () => {
    const length = readSync(file, buffer, 0, buffer.length, position);
    position += length;
    const lines = (rest + buffer.toString("utf8", 0, length)).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > COMMAND_BYTES_MAX) throw new Error(`a command is longer than ${COMMAND_BYTES_MAX} bytes`);
    return lines.filter((line) => line !== "");
  };
}

async function open(browser, pages, command) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ignoreHTTPSErrors: true });
  page.on("pageerror", (error) => process.stderr.write(`page ${command.open} error: ${error.message}\n`));
  await pages.get(command.open)?.close();
  pages.set(command.open, page);
  await page.goto(command.url, { timeout: STEP_MS_MAX, waitUntil: "domcontentloaded" });
  const fields = Object.entries(command.fill ?? {});
  if (fields.length === 0) return;
  await page.locator(fields[0][0]).waitFor({ state: "visible", timeout: STEP_MS_MAX });
  for (const [selector, text] of fields) await page.fill(selector, text, { timeout: STEP_MS_MAX });
  await page.click(command.submit, { timeout: STEP_MS_MAX });
}

async function expect(page, command, ending) {
  const wanted = new RegExp(command.text, "isu");
  const deadline = Date.now() + command.timeout_ms;
  while (!ending.aborted) {
    const text = await page.evaluate(() => document.body.innerText);
    if (wanted.test(text)) return;
    if (Date.now() > deadline) throw new Error(`not shown: ${command.text}`);
    await pause(POLL_MS);
  }
  throw new Error("stopped");
}

async function post(page, command) {
  const answer = await page.evaluate(async ({ path, body, timeout }) => {
    const response = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(timeout),
    });
    return { ok: response.ok, status: response.status, text: await response.text() };
  }, { path: command.path, body: command.body, timeout: command.timeout_ms });
  if (!answer.ok) throw new Error(`${command.path}: ${answer.status} ${answer.text}`);
}

async function fillIn(page, command) {
  const options = { timeout: STEP_MS_MAX };
  for (const [selector, text] of Object.entries(command.fill ?? {})) await page.fill(selector, text, options);
  for (const [selector, value] of Object.entries(command.select ?? {})) await page.selectOption(selector, value, options);
  for (const [selector, path] of Object.entries(command.files ?? {})) await page.setInputFiles(selector, path, options);
  for (const selector of command.check ?? []) await page.check(selector, options);
}

async function perform(browser, pages, command, ending) {
  const named = (name) => {
    const page = pages.get(name);
    if (page === undefined) throw new Error(`no page ${name} is open`);
    return page;
  };
  if (command.open !== undefined) await open(browser, pages, command);
  else if (command.expect !== undefined) await expect(named(command.expect), command, ending);
  else if (command.screenshot !== undefined) {
    await named(command.screenshot).screenshot({ path: command.path, timeout: STEP_MS_MAX });
  } else if (command.click !== undefined) {
    await named(command.click).getByRole("button", { name: command.button }).first().click({ timeout: STEP_MS_MAX });
  } else if (command.form !== undefined) await fillIn(named(command.form), command);
  else if (command.post !== undefined) await post(named(command.post), command);
  else throw new Error("no such command");
}

async function main() {
  const { values } = parseArgs({ options: { commands: { type: "string" }, out: { type: "string" } } });
  for (const name of ["commands", "out"]) if (values[name] === undefined) throw new Error(`--${name} is missing`);
  const ending = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => ending.abort());
  const next = follower(values.commands);
  const out = openSync(values.out, "w", 0o600);
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: FLAGS,
    handleSIGTERM: false,
    handleSIGINT: false,
    handleSIGHUP: false,
  });
  const pages = new Map();
  process.stdout.write("ready\n");
  while (!ending.signal.aborted) {
    for (const line of next()) {
      const command = JSON.parse(line);
      const began = Date.now();
      const answer = { id: command.id, ok: true };
      try {
        await perform(browser, pages, command, ending.signal);
      } catch (error) {
        answer.ok = false;
        answer.error = error.message.split("\n")[0];
      }
      writeSync(out, `${JSON.stringify({ ...answer, ms: Date.now() - began })}\n`);
    }
    await pause(POLL_MS);
  }
  await browser.close();
  closeSync(out);
}

main().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(`pages: ${error.message}\n`);
    process.exit(1);
  },
);
