#!/usr/bin/env bash
# Tables 4 and 5 and Figure 9: three standard models, three adversarial ones begun from the plain one, one table, one figure.
# Table 6 and Figure 10 with DATASET=cifar10. PRESET=report takes the report's settings, INIT=untrained begins afresh;
# LIMIT, EPOCHS and STEPS shorten it, as in LIMIT=300 EPOCHS=1 STEPS=2.
set -euo pipefail
dataset=${DATASET:-mnist}
preset=(${PRESET:+--preset "$PRESET"})
size=(${LIMIT:+--limit "$LIMIT"})
epochs=(${EPOCHS:+--epochs "$EPOCHS"})
steps=(${STEPS:+--steps "$STEPS"})
mixes=(none mixup manifold)

advmix train --dataset "$dataset" --mix none,mixup,manifold "${preset[@]}" "${size[@]}" "${epochs[@]}" --name "$dataset"
advmix advtrain --dataset "$dataset" --init "${INIT:-$dataset-none}" --mix none,mixup,manifold "${preset[@]}" "${size[@]}" \
  "${epochs[@]}" "${steps[@]}" --name "$dataset-adv"

advmix eval "${mixes[@]/#/$dataset-}" "${mixes[@]/#/$dataset-adv-}" --attack pgd "${preset[@]}" "${size[@]}" "${steps[@]}"
advmix visualize curves "${mixes[@]/#/$dataset-adv-}" --out "$dataset-defense.png"
