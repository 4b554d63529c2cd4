"use strict";
// Addresses are relative: behind a proxy the page may lie below a path.

const by = (id) => document.getElementById(id);
const KEY = "whisper-xeon-key";
const POLL_MS = 5000;

let recording = null; // a Blob with a name: what will be sent
let answer = null; // verbose_json
let request = null; // the XMLHttpRequest that is running: fetch would not tell how much is uploaded
let heard = 0; // characters of its answer that were read
let last = null; // event of it
let recorder = null;
let asking = false; // for the microphone
let canRecord = true;
let address = ""; // of the recording, for the player

// ---- the service ----

async function lookAtService() {
  try {
    const [version, ready, metrics] = await Promise.all([fetch("version"), fetch("readyz"), fetch("metrics")]);
    const { model } = await version.json();
    const { reason } = await ready.json();
    const text = await metrics.text();
    const gauge = (name) => Number(new RegExp(`^whisper_${name} (\\S+)$`, "m").exec(text)?.[1] ?? 0);
    const busy = `${gauge("engines_busy")} of ${gauge("engines")} engines busy, ${gauge("queue_waiting")} waiting`;
    by("service").textContent = ready.ok ? `Model ${model} · ${busy}` : `Model ${model} · not ready: ${reason}`;
  } catch {
    by("service").textContent = "The service does not answer.";
  }
}

// ---- what is sent ----

function choose(blob, name) {
  // What is being transcribed stays what is shown and played.
  if (request || recorder) {
    by("problem").textContent = "One recording at a time: wait for this one, or end it, before you choose another.";
    return;
  }
  recording = blob;
  recording.label = name;
  by("chosen").textContent = `${name}, ${size(blob.size)}`;
  by("send").disabled = false;
  say("");
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function say(status, problem = "") {
  by("status").textContent = status;
  by("problem").textContent = problem;
}

async function record() {
  if (recorder) {
    recorder.stop();
    return;
  }
  if (asking) return;
  asking = true;
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    const denied = error.name === "NotAllowedError";
    say("", denied ? "The browser was not allowed to use the microphone: allow it for this page, then record again."
      : `No microphone can be used (${error.message}).`);
    return;
  } finally {
    asking = false;
  }
  const parts = [];
  const begun = Date.now();
  recorder = new MediaRecorder(stream);
  const { mimeType } = recorder;
  const clock = setInterval(() => (by("chosen").textContent = `Recording, ${seconds((Date.now() - begun) / 1000)}`), 500);
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => {
    clearInterval(clock);
    stream.getTracks().forEach((track) => track.stop());
    recorder = null;
    by("record").textContent = "Record";
    by("file").value = "";
    choose(new Blob(parts, { type: mimeType }), "recording");
    say("Recorded.");
  };
  recorder.start(1000);
  by("record").textContent = "Stop";
  say("Recording. Choose Stop to end it.");
}

function send(event) {
  event.preventDefault();
  const form = new FormData();
  form.append("file", recording, recording.label);
  form.append("response_format", "verbose_json");
  form.append("model", "default");
  form.append("stream", "true");
  if (by("language").value) form.append("language", by("language").value);
  request = new XMLHttpRequest();
  request.open("POST", `v1/audio/${by("task").value}`);
  if (by("key").value) request.setRequestHeader("Authorization", `Bearer ${by("key").value}`);
  request.upload.onprogress = (step) => step.lengthComputable && (by("progress").value = step.loaded / step.total);
  request.upload.onload = () => {
    by("progress").removeAttribute("value");
    say("Uploaded. Transcribing …");
  };
  heard = 0;
  last = null;
  by("so-far").replaceChildren();
  request.onprogress = hear;
  request.onload = answered;
  request.onerror = () => failed("The connection to the service was lost: try again.");
  request.onabort = () => failed("Cancelled.");
  request.send(form);
  by("progress").value = 0;
  working(true);
  say("Uploading …");
}

function working(does) {
  by("progress").hidden = by("cancel").hidden = !does;
  by("send").disabled = by("file").disabled = does;
  by("record").disabled = does || !canRecord;
  if (!does) request = null;
}

function failed(why) {
  working(false);
  say("", why);
}

// Reads what has come of the answer: events, each a line of JSON and an empty one.
function hear() {
  const end = request.responseText.lastIndexOf("\n\n") + 2;
  if (request.status !== 200 || end <= heard) return;
  const events = request.responseText.slice(heard, end).trim().split("\n\n");
  heard = end;
  for (const event of events) {
    last = parsed(event.slice("data: ".length));
    if (!last.delta) continue;
    by("result").hidden = true;
    by("so-far").append(last.delta);
  }
}

function parsed(json) {
  try {
    return JSON.parse(json);
  } catch {
    return {}; // what stands between the page and the service may answer in its own way
  }
}

