"""AutoAttack beside ART's, on the same models and images in one process: who is left standing, and what it cost.

    python benchmarks/ensemble.py MODEL... --images 1000

Both with their defaults, ART's with batches of 100; ART's ensemble tries Square five times. Our figure is `left`,
after the four standard parts; what the part that follows them left stands beside it, as `left_further`. Seconds are of
the processor, one thread each, so that other work on the machine counts less. ART takes most of an hour for a model
and 1,000 images.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from speed import art_classifier, textbook
from torch import nn

from advmix_cli import attacks, runtime
from advmix_cli.evaluation import score
from advmix_cli.threats import Threat
from advmix_cli.workflows.references import load_model, resolve_models
from advmix_cli.workflows.session import Session


def attacked(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat
) -> tuple[attacks.AttackedSet, list[float]]:
    """What advmix makes of the set, and the processor's seconds up to the end of each part."""
    seconds: list[float] = []
    began = time.process_time()
    found = attacks.attack_set(
        model, x, y, threat, seed=0, on_part=lambda part, left: seconds.append(time.process_time() - began)
    )
    return found, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="checkpoints")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--eps", type=float, default=0.3)
    chosen = parser.parse_args()
    device = torch.device("cpu")
    runtime.configure(1, device)
    session = Session.open()
    for ref in resolve_models(session, chosen.models):
        images = session.images(ref.dataset, "test").first(chosen.images)
        x, y, model = attacks.to_float(images.x), images.y, load_model(ref, device)
        threat = Threat.of("autoattack", "linf", chosen.eps)
        ours, seconds = attacked(model, x, y, threat)
        spent, standard = seconds[threat.standard - 1], list(ours.after.values())[threat.standard - 1].right
        print(json.dumps({"model": ref.label, "program": "advmix", "images": len(y), "left": int(standard.sum()),
                          "left_further": int(ours.robust.sum()),
                          "after": {part: int(after.right.sum()) for part, after in ours.after.items()},
                          "processor_s": round(spent, 1), "processor_s_further": round(seconds[-1], 1)}),
              flush=True)  # fmt: skip

        from art.attacks.evasion import AutoAttack

        np.random.seed(0)
        attack = AutoAttack(art_classifier(textbook(model), x), norm="inf", eps=chosen.eps, batch_size=100)
        for part in attack.attacks:
            part.set_params(verbose=False)
        began = time.process_time()
        x_adv = torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
        art = time.process_time() - began
        theirs = score(model, x_adv, y).correct
        print(json.dumps({"model": ref.label, "program": "ART", "images": len(y), "left": int(theirs.sum()),
                          "left_by_art_alone": int((theirs & ~standard).sum()),
                          "left_by_art_alone_further": int((theirs & ~ours.robust).sum()),
                          "left_by_advmix_alone": int((standard & ~theirs).sum()),
                          "left_by_advmix_alone_further": int((ours.robust & ~theirs).sum()),
                          "processor_s": round(art, 1), "times": round(art / spent, 2)}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
