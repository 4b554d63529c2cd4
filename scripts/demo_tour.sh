#!/usr/bin/env bash
# Show what the demo serves: three recordings from each host, then what to type to look around.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

small=http://127.0.0.1:${WHISPER_XEON_DEMO_SMALL_PORT:-8001}
medium=http://127.0.0.1:${WHISPER_XEON_DEMO_MEDIUM_PORT:-8002}
console=http://127.0.0.1:${WHISPER_XEON_DEMO_CONSOLE_PORT:-9001}
recordings=tests/fixtures/recordings

transcribe() { # transcribe URL RECORDING
  curl --silent --show-error --fail-with-body --max-time 120 -F "file=@$recordings/$2" "$1/transcribe" |
    python3 -c '
import json, sys
answer = json.load(sys.stdin)
print("  {:<10} {:<38} {:<2}  {:>5.2f} s audio in {:>5.2f} s   {} {}".format(
    sys.argv[1], answer["text"], answer["language"], answer["duration"], answer["processing_seconds"], answer["model"],
    answer["release_id"][:12]))' "$2"
}

for url in "$small" "$medium"; do
  printf '\n%s\n' "$url"
  for recording in en-00.wav de-01.wav es-01.wav; do
    transcribe "$url" "$recording"
  done
done

cat <<EOF

The demo keeps running. To look around:

  curl -F file=@$recordings/en-03.wav $small/v1/audio/transcriptions
  curl -F file=@$recordings/long.wav -F response_format=srt $medium/v1/audio/transcriptions
  curl $small/version
  . .venv/bin/activate && ansible-playbook deploy.yml -e model=medium
  MinIO's console: $console, its user and password are in .state/demo/minio.yml

To remove all of it: make clean
EOF
