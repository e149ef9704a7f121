#!/usr/bin/env bash
# The report's sections 3.1 and 3.2: three trainings, an attack on each, who stands whose attack, and the pictures.
# Tables 1 and 3 and Figures 2, 3, 4 and 7 with DATASET=mnist; Table 2 and Figures 5, 6 and 8 with DATASET=cifar10.
# PRESET=report takes the report's own settings; LIMIT and EPOCHS shorten it, as in LIMIT=600 EPOCHS=1.
set -euo pipefail
dataset=${DATASET:-glyphs}
preset=(${PRESET:+--preset "$PRESET"})
size=(${LIMIT:+--limit "$LIMIT"})
mixes=(none mixup manifold)

advmix train --dataset "$dataset" --mix none,mixup,manifold "${preset[@]}" "${size[@]}" ${EPOCHS:+--epochs "$EPOCHS"} \
  --name "$dataset"
samples=()
for mix in "${mixes[@]}"; do
  advmix attack "$dataset-$mix" "${preset[@]}" "${size[@]}" --name "$dataset-$mix-pgd"
  samples+=(--samples "$dataset-$mix-pgd")
done
models=("${mixes[@]/#/$dataset-}")

advmix eval "${models[@]}" "${samples[@]}"
advmix visualize matrix --out "$dataset-matrix.png"
advmix visualize curves "${models[@]}" --out "$dataset-curves.png"
advmix visualize samples "$dataset-none-pgd" --out "$dataset-samples.png"
advmix visualize mixing --dataset "$dataset" --out "$dataset-mixing.png"
