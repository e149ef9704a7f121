"""What attacks there are, each declared once, and the threat that one of them poses. Needs no torch.

A new attack is a file in `attacks/` and an entry in `ATTACKS`: its label, text, help, completion and options follow.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from advmix_cli.errors import UsageError, known_name
from advmix_cli.settings import Settings, number, require, require_positive

LOSSES = ("ce", "dlr", "cw")
NORMS = ("linf", "l2")
VARIANTS = ("standard", "as-run")
PRECISIONS = ("float32", "bf16")
CLASSES_OF_DLR = 3
"""DLR's denominator takes the third largest logit; when targeted, the fourth too."""

Cost = tuple[int, int]
"""(forward, backward) passes through the model."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One attack of an ensemble, with what is not as it is declared.

    It is for the samples that the parts before left; where `near` is said, only for those of whose lead, in logits,
    less than that share is left. `masked` is that share for samples whose gradients seem to hide something: whose loss
    the first search without gradients raised by more than a tenth above all that was found before it. Where it doubled
    the loss, no share is asked for.
    """

    attack: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    near: float | None = None
    masked: float = 0.0


@dataclasses.dataclass(frozen=True)
class Attack:
    """One attack: what it is called, may be told, does, and costs.

    `source` is its function, as module:function. `reach` is how far all steps together go where no alpha is given, in
    eps. `refills`: where it stops early, others take the places of those that are done. `options` are the fields of a
    threat that mean something to it beside norm and eps, `settings` their values where nothing else is said. `version`
    grows when its results do. `cost` gives the most passes that one try takes of one image. `parts` are those of an
    ensemble; those beyond the first `standard` follow it and are no part of its figure. `proof` is a function, as
    module:function, that says of which images it can be proved that no attack would bring anything. With `candidates`
    the targets are the nearest of that many likeliest classes (`attacks.malt`), else the likeliest. `caution` is said
    beside its figures.
    """

    name: str
    title: str
    source: str = ""
    options: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    version: int = 1
    cost: Callable[[Threat], Cost] = lambda threat: (threat.steps, threat.steps)
    reach: float = 2.5
    refills: bool = False
    parts: tuple[Part, ...] = ()
    standard: int = 0
    proof: str = ""
    candidates: int = 0
    caution: str = ""


def _gradient_at_start(threat: Threat) -> Cost:
    return threat.steps + 1, threat.steps + 1


_CANDIDATES = 100


