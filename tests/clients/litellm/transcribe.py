"""LiteLLM as a client of the service: litellm_client.py URL FILE; prints its answers as one JSON object."""

import json
import sys

import litellm

url, file = sys.argv[1:]
litellm.telemetry = False
answers = {}
for name, options in {
    "json": {},
    "verbose_json": {"response_format": "verbose_json", "timestamp_granularities": ["word"]},
    "srt": {"response_format": "srt"},
}.items():
    with open(file, "rb") as audio:
        answer = litellm.transcription(
            model="openai/whisper-1", file=audio, api_base=f"{url}/v1", api_key="none", language="en", **options
        )
    answers[name] = answer.text
    if name == "verbose_json":
        answers["words"] = [word["word"] for word in answer["words"]]
print(json.dumps(answers))
