// The Vercel AI SDK: node vercel.mjs URL FILE MODEL; prints its answer as one JSON object.
import fs from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { transcribe } from "ai";

const [url, file, model] = process.argv.slice(2);
const provider = createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const result = await transcribe({
  model: provider.transcription(model),
  audio: fs.readFileSync(file),
  maxRetries: 0,
  providerOptions: { openai: { language: "en", timestampGranularities: ["word"] } },
});
console.log(
  JSON.stringify({
    text: result.text,
    segments: result.segments,
    language: result.language,
    seconds: result.durationInSeconds,
  }),
);
