"""What a report shows beside what was counted: how the models learned, and some images as the attack made them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from advmix_cli.config import EvalSettings
from advmix_cli.errors import AdvmixError
from advmix_cli.names import short_name
from advmix_cli.workflows import drawing
from advmix_cli.workflows.references import ModelRef, load_model
from advmix_cli.workflows.session import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IMAGES = 10
_MODELS = 3
"""Of more models no attacked images are shown: the page is to be read in a minute."""


def pictures(session: Session, models: Sequence[ModelRef], settings: EvalSettings) -> Iterator[tuple[str, Figure]]:
    """Captions and pictures. The images are those of the evaluation: a sample's random numbers are its own."""
    different = list({model.function: model for model in reversed(models)}.values())[::-1]  # by their first names
    if settings.threats and settings.inference is None and len(different) <= _MODELS:
        yield from (_attacked(session, model, settings) for model in different)
    trained = [model for model in different if model.record.get("metrics")]
    with contextlib.suppress(AdvmixError):  # what was imported has no epochs
        if trained and len({model.dataset for model in trained}) == 1:
            yield "Accuracy and loss over the epochs of training", drawing.curves(trained, drawing.runs(trained))


def _attacked(session: Session, model: ModelRef, settings: EvalSettings) -> tuple[str, Figure]:
    import torch

    from advmix_cli import attacks

    device = session.device()
    images = session.images(settings.dataset, settings.split, settings.held).first(settings.limit)
    index = drawing.one_of_each(images.y, _IMAGES)
    chosen, net = images.take(index).to(device), load_model(model, device)
    threat = settings.threats[0].parts[0]  # of an ensemble its first attack
    found = attacks.attack_set(
        net, chosen.x, chosen.y, threat, seed=settings.seed, index=index, images=True, batch_size=session.batch_size
    )
    assert found.x_adv is not None
    with torch.no_grad():
        figure = drawing.attacked(
            net, images.info.classes, attacks.to_float(chosen.x[:]), found.x_adv.to(device), chosen.y.cpu(), index,
            threat, found.change.linf, label=model.label,
            title=f"{short_name(settings.dataset)} under {threat}\n"
            f"images of each class in turn; above each its number, below what {model.label} says, and how surely",
        )  # fmt: skip
    return f"Images attacked against {model.label}", figure