function answered() {
  hear();
  const { status, responseText } = request;
  const body = last ?? parsed(responseText);
  if (status === 401) {
    failed(by("key").value ? "The service does not know this key." : "The service needs an API key.");
    by("key").focus();
  } else if (status !== 200 || !body.segments) {
    // WHISPER_ERROR_FORMAT decides which of these it is.
    failed(body.error?.message ?? body.detail?.[0]?.msg ?? body.detail ?? `The service answered ${status}.`);
  } else {
    if (by("key").value) sessionStorage.setItem(KEY, by("key").value);
    working(false);
    show(body);
  }
}

// ---- the transcript ----

function show({ type, ...body }) {
  answer = body;
  by("so-far").replaceChildren();
  const language = body.language[0].toUpperCase() + body.language.slice(1);
  by("about").textContent = `${language}, ${seconds(body.duration)}`;
  by("segments").replaceChildren(...body.segments.map(row));
  URL.revokeObjectURL(address);
  by("player").src = address = URL.createObjectURL(recording);
  by("player").hidden = by("result").hidden = false;
  by("unplayable").hidden = true;
  say(body.text.trim() ? "Transcribed." : "Nobody speaks in this recording.");
  by("heading").focus();
}

function row(segment) {
  const [item, button, time, text] = ["li", "button", "time", "span"].map((name) => document.createElement(name));
  button.type = "button";
  time.textContent = seconds(segment.start);
  text.textContent = segment.text.trim();
  button.append(time, text);
  button.onclick = () => {
    by("player").currentTime = segment.start;
    by("player").play().catch(() => {}); // the player says so itself
  };
  item.append(button);
  return item;
}

function follow() {
  const at = by("player").currentTime;
  answer.segments.forEach((segment, number) => {
    const button = by("segments").children[number].firstChild;
    if (at >= segment.start && at < segment.end) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
}

// ---- formats, byte for byte as the service writes them ----

const line = (text) => text.split(/\s+/).filter(Boolean).join(" ");
const spoken = () => answer.segments.filter((segment) => segment.text.trim());

function seconds(value) {
  const whole = Math.floor(value);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const pad = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
}

function clock(value, separator) {
  const milliseconds = Math.round(value * 1000);
  const pad = (number, digits = 2) => String(number).padStart(digits, "0");
  const whole = Math.floor(milliseconds / 1000);
  return `${pad(Math.floor(whole / 3600))}:${pad(Math.floor(whole / 60) % 60)}:${pad(whole % 60)}${separator}${pad(milliseconds % 1000, 3)}`;
}

const span = ({ start, end }, separator) => `${clock(start, separator)} --> ${clock(end, separator)}`;

const FORMATS = {
  text: { suffix: "txt", write: () => `${answer.text}\n` },
  srt: {
    suffix: "srt",
    write: () => spoken().map((one, number) =>
      `${number + 1}\n${span(one, ",")}\n${line(one.text).replaceAll("-->", "->")}\n`).join("\n"),
  },
  vtt: {
    suffix: "vtt",
    write: () => ["WEBVTT\n", ...spoken().map((one) =>
      `${span(one, ".")}\n${line(one.text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")}\n`)].join("\n"),
  },
  tsv: {
    suffix: "tsv",
    write: () => "start\tend\ttext\n" + spoken().map((one) =>
      `${Math.round(one.start * 1000)}\t${Math.round(one.end * 1000)}\t${line(one.text)}\n`).join(""),
  },
  json: { suffix: "json", write: () => `${JSON.stringify(answer, null, 1)}\n` },
};

async function copy() {
  const text = FORMATS[by("format").value].write();
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    say("", "The browser did not let this page copy: use Download.");
  }
}

function download() {
  const { suffix, write } = FORMATS[by("format").value];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write()], { type: "text/plain" }));
  link.download = `${recording.label.replace(/\.[^.]*$/, "")}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// ---- what people do ----

by("form").onsubmit = send;
by("cancel").onclick = () => request?.abort();
by("file").onchange = () => by("file").files[0] && choose(by("file").files[0], by("file").files[0].name);
by("record").onclick = record;
by("copy").onclick = copy;
by("download").onclick = download;
by("player").ontimeupdate = follow;
by("player").onerror = () => {
  by("player").hidden = true;
  by("unplayable").hidden = false;
};

const dropping = (does) => document.body.classList.toggle("dropping", does);
document.ondragover = (event) => {
  event.preventDefault();
  dropping(true);
};
document.ondragleave = () => dropping(false);
document.ondrop = (event) => {
  event.preventDefault();
  dropping(false);
  const { files } = event.dataTransfer;
  if (!files.length) return;
  choose(files[0], files[0].name);
  if (files.length > 1) say(`One recording at a time: ${files[0].name} was taken.`);
};

if (!navigator.mediaDevices || !window.MediaRecorder) {
  canRecord = false;
  by("record").disabled = true;
  by("no-microphone").hidden = false;
  by("no-microphone").textContent = window.isSecureContext
    ? "This browser cannot record."
    : "Recording needs HTTPS or localhost: browsers lend their microphone to no other page.";
}
by("key").value = sessionStorage.getItem(KEY) ?? "";
by("key-row").hidden = document.body.dataset.needsKey !== "yes";
lookAtService();
setInterval(() => document.hidden || lookAtService(), POLL_MS);
