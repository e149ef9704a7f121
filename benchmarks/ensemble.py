"""AutoAttack beside others' on the same models and images in one process: who is left standing, and what it cost.

    python benchmarks/ensemble.py MODEL... --images 200 [--programs advmix,fast,pyautoattack,usual,ART]

`advmix` is the standard ensemble, `left` after its four parts; what the part that follows them left stands beside it,
as `left_further`. `fast` is advmix's cascade. `pyautoattack` is the authors' implementation on the network as advmix
builds it, `usual` the same on the network as it is usually written, in their batches of 250; ART's has its defaults,
which try Square five times, and batches of 100. Seconds are of the processor, one thread each, so that other work on
the machine counts less; `times` are those of `advmix`. ART takes most of an hour for a model and 1,000 images.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from speed import art_classifier, textbook
from torch import nn

from advmix_cli import attacks, runtime
from advmix_cli.evaluation import score
from advmix_cli.threats import Threat
from advmix_cli.workflows.references import load_model, resolve_models
from advmix_cli.workflows.session import Session

Found = tuple[torch.Tensor, dict[str, Any]]
"""Which images (N,) stand, and what else there is to say."""


def ours(attack: str) -> Callable[[nn.Module, torch.Tensor, torch.Tensor, float], Found]:
    """An ensemble of advmix; the seconds of each part, and those up to the end of its standard ones."""

    def run(model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float) -> Found:
        threat, ended = Threat.of(attack, "linf", eps), [time.process_time()]
        found = attacks.attack_set(
            model, x, y, threat, seed=0, on_part=lambda part, left: ended.append(time.process_time())
        )
        last = threat.standard or len(found.after)
        spent = [round(end - begin, 2) for begin, end in itertools.pairwise(ended)]
        more: dict[str, Any] = {"processor_s": round(ended[last] - ended[0], 2),
                                "parts_s": dict(zip(found.after, spent, strict=True))}  # fmt: skip
        if last < len(found.after):
            more |= {"left_further": int(found.robust.sum()), "processor_s_further": round(ended[-1] - ended[0], 2)}
        return list(found.after.values())[last - 1].right, more

    return run


def pyautoattack(model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float) -> Found:
    from pyautoattack import AutoAttack

    attack = AutoAttack(model.requires_grad_(False), eps=eps, seed=0)
    return score(model, attack.run_standard_evaluation(x, y)[0], y).correct, {}


def art(model: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float) -> Found:
    from art.attacks.evasion import AutoAttack

    np.random.seed(0)
    attack = AutoAttack(art_classifier(model, x), norm="inf", eps=eps, batch_size=100)
    for part in attack.attacks:
        part.set_params(verbose=False)
    return score(model, torch.from_numpy(attack.generate(x.numpy(), y.numpy())), y).correct, {}


PROGRAMS: dict[str, tuple[Callable[[nn.Module, torch.Tensor, torch.Tensor, float], Found], bool]] = {
    "advmix": (ours("autoattack"), False),
    "fast": (ours("fast"), False),
    "pyautoattack": (pyautoattack, False),
    "usual": (pyautoattack, True),
    "ART": (art, True),
}
"""Each with whether it gets the network as it is usually written."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="checkpoints")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--eps", type=float, default=0.3)
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    chosen = parser.parse_args()
    device = torch.device("cpu")
    runtime.configure(1, device)
    session = Session.open()
    for ref in resolve_models(session, chosen.models):
        images = session.images(ref.dataset, "test").first(chosen.images)
        x, y = attacks.to_float(images.x), images.y
        standing: dict[str, torch.Tensor] = {}
        seconds: dict[str, float] = {}
        for name in chosen.programs.split(","):
            run, usual = PROGRAMS[name]
            model = load_model(ref, device)
            began = time.process_time()
            standing[name], more = run(textbook(model) if usual else model, x, y, chosen.eps)
            seconds[name] = more.setdefault("processor_s", round(time.process_time() - began, 2))
            said = {"model": ref.label, "program": name, "images": len(y), "left": int(standing[name].sum()), **more}
            if "advmix" in standing:
                said |= {"left_by_it_alone": int((standing[name] & ~standing["advmix"]).sum()),
                         "left_by_advmix_alone": int((standing["advmix"] & ~standing[name]).sum()),
                         "times": round(seconds[name] / max(seconds["advmix"], 0.01), 2)}  # fmt: skip
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
