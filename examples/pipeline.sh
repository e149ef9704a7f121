#!/usr/bin/env bash
# References flow through pipes; --json at the end gives one object for scripts.
# LIMIT and EPOCHS size it, as in LIMIT=600 EPOCHS=1.
set -euo pipefail
size=(--limit "${LIMIT:-2000}")

advmix train --mix manifold "${size[@]}" --epochs "${EPOCHS:-6}" -q |
  advmix attack - "${size[@]}" --steps 10 -q |
  advmix eval --samples - --json |
  python3 -c 'import json, sys; [print(row["on"], round(row["accuracy"], 2), "%") for row in json.load(sys.stdin)["data"]["rows"]]'
