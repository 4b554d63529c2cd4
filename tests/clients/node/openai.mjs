// OpenAI's SDK for Node: node openai.mjs URL FILE; prints its answers as one JSON object.
import fs from "node:fs";
import OpenAI from "openai";

const [url, file] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const send = (options) =>
  client.audio.transcriptions.create({ file: fs.createReadStream(file), model: "whisper-1", ...options });

const models = [];
for await (const model of client.models.list()) models.push(model.id);
const model = await client.models.retrieve(models[0]);
const json = await send({});
const verbose = await send({
  response_format: "verbose_json",
  timestamp_granularities: ["word", "segment"],
  language: "en",
  prompt: "A speech.",
});
const logprobs = await send({ model: "gpt-4o-transcribe", include: ["logprobs"], chunking_strategy: "auto" });
const vad = await send({
  chunking_strategy: { type: "server_vad", threshold: 0.5, prefix_padding_ms: 300, silence_duration_ms: 500 },
});
const translation = await client.audio.translations.create({ file: fs.createReadStream(file), model: "whisper-1" });
const deltas = [];
let done;
for await (const event of await send({ model: "gpt-4o-transcribe", stream: true })) {
  if (event.type === "transcript.text.delta") deltas.push(event.delta);
  else done = event.text;
}
let refused;
try {
  await send({ model: "medium.en" });
} catch (error) {
  refused = { name: error.constructor.name, status: error.status, message: error.message };
}
console.log(
  JSON.stringify({
    models,
    retrieved: model.id,
    json: json.text,
    words: verbose.words.map((word) => word.word),
    segments: verbose.segments.map((segment) => segment.text),
    logprobs: logprobs.logprobs.map((token) => token.token),
    vad: vad.text,
    translation: translation.text,
    deltas,
    done,
    srt: await send({ response_format: "srt" }),
    vtt: await send({ response_format: "vtt" }),
    text: await send({ response_format: "text" }),
    refused,
  }),
);
