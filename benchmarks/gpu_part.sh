#!/usr/bin/env bash
# One part of gpu.sh, which calls this: it ends at the first command that fails. Each makes the models that it needs,
# which takes no time where the store has them.
set -euo pipefail
cd "${PYTHONPATH:?bash benchmarks/gpu.sh calls this}"
size=(${LIMIT:+--limit "$LIMIT"}) few=(${CIFAR_LIMIT:+--limit "$CIFAR_LIMIT"})
epochs=(${EPOCHS:+--epochs "$EPOCHS"}) steps=(${STEPS:+--steps "$STEPS"})

advmix() { python3 -m advmix_cli "$@"; }
export -f advmix # the examples call it as users do
tests() { ADVMIX_TEST_DEVICE=$ADVMIX_DEVICE python3 -m pytest -ra -p no:cacheprovider "${@/#/tests/test_}"; }

kept() { # name, command: its JSON under that name
  local began=$SECONDS
  advmix "${@:2}" --json | tee "$RESULTS/$1.json"
  echo "$1 took $((SECONDS - began)) s"
}

examples() { # data set, names: they leave their pictures where they are called
  cd "$RESULTS"
  for example in "${@:2}"; do DATASET=$1 bash "$PYTHONPATH/examples/$example.sh"; done
}

standard=(train --dataset mnist "${size[@]}" "${epochs[@]}" --name gpu-mnist)
defended=(advtrain --dataset mnist --init untrained "${size[@]}" "${epochs[@]}" "${steps[@]}" --name gpu-mnist-adv)
epoch=(advtrain --dataset mnist --init untrained "${size[@]}" --epochs 1 --steps "${STEPS:-40}")

case $1 in
  info) kept info info ;;
  tests-graphs) tests graphs.py ;;
  tests-attacks) tests attacks.py strong_attacks.py audit.py ;;
  tests-training) tests training.py adversarial_training.py evaluation.py ;;
  speed)
    advmix "${standard[@]}"
    advmix "${defended[@]}"
    images=(--images 5000 --cifar-images 1000 --repeats 3)
    [ -z "${LIMIT:-}" ] || images=(--images 50 --cifar-images 8 --repeats 1)
    python3 benchmarks/speed.py --device "$ADVMIX_DEVICE" --undefended gpu-mnist --defended gpu-mnist-adv \
      "${images[@]}" --json "$RESULTS/speed.json"
    ;;
  epoch) kept epoch "${epoch[@]}" ;;
  twelve) kept twelve "${epoch[@]}" --mix none,mixup,manifold --seed 1,2,3,4 ;;
  mnist)
    kept mnist-train "${standard[@]}"
    kept mnist-attack attack gpu-mnist "${size[@]}" "${steps[@]}"
    ;;
  autoattack)
    kept autoattack-train "${defended[@]}"
    kept autoattack eval gpu-mnist-adv --attack autoattack --limit "${LIMIT:-1000}"
    ;;
  precision)
    for kind in bf16 float32; do
      kept "precision-train-$kind" advtrain --dataset cifar10 --init untrained "${few[@]}" --epochs 1 \
        --steps "${STEPS:-7}" --precision "$kind" --name "gpu-$kind"
    done
    for kind in bf16 float32; do
      kept "precision-pgd-$kind" eval gpu-float32 --attack pgd "${few[@]}" "${steps[@]}" --precision "$kind"
    done
    ;;
  cifar)
    kept cifar-train train --dataset cifar10 --precision bf16 "${few[@]}" "${epochs[@]}" --name gpu-cifar
    kept cifar-attack attack gpu-cifar "${few[@]}" "${steps[@]}"
    ;;
  report-mnist) examples mnist standard_training mnist_defense ;;
  report-labels) examples mnist soft_labels partial_pgd ;;
  report-cifar) LIMIT=${CIFAR_LIMIT:-} examples cifar10 standard_training mnist_defense ;;
  *) echo "there is no part $1" && exit 2 ;;
esac
