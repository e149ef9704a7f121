#!/usr/bin/env bash
# Everything for a machine with a GPU, in one go: the tests on CUDA, the rates beside other programs', then the report's MNIST and CIFAR-10 runs.
# RESULTS is where tables, pictures and JSON go; ADVMIX_DATA must hold both data sets. A rehearsal on a CPU:
#   DEVICE=cpu LIMIT=300 EPOCHS=1 STEPS=2 CIFAR_LIMIT=64 bash benchmarks/gpu.sh
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
export ADVMIX_DEVICE=${DEVICE:-cuda}
results=${RESULTS:-$PWD/results}
mkdir -p "$results"
advmix() { python3 -m advmix_cli "$@"; }
export -f advmix
export PYTHONPATH=$here

advmix info --json > "$results/info.json"
# Wall-clock limits of start-up are those of a laptop, and the other libraries may not be there.
ADVMIX_TEST_DEVICE=$ADVMIX_DEVICE python3 -m pytest -k "not fast and not help" -p no:cacheprovider 2>&1 | tee "$results/tests.txt" | tail -3

timed() { # name, command...: seconds and the command's own JSON
  local name=$1 began=$SECONDS
  shift
  "$@" --json > "$results/$name.json"
  echo "$name $((SECONDS - began)) s" | tee -a "$results/seconds.txt"
}
size=(${LIMIT:+--limit "$LIMIT"})
timed mnist-train advmix train --dataset mnist "${size[@]}" ${EPOCHS:+--epochs "$EPOCHS"} --name gpu-mnist
timed mnist-attack advmix attack gpu-mnist "${size[@]}" ${STEPS:+--steps "$STEPS"}
python3 benchmarks/speed.py --device "$ADVMIX_DEVICE" --undefended gpu-mnist --images "${LIMIT:-5000}" \
  --cifar-images "${CIFAR_LIMIT:-1000}" --json "$results/speed.json" | tee "$results/speed.md"
# An epoch against PGD-40, by one model and by twelve together.
epoch=(advmix advtrain --dataset mnist --init untrained --steps "${STEPS:-40}" --epochs 1 "${size[@]}")
timed adversarial-epoch "${epoch[@]}"
timed adversarial-epoch-of-twelve "${epoch[@]}" --mix none,mixup,manifold --seed 1,2,3,4
timed cifar-train advmix train --dataset cifar10 --precision bf16 ${CIFAR_LIMIT:+--limit "$CIFAR_LIMIT"} \
  ${EPOCHS:+--epochs "$EPOCHS"} --name gpu-cifar
timed cifar-attack advmix attack gpu-cifar ${CIFAR_LIMIT:+--limit "$CIFAR_LIMIT"} ${STEPS:+--steps "$STEPS"}
timed cifar-adversarial-epoch advmix advtrain --dataset cifar10 --init untrained --steps 7 --epochs 1 --precision bf16 \
  ${CIFAR_LIMIT:+--limit "$CIFAR_LIMIT"} --name gpu-cifar-adv
for precision in float32 bf16; do
  timed cifar-$precision advmix eval gpu-cifar-adv --attack pgd --precision $precision ${CIFAR_LIMIT:+--limit "$CIFAR_LIMIT"}
done

cd "$results"
for example in standard_training mnist_defense soft_labels partial_pgd; do
  DATASET=mnist bash "$here/examples/$example.sh" | tee "$example.txt"
done
DATASET=cifar10 LIMIT=${CIFAR_LIMIT:-} bash "$here/examples/standard_training.sh" | tee standard_training-cifar10.txt
DATASET=cifar10 LIMIT=${CIFAR_LIMIT:-} bash "$here/examples/mnist_defense.sh" | tee defense-cifar10.txt
