#!/usr/bin/env node
/**
 * Keeps the page open in headless Chromium and writes when each reading arrived there.
 *
 *   node e2e/trace.mjs --url http://127.0.0.1:8080 --user U --password-file F --out browser.jsonl [--screenshot page.png]
 *
 * Each line of the output is {"device","stream","seq","arrived_ms"} (Unix ms, see src/shell/trace.ts). Prints "ready"
 * when the first live reading was drawn. Logs in again whenever the feed asks for it and opens the page again when it was lost.
 * SIGUSR1: takes the screenshot right then. SIGTERM or SIGINT: drains, takes it if none was taken, closes the browser, exit 0. Errors of the page go to stderr.
 * Chromium: $CHROMIUM, else /usr/bin/chromium.
 */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

/** How often the page's array is emptied. */
const DRAIN_MS = 500;
/** A page that was not loaded (the feed is down) is loaded again after this. */
const RETRY_MS = 500;
/** No single step with the browser may hang longer. */
const STEP_MS_MAX = 10_000;
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

function options() {
  const { values } = parseArgs({
    options: {
      url: { type: "string" },
      user: { type: "string" },
      "password-file": { type: "string" },
      out: { type: "string" },
      screenshot: { type: "string" },
    },
  });
  for (const name of ["url", "user", "password-file", "out"]) {
    if (values[name] === undefined) throw new Error(`--${name} is missing`);
  }
  const url = new URL(values.url);
  url.searchParams.set("trace", "");
  return {
    url: url.href,
    user: values.user,
    password: readFileSync(values["password-file"], "utf8").trimEnd(),
    out: values.out,
    screenshot: values.screenshot,
  };
}

function report(kind, text) {
  process.stderr.write(`page ${kind}: ${text}\n`);
}

/** Resolves after `ms`, or at once when the run is to end. */
function pause(ms, ending) {
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      ending.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ending.aborted ? 0 : ms);
    ending.addEventListener("abort", finish);
  });
}

async function open(page, url, ending) {
  while (!ending.aborted) {
    try {
      await page.goto(url, { timeout: STEP_MS_MAX, waitUntil: "domcontentloaded" });
      return;
    } catch (error) {
      report("load", error.message.split("\n")[0]);
      await pause(RETRY_MS, ending);
    }
  }
}

/** Fills the form where it is shown. */
async function logIn(page, { user, password }) {
  if (!(await page.locator("input[name=password]").isVisible())) return;
  await page.fill("input[name=user]", user, { timeout: STEP_MS_MAX });
  await page.fill("input[name=password]", password, { timeout: STEP_MS_MAX });
  const answered = page.waitForResponse((response) => response.url().endsWith("/api/login"), { timeout: STEP_MS_MAX });
  await page.click("button[type=submit]", { timeout: STEP_MS_MAX });
  const status = (await answered).status();
  if (status !== 204) report("login", `answered ${status}`);
}

async function drain(page, file) {
  const entries = await page.evaluate(() => window.caregateTrace?.splice(0) ?? []);
  const lines = entries.map(([device, stream, seq, arrivedMs]) =>
    JSON.stringify({ device, stream, seq, arrived_ms: arrivedMs }),
  );
  if (lines.length > 0) writeSync(file, `${lines.join("\n")}\n`);
  return entries.length;
}

/** A reading is drawn when a numeric or a trace stands in a tile. */
function isDrawn(page) {
  return page.evaluate(() => document.querySelector(".tile .numeric.is-fresh, .tile .lane") !== null);
}

async function follow(page, settings, file, ending) {
  let ready = false;
  while (!ending.aborted) {
    try {
      await logIn(page, settings);
      const count = await drain(page, file);
      if (!ready && count > 0 && (await isDrawn(page))) {
        ready = true;
        process.stdout.write("ready\n");
      }
    } catch (error) {
      report("step", error.message.split("\n")[0]);
    }
    await pause(DRAIN_MS, ending);
  }
}

/** Takes the screenshot when asked, one at a time; answers whether one was taken. */
function photographer(page, path) {
  let taken = false;
  let last = Promise.resolve();
  const take = () => {
    if (path === undefined) return last;
    last = last.then(async () => {
      try {
        await page.screenshot({ path, timeout: STEP_MS_MAX });
        taken = true;
      } catch (error) {
        report("screenshot", error.message.split("\n")[0]);
      }
    });
    return last;
  };
  const atEnd = async () => {
    await last;
    if (!taken) await take();
    return taken || path === undefined;
  };
  return { take, atEnd };
}

async function main() {
  const settings = options();
  const ending = new AbortController();
  // Until the page stands, a request for a screenshot must not end the process.
  let photo = null;
  process.on("SIGUSR1", () => {
    if (photo === null) report("screenshot", "asked for before the page was open");
    else void photo.take();
  });
  for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => ending.abort());
  const file = openSync(settings.out, "w", 0o600);
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: FLAGS,
    handleSIGTERM: false,
    handleSIGINT: false,
    handleSIGHUP: false,
  });
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, ignoreHTTPSErrors: true });
  photo = photographer(page, settings.screenshot);
  page.on("pageerror", (error) => report("error", error.message));
  page.on("crash", () => report("error", "the page crashed"));
  page.on("console", (message) => {
    if (message.type() === "error") report("console", `${message.text()} (${message.location().url})`);
  });
  await open(page, settings.url, ending.signal);
  await follow(page, settings, file, ending.signal);
  await drain(page, file);
  const dropped = await page.evaluate(() => window.caregateTraceDropped ?? 0);
  if (dropped > 0) report("trace", `${dropped} readings found the trace full`);
  const photographed = await photo.atEnd();
  await browser.close();
  closeSync(file);
  if (!photographed) throw new Error(`no screenshot in ${settings.screenshot}`);
}

main().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(`trace: ${error.message}\n`);
    process.exit(1);
  },
);
