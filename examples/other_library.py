"""Attack a model of the store with another library: `advmix_cli.load` gives a plain torch module.

Run it after examples/quickstart.sh, with `pip install foolbox`.
"""

from pathlib import Path

import foolbox

import advmix_cli
from advmix_cli import data
from advmix_cli.attacks import to_float

model = foolbox.PyTorchModel(advmix_cli.load("latest"), bounds=(0, 1))
images = data.load("glyphs", "test", Path()).first(100)
x, y = to_float(images.x), images.y
_, _, success = foolbox.attacks.LinfPGD()(model, x, y, epsilons=0.3)
clean, robust = foolbox.accuracy(model, x, y), float((~success).float().mean())
print(f"clean {100 * clean:.1f} %, under foolbox's PGD {100 * robust:.1f} %")
