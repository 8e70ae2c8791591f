// Opens a page in Chromium, does what standard input asks for, and writes what came of it to standard output.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const asked = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(`${asked.modules}/package.json`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({ executablePath: asked.chromium, args: ["--no-sandbox"] });
try {
  const context = await browser.newContext({
    viewport: { width: asked.width, height: asked.height },
    colorScheme: asked.scheme,
    javaScriptEnabled: asked.scripted,
    deviceScaleFactor: asked.scale,
  });
  const page = await context.newPage();
  const told = [];
  const requested = [];
  page.on("console", (message) => told.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => told.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => (told.push(`dialog: ${dialog.message()}`), dialog.dismiss()));
  context.on("request", (request) => requested.push(request.url()));
  await page.goto(asked.url, { waitUntil: "load" });
  const answers = [];
  for (const [what, value] of asked.steps) {
    if (what === "press") await page.keyboard.press(value);
    else if (what === "type") await page.keyboard.type(value);
    else if (what === "media") await page.emulateMedia({ media: value });
    else if (what === "go") await page.goto(value, { waitUntil: "load" });
    else if (what === "follow") await Promise.all([page.waitForEvent("load"), page.click(value)]);
    else if (what === "ask") answers.push(await page.evaluate(value));
    else if (what === "picture") await page.screenshot({ path: value });
    else if (what === "whole picture") await page.screenshot({ path: value, fullPage: true });
    else if (what === "axe") {
      await page.evaluate(axe);
      const { violations, incomplete } = await page.evaluate("axe.run()");
      const brief = (found) => found.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).slice(0, 3)}`);
      answers.push({ violations: brief(violations), incomplete: brief(incomplete) });
    } else throw new Error(`no such step: ${what}`);
  }
  process.stdout.write(JSON.stringify({ told, requested, answers }));
} finally {
  await browser.close();
}
