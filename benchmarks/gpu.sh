#!/usr/bin/env bash
# What a GPU is needed for, in parts of at most nine minutes (gpu_part.sh): the tests on CUDA, the rates beside other
# programs', the training for the documents. What is done is not repeated, and what was cut off continues.
#
#   bash benchmarks/gpu.sh            all parts that are not done
#   bash benchmarks/gpu.sh PART...    of those, these
#   bash benchmarks/gpu.sh --list     what there is
#
# RESULTS (./results) gets summary.md and each part's log, JSON and .status, which marks it done: remove that to repeat.
# ARCHIVE names a .tar.gz that always holds all of RESULTS, for where only a few files can be brought back.
# ADVMIX_HOME (.advmix) is the store: keep it and RESULTS between calls. ADVMIX_DATA must hold the data sets.
# BUDGET_S (540) are the seconds of a call: no part is begun whose length is more than what is left of them.
# A rehearsal on a CPU: DEVICE=cpu LIMIT=300 EPOCHS=1 STEPS=2 CIFAR_LIMIT=64 BUDGET_S=3600 bash benchmarks/gpu.sh
set -euo pipefail

names=()
declare -A length needs what
part() { names+=("$1") length[$1]=$2 needs[$1]=$3 what[$1]=$4; }
part info 60 '' 'versions, device, data'
part tests-graphs 240 pytest 'recorded work is the same work unrecorded'
part tests-attacks 300 pytest 'attacks and the audit'
part tests-training 240 pytest 'training and evaluation'
part speed 480 mnist 'rates of attacks and training, beside other programs'
part epoch 120 mnist 'an epoch of adversarial training against PGD-40'
part twelve 300 mnist 'the same by twelve models together'
part mnist 180 mnist 'standard training, and an attack'
part autoattack 300 mnist 'adversarial training, and AutoAttack on 1,000 images'
part precision 300 cifar10 'bf16 beside float32: an epoch against PGD-7, and PGD'
part cifar 480 cifar10 'standard training in bf16, and an attack'
part report-mnist 480 mnist 'Tables 1, 3, 4 and 5 of the report'
part report-labels 480 mnist 'Tables 7 and 8'
part report-cifar 480 cifar10 'Tables 2 and 6: several calls'

missing() { # says why what a part needs is not there
  case $1 in
    pytest) python3 -c 'import pytest' 2> /dev/null || echo 'pytest is not installed' ;;
    ?*) python3 -c 'import os, sys, pathlib; from advmix_cli import data
root = data.default_root(pathlib.Path(os.environ["ADVMIX_HOME"]))
data.present(sys.argv[1], root) or print(sys.argv[1], "is not in", root)' "$1" ;;
  esac
}

recall() { # what became of a part with these settings, and its seconds over all calls
  local of=''
  [ ! -f "$RESULTS/$1.status" ] || IFS='|' read -r outcome seconds of < "$RESULTS/$1.status"
  [ "$of" = "$settings" ] || outcome='not begun' seconds=0
}

summary() {
  local each outcome seconds
  printf '| part | seconds | outcome |\n|---|---:|---|\n'
  for each in "${names[@]}"; do recall "$each" && echo "| $each | $seconds | $outcome |"; done
}

record() { # the part at hand: what became of it, and its seconds
  echo "$1|$2|$settings" > "$RESULTS/$name.status"
  echo "$name: $1, $2 s"
  summary > "$RESULTS/summary.md"
  [ -z "$ARCHIVE" ] || (cd "$RESULTS/.." && python3 -m tarfile -c "$ARCHIVE" "${RESULTS##*/}")
}

# shellcheck disable=SC2317 # the traps call it
stop() { # at a signal, with its exit status
  if [ -n "$child" ]; then
    kill "$child" || true # `timeout` hands the signal on to all that the part has started
    wait "$child" || true
    record interrupted $((seconds + SECONDS - began))
  fi
  exit "$1"
}

if [ "${1:-}" = --list ]; then
  for name in "${names[@]}"; do printf '%-14s %3s s  %s\n' "$name" "${length[$name]}" "${what[$name]}"; done
  exit
fi
mkdir -p "${RESULTS:=results}"
RESULTS=$(realpath "$RESULTS") ARCHIVE=${ARCHIVE:+$(realpath "$ARCHIVE")}
ADVMIX_DATA=${ADVMIX_DATA:+$(realpath "$ADVMIX_DATA")} ADVMIX_HOME=${ADVMIX_HOME:+$(realpath -m "$ADVMIX_HOME")}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export RESULTS ADVMIX_DATA ADVMIX_HOME=${ADVMIX_HOME:-$PWD/.advmix} ADVMIX_DEVICE=${DEVICE:-cuda}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

budget=${BUDGET_S:-540} child='' failed=0 left=()
settings="$ADVMIX_DEVICE,${LIMIT:-},${EPOCHS:-},${STEPS:-},${CIFAR_LIMIT:-}" # a rehearsal does not make a part done
trap 'stop 130' INT
trap 'stop 143' TERM HUP
[ $# -gt 0 ] || set -- "${names[@]}"
for name in "$@"; do
  [ -n "${length[$name]:-}" ] || { echo "there is no part $name: see --list" >&2 && exit 2; }
done
for name in "$@"; do
  recall "$name"
  most=${length[$name]} began=$SECONDS code=0
  why=$(missing "${needs[$name]}") || true # what breaks that, the part itself will say
  if [ "$outcome" = 'done' ]; then
    echo "$name: done before, $seconds s"
  elif [ -n "$why" ]; then
    record "skipped: $why" "$seconds"
  elif ((most > budget - SECONDS)); then
    left+=("$name")
  else
    timeout --kill-after=10 "$most" bash benchmarks/gpu_part.sh "$name" < /dev/null >> "$RESULTS/$name.log" 2>&1 &
    child=$!
    wait "$child" || code=$?
    child='' spent=$((SECONDS - began)) became='done'
    if [ "$code" -ne 0 ]; then
      failed=1 became="failed with exit code $code"
      ((spent < most)) || became='cut off'
      tail -n 15 "$RESULTS/$name.log"
    fi
    record "$became" $((seconds + spent))
  fi
done
summary
[ ${#left[@]} -eq 0 ] || echo "left for another call, as $((budget - SECONDS)) s are too few: ${left[*]}"
exit "$failed"
