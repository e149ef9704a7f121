"""Attacks in pixel space, around the clean image, with every result checked before it is given out.

Every attack is a function of (model, x, y, threat, noise, target, seed) that gives attacked images, in a file of its
own; `run.py` chooses it, tries it again, checks what it gives, and goes through whole sets.
"""

from advmix_cli.attacks.common import frozen, generators, perturbation, to_float
from advmix_cli.attacks.run import AttackedSet, attack, attack_set, craft, suitable_batch

__all__ = [
    "AttackedSet",
    "attack",
    "attack_set",
    "craft",
    "frozen",
    "generators",
    "perturbation",
    "suitable_batch",
    "to_float",
]
