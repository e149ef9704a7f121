#!/usr/bin/env bash
# Table 7: adversarial training with mixup and soft labels of growing noise sigma, begun from a standard model.
# DATASET, PRESET, LIMIT, EPOCHS and STEPS as in mnist_defense.sh.
set -euo pipefail
dataset=${DATASET:-mnist}
preset=(${PRESET:+--preset "$PRESET"})
size=(${LIMIT:+--limit "$LIMIT"})
epochs=(${EPOCHS:+--epochs "$EPOCHS"})
steps=(${STEPS:+--steps "$STEPS"})
sigmas=(0 0.001 0.003 0.005 0.01)

advmix train --dataset "$dataset" "${preset[@]}" "${size[@]}" "${epochs[@]}" --name "$dataset-none"
advmix advtrain --init "$dataset-none" --mix mixup --soft-label "$(IFS=,; echo "${sigmas[*]}")" "${preset[@]}" \
  "${size[@]}" "${epochs[@]}" "${steps[@]}" --name "$dataset-sigma"
advmix eval "${sigmas[@]/#/$dataset-sigma-}" --attack pgd "${preset[@]}" "${size[@]}" "${steps[@]}"
