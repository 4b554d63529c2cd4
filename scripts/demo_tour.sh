#!/usr/bin/env bash
# Show what the demo serves: recordings from each host, a switch to the other model and back, then what to type to look
# around.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PWD/.venv/bin:$PATH

first=http://127.0.0.1:${WHISPER_XEON_DEMO_1_PORT:-8001}
second=https://127.0.0.1:${WHISPER_XEON_DEMO_2_PORT:-8002}
authority=.state/demo/tls/authority.pem
console=http://127.0.0.1:${WHISPER_XEON_DEMO_CONSOLE_PORT:-9001}

status=0

transcribe() { # transcribe URL RECORDING EXPECTED
  local answer
  if ! answer=$(curl --silent --show-error --fail-with-body --max-time 120 --cacert "$authority" -F "file=@$recordings/$2" "$1/transcribe"); then
    printf '  %-20s failed: %s\n' "$2" "$answer"
    status=1
    return
  fi
  PYTHONPATH=app python3 -c '
import json, sys
from whisper_package.selftest import same_words
recording, expected, answer = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
print("  {:<20} {:<2} {:>5.2f} s audio in {:>5.2f} s   {:<7} {}   {}".format(
    recording, answer["language"], answer["duration"], answer["processing_seconds"], answer["model"],
    answer["release_id"][:12], answer["text"]))
sys.exit(not same_words(answer["text"], expected))' "$2" "$3" "$answer" || {
    printf '  %-20s should be: %s\n' "" "$3"
    status=1
  }
}

playbook() { # playbook ARGUMENTS...: run it on the second host, and show what a person would type
  local log=.state/demo/tour.log
  printf '\nansible-playbook %s --limit whisper-xeon-demo-2\n' "$*"
  ansible-playbook -i inventory/demo "$@" --limit whisper-xeon-demo-2 >"$log" 2>&1 </dev/null || {
    tail -n 20 "$log"
    printf '  failed: the whole output is in %s\n' "$log"
    status=1
  }
}

if [[ $(<.state/demo/weights) == fixture ]]; then
  recordings=tests/fixtures/recordings
  subtitles=long.wav
  note="Its models know 89 words and hear these in everything."
  for url in "$first" "$second"; do
    printf '\n%s\n' "$url"
    transcribe "$url" en-00.wav "five eight right eight down hello"
    transcribe "$url" de-01.wav "vier zwei fünf sechs"
    transcribe "$url" es-01.wav "cuatro cuatro"
  done
  other=medium
else
  recordings=bench/speech/clips
  subtitles=en_sonnet2.mp3
  note="Send it recordings of your own."
  french="Sous le consulat, il devient conservateur des eaux et forêts et conseiller général."
  printf '\n%s\n' "$first"
  transcribe "$first" en_lj16.ogg "The Middle Ages brought calligraphy to perfection, and it was natural therefore"
  transcribe "$first" fr_leopard.mp3 "$french"
  transcribe "$first" nl_nathalie860.webm "Als je pc zegt dat er te weinig geheugen is, dan is dat ook zo."
  printf '\n%s\n' "$second"
  transcribe "$second" en_passport3.flac "My voice is my passport, verify me."
  playbook deploy.yml -e model=base
  transcribe "$second" fr_leopard.mp3 "$french"
  playbook playbooks/rollback.yml
  transcribe "$second" en_passport3.flac "My voice is my passport, verify me."
  other=base
fi

cat <<EOF

The demo keeps running. $note To look around:

  curl -F file=@$recordings/$subtitles -F response_format=srt $first/v1/audio/transcriptions
  curl --cacert $authority -F file=@$recordings/$subtitles $second/transcribe
  curl $first/version
  . .venv/bin/activate && ansible-playbook playbooks/status.yml
  ansible-playbook deploy.yml -e model=$other
  MinIO's console: $console, its user and password are in .state/demo/minio.yml

To remove it: make clean
EOF
exit "$status"
