// The page at /, used as people use it: node page.mjs URL KEYED_URL KEY FILE.wav LONG.wav CHROMIUM DIRECTORY
// FILE.wav is sent, dropped, and plays as the microphone; LONG.wav has several windows. DIRECTORY gets a picture of each state, and each download.
// Prints as JSON what was seen, with what axe finds wrong in every state.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { chromium } from "playwright-core";

const [url, keyedUrl, key, file, long, executablePath, directory] = process.argv.slice(2);
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const seen = { axe: {}, downloads: {} };
const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    `--use-file-for-fake-audio-capture=${file}%noloop`,
    // A host that is not this one, by its name.
    "--host-resolver-rules=MAP stt.test 127.0.0.1",
  ],
});

async function open(address, options = {}) {
  const page = await browser.newPage({ viewport: { width: 900, height: 900 }, ...options });
  page.setDefaultTimeout(60000);
  page.on("pageerror", (error) => (seen.errors ??= []).push(String(error)));
  page.on("console", (line) => line.type() === "error" && (seen.console ??= []).push(line.text()));
  await page.goto(address);
  await page.waitForFunction(() => document.getElementById("service").textContent.includes("engines busy"));
  return page;
}

async function look(page, name) {
  await page.screenshot({ path: join(directory, `${name}.png`), fullPage: true });
  // The page's own policy would not let axe run: what it looks at is the same without.
  const { violations } = await page.evaluate(`(() => { ${axe}; return axe.run(); })()`);
  seen.axe[name] = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
}

const text = (page, id) => page.locator(`#${id}`).innerText();
const transcribed = (page) => page.waitForFunction(() => document.getElementById("status").textContent === "Transcribed.");
const problem = (page) => page.waitForFunction(() => document.getElementById("problem").textContent);
const send = (page) => page.locator("#send").click();

try {
  const page = await open(url, { acceptDownloads: true });
  seen.service = await text(page, "service");
  await look(page, "empty");
  await page.locator("#file").setInputFiles(file);
  await page.locator("#language").selectOption("en");
  await send(page);
  await transcribed(page);
  seen.chosen = (await page.locator("#segments button span").allInnerTexts()).join(" ");
  await look(page, "transcript");
  for (const format of ["text", "srt", "vtt", "tsv", "json"]) {
    await page.locator("#format").selectOption(format);
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#download").click()]);
    await download.saveAs(join(directory, download.suggestedFilename()));
    seen.downloads[format] = download.suggestedFilename();
  }
  // By keyboard alone: a segment plays from its start, and is marked while it does.
  const last = page.locator("#segments button").last();
  await last.focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#segments [aria-current]"));
  seen.playing = await page.evaluate(() => [document.getElementById("player").paused, document.getElementById("player").currentTime]);
  seen.current = await page.locator("#segments [aria-current] span").innerText();

  await page.evaluate(() => {
    window.arriving = [];
    const soFar = document.getElementById("so-far");
    new MutationObserver(() => window.arriving.push(soFar.textContent)).observe(soFar, { childList: true });
  });
  await page.locator("#file").setInputFiles(long);
  await send(page);
  await page.waitForFunction(() => document.getElementById("so-far").textContent);
  await look(page, "arriving");
  await transcribed(page);
  seen.arriving = await page.evaluate(() => window.arriving.filter(Boolean));
  seen.arrived = await page.evaluate("answer.text");

  await page.locator("#file").setInputFiles({ name: "letter.txt", mimeType: "text/plain", buffer: Buffer.from("Dear all,\n") });
  await send(page);
  await problem(page);
  seen.rejected = await text(page, "problem");
  await look(page, "rejected");
  await page.close();

  const dark = await open(url, { colorScheme: "dark", viewport: { width: 360, height: 740 } });
  const bytes = [...(await readFile(file))];
  await dark.evaluate(([name, content]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(content)], name));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }, [basename(file), bytes]);
  await send(dark);
  await transcribed(dark);
  seen.dropped = (await dark.locator("#segments button span").allInnerTexts()).join(" ");
  seen.overflows = await dark.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  await look(dark, "dark-narrow");
  await dark.close();

  const microphone = await open(url);
  await microphone.locator("#record").click();
  await microphone.waitForTimeout(12000);
  await look(microphone, "recording");
  await microphone.locator("#record").click();
  await microphone.waitForFunction(() => document.getElementById("status").textContent === "Recorded.");
  await send(microphone);
  await transcribed(microphone);
  seen.recorded = (await microphone.locator("#segments button span").allInnerTexts()).join(" ");
  await microphone.close();

  const plain = await open(url.replace("127.0.0.1", "stt.test"));
  seen.noMicrophone = [await plain.locator("#record").isDisabled(), await text(plain, "no-microphone")];
  await look(plain, "no-microphone");
  await plain.close();

  const keyed = await open(keyedUrl);
  await keyed.locator("#file").setInputFiles(file);
  await send(keyed);
  await problem(keyed);
  seen.keyMissing = await text(keyed, "problem");
  await look(keyed, "key-missing");
  await keyed.locator("#key").fill("wrong");
  await send(keyed);
  await keyed.waitForFunction(() => document.getElementById("problem").textContent.includes("know"));
  await keyed.locator("#key").fill(key);
  await keyed.keyboard.press("Enter");
  await transcribed(keyed);
  seen.keyed = (await keyed.locator("#segments button span").allInnerTexts()).join(" ");
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
