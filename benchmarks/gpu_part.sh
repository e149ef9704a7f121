#!/usr/bin/env bash
# One part of gpu.sh, which calls this: it ends at the first command that fails. Each makes the models that it needs,
# which takes no time where the store has them.
set -euo pipefail
: "${RESULTS:?bash benchmarks/gpu.sh calls this}"
size=(${LIMIT:+--limit "$LIMIT"}) few=(${CIFAR_LIMIT:+--limit "$CIFAR_LIMIT"})
epochs=(${EPOCHS:+--epochs "$EPOCHS"}) steps=(${STEPS:+--steps "$STEPS"})

scale=(${LIMIT:+--scale smoke})

advmix() { python3 -m advmix_cli "$@"; }
tests() { ADVMIX_TEST_DEVICE=$ADVMIX_DEVICE python3 -m pytest -ra -p no:cacheprovider "${@/#/tests/test_}"; }

kept() { # name, command: its JSON under that name
  local began=$SECONDS
  advmix "${@:2}" --json | tee "$RESULTS/$1.json"
  echo "$1 took $((SECONDS - began)) s"
}

report() { # name, tables and figures of the report
  kept "$1" reproduce "${@:2}" "${scale[@]}" --out "$RESULTS/$1"
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
    images=(--images 2000 --cifar-images 1000 --repeats 3)
    [ -z "${LIMIT:-}" ] || images=(--images 50 --cifar-images 8 --repeats 1)
    cp docs/performance.md "$RESULTS"
    python3 benchmarks/speed.py --device "$ADVMIX_DEVICE" --undefended zoo:lenet5-plain \
      --defended zoo:lenet5-certified "${images[@]}" --json "$RESULTS/speed.json" --doc "$RESULTS/performance.md"
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
  report-mnist) report report-mnist table1 table3 table4 table5 figure9 --dataset mnist ;;
  report-labels) report report-labels table7 table8 --dataset mnist ;;
  report-cifar) report report-cifar table2 table3 table6 figure8 figure10 --dataset cifar10 ;;
  *) echo "there is no part $1" && exit 2 ;;
esac