def _ranking(threat: Threat) -> int:
    """A try's share of the gradients that order the targets."""
    return -(-_CANDIDATES // max(threat.targets, 1))


_APGD = "advmix_cli.attacks.apgd:apgd"
_PUBLISHED = {"steps": 100, "early_stop": True}
_NO_GRADIENT = {"steps": 0, "loss": "cw", "early_stop": True}

ATTACKS = {
    attack.name: attack
    for attack in (
        Attack(
            "pgd", "PGD", "advmix_cli.attacks.pgd:pgd",
            ("alpha", "steps", "restarts", "random_start", "loss", "targets", "early_stop", "precision"),
            refills=True,
        ),
        Attack("fgsm", "FGSM", "advmix_cli.attacks.pgd:pgd", (), {"steps": 1, "random_start": False}, reach=1.0),
        Attack("apgd-ce", "APGD-CE", _APGD, ("steps", "restarts"), _PUBLISHED, cost=_gradient_at_start),
        Attack("apgd-dlr", "APGD-DLR", _APGD, ("steps", "restarts"), {**_PUBLISHED, "loss": "dlr"},
               cost=_gradient_at_start),
        Attack("apgd-t", "APGD-T", _APGD, ("steps", "restarts", "targets"),
               {**_PUBLISHED, "loss": "dlr", "targets": 9}, cost=_gradient_at_start),
        Attack("malt", "MALT", _APGD, ("steps", "restarts", "targets"),
               {**_PUBLISHED, "loss": "dlr", "targets": 9}, candidates=_CANDIDATES,
               cost=lambda threat: (_ranking(threat) + threat.steps + 1, _ranking(threat) + threat.steps + 1)),
        Attack("pma", "PMA", "advmix_cli.attacks.pma:pma", ("steps", "restarts"), {**_PUBLISHED},
               cost=lambda threat: (2 * threat.steps, 2 * threat.steps)),
        Attack("fab-t", "FAB-T", "advmix_cli.attacks.fab:fab", ("steps", "targets"),
               {**_PUBLISHED, "loss": "cw", "targets": 9, "random_start": False}, version=2,
               cost=lambda threat: (2 * threat.steps, threat.steps)),
        Attack("square", "Square", "advmix_cli.attacks.square:square", ("queries", "restarts"),
               {**_NO_GRADIENT, "queries": 5000}, cost=lambda threat: (threat.queries + 1, 0)),
        Attack("square-pgd", "Square and PGD", "advmix_cli.attacks.square_pgd:square_pgd", ("queries", "restarts"),
               {**_NO_GRADIENT, "queries": 2000, "steps": 40},
               cost=lambda threat: (threat.queries + 1 + threat.steps, threat.steps)),
        Attack("autoattack", "AutoAttack", settings=_PUBLISHED, standard=4, parts=(
            Part("apgd-ce"), Part("apgd-t"), Part("fab-t"), Part("square"), Part("square-pgd", {"restarts": 6}),
        )),
        Attack("fast", "Fast cascade", settings=_PUBLISHED, version=5, standard=7, parts=(
            Part("pma"), Part("malt", {"targets": 3}, near=0.2), Part("square-pgd", {"queries": 1000}),
            Part("pma", {"restarts": 5}, near=0.05), Part("malt", {"targets": 3, "restarts": 3}, near=0.05),
            Part("square-pgd", {"queries": 4000, "steps": 100}, near=0.1, masked=0.2),
            Part("square-pgd", {"queries": 4000, "steps": 100, "restarts": 2}, near=0.0, masked=0.15),
        ), proof="advmix_cli.bounds.certify:proved", caution="a first look and not AutoAttack, of whose parts it was "
            "measured to leave at most three images of a thousand more (docs/evaluation.md)"),
    )
}  # fmt: skip
"""Every attack. `autoattack` is the standard ensemble of Croce and Hein 2020 with the settings that its authors
published, and then `square-pgd`, this project's own, for the images whose gradients are masked. `fast` is this
project's own cascade."""

OPTIONS = tuple(dict.fromkeys(option for attack in ATTACKS.values() for option in attack.options))
"""All that any attack may be told beside norm and eps."""


@dataclasses.dataclass(frozen=True)
class Threat(Settings):
    """What an attacker may do: always named together with a robust accuracy.

    `eps` bounds the perturbation in pixel units ([0,1]) around the clean image, in `norm`; `steps` are the iterations,
    `queries` those of a search without gradients, `alpha` the step size of PGD (None where the attack chooses its own),
    `restarts` the tries of which the worst counts for each sample, `loss` what is climbed. With `targets` each try
    drives to one of that many likeliest wrong classes in turn. With `early_stop` an attack leaves a sample as soon as
    an iterate is misclassified; all but PGD always do. `precision` is what PGD computes its gradients in; verdicts are
    always float32's. The variant `as-run` is the published code's attack, whose iterates leave the ball (see
    `attacks.pgd.pgd_as_run`).
    """

    attack: str = "pgd"
    norm: str = "linf"
    eps: float = 0.3
    alpha: float | None = None
    steps: int = 40
    queries: int = 0
    restarts: int = 1
    random_start: bool = True
    variant: str = "standard"
    loss: str = "ce"
    targets: int = 0
    early_stop: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        known_name(self.attack, ATTACKS, "attack")
        known_name(self.norm, NORMS, "norm")
        known_name(self.variant, VARIANTS, "variant")
        known_name(self.loss, LOSSES, "loss")
        known_name(self.precision, PRECISIONS, "precision")
        require(
            math.isfinite(self.eps) and self.eps >= 0,
            f"--eps must be a finite number of at least 0, not {self.eps}",
            "eps is in pixel units of [0,1]: try 0.3 or 8/255",
        )
        require(
            self.norm != "linf" or self.eps <= 1,
            f"--eps {number(self.eps)} is more than the whole range of a pixel, which is [0,1]",
            f"did you mean {number(self.eps)}/255?" if self.eps <= 255 else "try 0.3 or 8/255",
        )
        require_positive(self, "alpha", "restarts")
        for name, example in (("steps", 40), ("queries", 5000)):
            least = 1 if self.declared.settings.get(name, example if name == "steps" else 0) else 0
            value = getattr(self, name)
            require(value >= least, f"--{name} must be at least {least}, not {value}", f"try --{name} {example}")
        require(self.targets >= 0, f"--targets must be at least 0, not {self.targets}", "try --targets 9")
        require(
            self.restarts == 1 or self.random_start,
            "every restart from the clean image gives the same result",
            "leave out --restarts or --no-random-start",
        )
        plain = self.norm == "linf" and self.attack == "pgd" and self.loss == "ce" and not self.targets
        require(
            self.variant == "standard" or plain,
            "the as-run variant exists for pgd and linf alone",
            "leave --preset as-run out, or leave out --norm, --attack, --loss and --targets",
        )

    @classmethod
    def of(cls, attack: str, norm: str, eps: float, **more: Any) -> Threat:
        """The attack of that name with its declared settings, but for those given."""
        return cls(**{"attack": attack, "norm": norm, "eps": eps, **ATTACKS[attack].settings, **more})

    @property
    def declared(self) -> Attack:
        """What is known of its attack."""
        return ATTACKS[self.attack]

    def versions(self) -> dict[str, int]:
        """Of the attack, and of each part of an ensemble."""
        names = [self.attack, *(part.attack for part in self.declared.parts)]
        return {name: ATTACKS[name].version for name in names}

    @property
    def tries(self) -> int:
        """How often each sample is attacked unless it falls before."""
        return self.restarts * max(self.targets, 1)

    @property
    def parts(self) -> tuple[Threat, ...]:
        """The attacks of an ensemble in their order, each for what the ones before left; else this one alone."""
        if not self.declared.parts:
            return (self,)
        return tuple(Threat.of(part.attack, self.norm, self.eps, **part.settings) for part in self.declared.parts)

    @property
    def standard(self) -> int:
        """After how many of its parts stands the figure of that name; the parts beyond follow it."""
        return self.declared.standard or 1

    @property
    def passes(self) -> Cost:
        """The most passes through the model that an image takes, (forward, backward)."""
        forward = sum(part.tries * part.declared.cost(part)[0] for part in self.parts)
        return forward, sum(part.tries * part.declared.cost(part)[1] for part in self.parts)

    def fitted(self, classes: int) -> Threat:
        """This threat against a model of so many classes. Raises UsageError where it needs more."""
        wrong = classes - 1
        require(classes >= 2, f"a model with {classes} outputs has no wrong class", "attack a classifier")
        require(
            self.targets <= wrong or self.targets == self.declared.settings.get("targets"),
            f"--targets {self.targets} is more than the {wrong} wrong classes",
            f"try --targets {wrong}",
        )
        needed = CLASSES_OF_DLR + bool(self.targets)
        require(
            self.loss != "dlr" or classes >= needed,
            f"the dlr loss of {self.label} needs {needed} classes, the model has {classes}",
            "use pgd with --loss cw, and --attack apgd-ce, fab-t, square: the standard ensemble takes 4 classes",
        )
        return dataclasses.replace(self, targets=min(self.targets, wrong))

    @property
    def default_alpha(self) -> float:
        """The step size where none is given: PGD's is 2.5 eps / steps. With eps 0 any step is projected back."""
        return self.declared.reach * self.eps / max(self.steps, 1) or 1.0

    @property
    def step_size(self) -> float:
        """alpha, or the default where none is set."""
        return self.default_alpha if self.alpha is None else self.alpha

    @property
    def label(self) -> str:
        """A short name for tables and file names, e.g. `pgd-0.3-40` or `pgd-l2-0.5-20-early`: one label, one threat.

        Beside norm, eps and steps it says what is not as the attack declares it.
        """
        usual = Threat(**{"attack": self.attack, **self.declared.settings})
        parts = [self.attack]
        parts += [self.loss] if self.loss != usual.loss else []
        parts += [f"t{self.targets}"] if self.targets != usual.targets else []
        parts += [self.norm] if self.norm != "linf" else []
        parts.append(_exact(self.eps))
        for name in ("steps", "queries"):
            value = getattr(self, name)
            if name in self.declared.options:
                parts.append(str(value))
            elif value != getattr(usual, name):
                parts.append(name[0] + str(value))
        if self.alpha is not None and self.alpha != self.default_alpha:
            parts.append("a" + _exact(self.alpha))
        parts += [f"x{self.restarts}"] if self.restarts != 1 else []
        for name, (yes, no) in (("random_start", ("random-start", "clean-start")), ("early_stop", ("early", "late"))):
            if getattr(self, name) != getattr(usual, name):
                parts.append(yes if getattr(self, name) else no)
        parts += [self.precision] if self.precision != "float32" else []
        parts += [self.variant] if self.variant != "standard" else []
        return "-".join(parts)

    def __str__(self) -> str:
        takes = self.declared.options
        text = f"{self.declared.title} {self.norm} eps {number(self.eps)}"
        if self.declared.parts:
            parts = self.parts[: self.standard]
            kind = ", standard: " if self.standard < len(self.parts) else ": "
            return text + kind + ", ".join(dict.fromkeys(part.declared.title for part in parts))
        said = [f"alpha {number(self.step_size)}"] if "alpha" in takes else []
        if "queries" in takes:
            said.append(f"{self.queries} queries")
        if "steps" in takes:
            climbed = f" of the {self.loss} loss" if "loss" in takes and self.loss != "ce" else ""
            said.append(f"{self.steps} steps{climbed}")
        if "random_start" in takes:
            said.append("random start" if self.random_start else "no random start")
        if self.targets:
            said.append(f"each of {self.targets} targets")
        if self.restarts > 1:
            said.append(f"{self.restarts} restarts")
        if "early_stop" in takes and self.early_stop:
            said.append("until won")
        if self.precision != "float32":
            said.append(f"in {self.precision}")
        return ", ".join([text, *said]) + (" (as-run variant)" if self.variant != "standard" else "")


def _exact(value: float) -> str:
    return number(value, exact=True).replace("/", "_")


def does_not_apply(option: str, attacks: tuple[str, ...]) -> UsageError:
    """What to say where an option means nothing to any of those attacks."""
    why = "fgsm is one step of size eps: " if attacks == ("fgsm",) else ""
    takes = [attack.name for attack in ATTACKS.values() if option in attack.options]
    return UsageError(
        f"{why}--{option.replace('_', '-')} does not apply to {', '.join(attacks)}",
        f"it goes with --attack {' or '.join(takes)}",
    )
