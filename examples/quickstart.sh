#!/usr/bin/env bash
# Train on the embedded digits, attack, evaluate, look: about a minute on two cores, no download.
# A smoke run: LIMIT=600 EPOCHS=1 bash examples/quickstart.sh
set -euo pipefail
size=(${LIMIT:+--limit "$LIMIT"})

advmix train "${size[@]}" ${EPOCHS:+--epochs "$EPOCHS"} --name vanilla
advmix attack vanilla "${size[@]}" --eps 0.3 --steps 40 --name vanilla-pgd
advmix eval vanilla --samples vanilla-pgd
advmix visualize samples vanilla-pgd --out quickstart.png
