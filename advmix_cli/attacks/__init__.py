"""Attacks in pixel space, around the clean image, with every result checked before it is given out.

What there is stands in `threats.ATTACKS`. An attack is a function of (model, x, y, threat, noise=, target=, index=,
seed=, places=) that takes of these what it needs and gives attacked images and who has won, in a file of its own.
`run.py` tries it, judges and checks; `sets.py` goes through whole sets; `standing.py` knows who has won.
"""

from advmix_cli.attacks.common import Change, frozen, logits, perturbation, to_float
from advmix_cli.attacks.run import Attacked, adversarial_batch, attack
from advmix_cli.attacks.sets import AttackedSet, attack_set, foreseen

__all__ = [
    "Attacked",
    "AttackedSet",
    "Change",
    "adversarial_batch",
    "attack",
    "attack_set",
    "foreseen",
    "frozen",
    "logits",
    "perturbation",
    "to_float",
]
