// Chromium's MediaRecorder: node recorder.mjs URL FILE.wav CHROMIUM. The file plays as the microphone of a page of the
// service, which records it and sends what it has, as pages with a record button do. Prints the answers as JSON.
import { chromium } from "playwright-core";

const [url, file, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    `--use-file-for-fake-audio-capture=${file}%noloop`,
  ],
});
try {
  const page = await browser.newPage();
  await page.goto(`${url}/health`);
  const answers = await page.evaluate(async () => {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    const recorder = new MediaRecorder(stream);
    const chunks = [];
    recorder.ondataavailable = (event) => chunks.push(event.data);
    const stopped = new Promise((resolve) => (recorder.onstop = resolve));
    recorder.start(1000);
    await new Promise((resolve) => setTimeout(resolve, 12000));
    recorder.stop();
    await stopped;
    const recording = new Blob(chunks, { type: recorder.mimeType });
    const form = new FormData();
    form.append("file", recording); // a name of the browser's choice: "blob"
    form.append("model", "whisper-1");
    const asForm = await fetch("/v1/audio/transcriptions", { method: "POST", body: form });
    const asBody = await fetch("/transcribe", { method: "POST", body: recording });
    return {
      type: recording.type,
      form: { status: asForm.status, body: await asForm.json() },
      body: { status: asBody.status, body: await asBody.json() },
    };
  });
  console.log(JSON.stringify(answers));
} finally {
  await browser.close();
}
