#!/usr/bin/env bash
# Table 8: adversarial training with mixup, of attacked batches alone (Algorithm 1) and with clean ones (Algorithm 2).
# DATASET, PRESET, LIMIT, EPOCHS and STEPS as in mnist_defense.sh.
set -euo pipefail
dataset=${DATASET:-mnist}
preset=(${PRESET:+--preset "$PRESET"})
size=(${LIMIT:+--limit "$LIMIT"})
epochs=(${EPOCHS:+--epochs "$EPOCHS"})
steps=(${STEPS:+--steps "$STEPS"})
policies=(normal partial-pgd)

advmix train --dataset "$dataset" "${preset[@]}" "${size[@]}" "${epochs[@]}" --name "$dataset-none"
for policy in "${policies[@]}"; do
  advmix advtrain --init "$dataset-none" --mix mixup --policy "$policy" "${preset[@]}" "${size[@]}" \
    "${epochs[@]}" "${steps[@]}" --name "$dataset-$policy"
done
advmix eval "${policies[@]/#/$dataset-}" --attack pgd "${preset[@]}" "${size[@]}" "${steps[@]}"
