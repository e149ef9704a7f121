"""What a user's typed code does with the public functions: mypy checks it, nothing runs it."""

from __future__ import annotations

from typing import assert_type

import numpy as np
import torch
from torch import nn

import advmix_cli
from advmix_cli.api import Attacked, Evaluated, Figure, Trained
from advmix_cli.auditing import Audit

model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
x, y = torch.rand(8, 3, 2, 2), torch.randint(3, (8,))

attacked = advmix_cli.attack(model, x, y, attack="autoattack", eps=8 / 255, progress=False)
assert_type(attacked, Attacked)
assert_type(attacked.x_adv, torch.Tensor)
assert_type(attacked.robust, Figure)
assert_type(attacked.robust.accuracy, float)
assert_type(attacked.robust.accuracy_ci95, tuple[float, float])

evaluated = advmix_cli.evaluate(model, x, y, attack=["pgd", "square"], norm="l2", eps=0.5, audit=True)
assert_type(evaluated, Evaluated)
assert_type(evaluated["clean"].accuracy, float)
assert_type(evaluated.audit, Audit | None)

assert_type(advmix_cli.audit(model, np.zeros((8, 3, 2, 2), np.uint8), y), Audit)

trained = advmix_cli.train("resnet18", x, y, test=(x, y), mix="manifold", mix_stages=(0, "group2"), epochs=1)
assert_type(trained, Trained)
assert_type(trained.model, nn.Module)

assert_type(advmix_cli.load("latest", home="store", run_code=True), nn.Module)
images, labels, classes = advmix_cli.datasets("folder:photos", "train", image_size=64)
assert_type(images, torch.Tensor)
assert_type(classes, tuple[str, ...])
