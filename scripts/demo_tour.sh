#!/usr/bin/env bash
# Show what the demo serves: three recordings from each host, then what to type to look around.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

small=http://127.0.0.1:${WHISPER_XEON_DEMO_SMALL_PORT:-8001}
medium=http://127.0.0.1:${WHISPER_XEON_DEMO_MEDIUM_PORT:-8002}
console=http://127.0.0.1:${WHISPER_XEON_DEMO_CONSOLE_PORT:-9001}
recordings=tests/fixtures/recordings

status=0

transcribe() { # transcribe URL RECORDING EXPECTED
  local answer
  if ! answer=$(curl --silent --show-error --fail-with-body --max-time 120 -F "file=@$recordings/$2" "$1/transcribe"); then
    printf '  %-10s failed: %s\n' "$2" "$answer"
    status=1
    return
  fi
  python3 -c '
import json, sys
answer = json.loads(sys.argv[3])
print("  {:<10} {:<36} {:<2} {:>5.2f} s audio in {:>5.2f} s   {:<6} {}".format(
    sys.argv[1], answer["text"], answer["language"], answer["duration"], answer["processing_seconds"], answer["model"],
    answer["release_id"][:12]))
sys.exit(answer["text"] != sys.argv[2])' "$2" "$3" "$answer" || {
    printf '  %-10s should be: %s\n' "" "$3"
    status=1
  }
}

for url in "$small" "$medium"; do
  printf '\n%s\n' "$url"
  transcribe "$url" en-00.wav "five eight right eight down hello"
  transcribe "$url" de-01.wav "vier zwei fünf sechs"
  transcribe "$url" es-01.wav "cuatro cuatro"
done

cat <<EOF

The demo keeps running. Its models know 89 words and hear these in everything. To look around:

  curl -F file=@$recordings/en-03.wav $small/v1/audio/transcriptions
  curl -F file=@$recordings/long.wav -F response_format=srt $medium/v1/audio/transcriptions
  curl $small/version
  . .venv/bin/activate && ansible-playbook playbooks/status.yml
  ansible-playbook deploy.yml -e model=medium
  MinIO's console: $console, its user and password are in .state/demo/minio.yml

To remove it: make clean
EOF
exit "$status"
