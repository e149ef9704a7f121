"""The options that say which images and which network are meant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from advmix_cli.cli.values import complete, several, stage
from advmix_cli.data import DATASETS
from advmix_cli.models import ARCHITECTURES, OTHERS
from advmix_cli.names import SOURCES

_IMAGES = "The images: a name (advmix data list), folder:PATH, npz:PATH or torchvision:NAME."
_NETWORK = "The network: a name (advmix models), timm:NAME, torchvision:NAME or FILE.py:FACTORY."


def _dataset(shown: str | bool) -> Any:
    complete_sets = complete(*DATASETS, *(f"{source}:" for source in SOURCES))
    return typer.Option("--dataset", help=_IMAGES, show_default=shown, autocompletion=complete_sets)


def _arch(shown: str) -> Any:
    complete_archs = complete(*ARCHITECTURES, *(f"{other}:" for other in OTHERS))
    return typer.Option("--arch", help=_NETWORK, show_default=shown, autocompletion=complete_archs)


Dataset = Annotated[str, _dataset(True)]
ImportDataset = Annotated[str | None, _dataset("its own, else mnist")]
ModelDataset = Annotated[str | None, _dataset("the model's")]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        metavar="N",
        help="Resize and crop the images to NxN.",
        show_default="the network's, else the data's",
    ),
]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Leave out pictures that cannot be read, and say how many.")
]
Arch = Annotated[str | None, _arch("what suits the images")]
ArchArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--arch-arg",
        metavar="KEY=VALUE",
        help="For the network's factory; may be given several times.",
        show_default=False,
    ),
]
Normalize = Annotated[
    str | None,
    typer.Option(
        "--normalize",
        metavar="MEAN:STD",
        help="What the network does to its images first: none, data (their own mean and std), or numbers, with commas "
        "between channels.",
        show_default="the network's own, else the data's",
    ),
]
OthersWeights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Begin from a state dict; a head for other classes begins afresh.",
        show_default=False,
    ),
]
MixStages = Annotated[
    Any,
    typer.Option(
        "--mix-stages",
        parser=several(stage),
        metavar="STAGE,...",
        help="Where manifold mixes: numbers (0 is the image) or modules such as layer1; see advmix models.",
        show_default="by the network",
    ),
]
InitDataset = Annotated[str | None, _dataset("that of --init")]
InitArch = Annotated[str | None, _arch("that of --init")]
