"""`advmix data` and `models`: which images and which networks there are, and what a name would give."""

from __future__ import annotations

import shlex
from typing import Any

from advmix_cli import data, models, zoo
from advmix_cli.errors import AdvmixError
from advmix_cli.models import ARCHITECTURES, Network
from advmix_cli.names import full_name, kind_of
from advmix_cli.results import Facts, Result, Table, shown
from advmix_cli.workflows import datasets
from advmix_cli.workflows.choosing import Asked
from advmix_cli.workflows.session import Session


def list_data(session: Session) -> Result:
    """The data sets that are known by name, whether they are there, and those that were prepared."""
    entries = [(entry, data.present(entry.name, session.data_root)) for entry in data.DATASETS.values()]
    entries += [(info, True) for info in datasets.prepared_sets(session)]
    sets: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "title": entry.title,
            "train": entry.sizes["train"],
            "test": entry.sizes["test"],
            "shape": list(entry.shape),
            "arch": entry.arch,
            "present": present,
        }
        for entry, present in entries
    ]
    rows = [
        (
            shown(each["name"]), str(each["train"]), str(each["test"]), _sides(each["shape"]), each["arch"],
            "yes" if each["present"] else "no", shown(each["title"]),
        )
        for each in sets
    ]  # fmt: skip
    table = Table(
        ("name", "train", "test", "shape", "default arch", "there", "what"),
        rows,
        right=("train", "test"),
        note=f"files are in {session.data_root} (set ADVMIX_DATA to change that)\n"
        "your own: folder:PATH, npz:PATH, torchvision:NAME",
    )
    missing = [each["name"] for each in sets if not each["present"]]
    return Result(
        {"root": str(session.data_root), "datasets": sets},
        [each["name"] for each in sets],
        [table],
        f"get one: advmix data fetch {missing[0]}" if missing else "train on one: advmix train --dataset cifar10",
    )


def check_data(session: Session, names: list[str], *, fetch: bool) -> Result:
    """Fetch or prepare what is not there, or read what is; give the fingerprints of the images."""
    chosen = [full_name(name) for name in names] or [
        name for name in data.DATASETS if fetch or data.present(name, session.data_root)
    ]
    found, rows = {}, []
    for name in chosen:
        if not fetch and kind_of(name) == "named" and not data.present(name, session.data_root):
            raise AdvmixError(
                f"{name} is not in {session.data_root}",
                f"get it: advmix data fetch {name}",
                code="data-unavailable",
            )
        found[name] = session.fingerprint(name, fresh=True)
        sizes = session.dataset(name).sizes
        rows.append((shown(name), f"ok, {sizes['train']} + {sizes['test']} images, {found[name]}"))
    return Result(
        {"root": str(session.data_root), "fingerprints": found},
        list(found),
        [Facts(rows)],
        f"use it: advmix train --dataset {shown(chosen[0])}" if chosen else "",
    )


def list_models(session: Session, asked: Asked) -> Result:
    """What ships trained and what is built in; or what one name gives for images of a data set, or of its own shape."""
    if asked.arch is None:
        return _built_in()
    if "*" in asked.arch:
        return _like(asked.arch)
    if asked.dataset is not None:
        info, network = asked.resolve(session)
        on = info.name
    else:
        entry = ARCHITECTURES.get(asked.arch)
        side = asked.image_size or (entry.shape[1] if entry else 32)
        shape = (entry.shape[0] if entry else 3, side, side)
        arch, code = models.named(asked.arch)
        mean, std = {None: (None, None), "none": ((), ())}.get(asked.normalize, (None, None))
        network = Network(arch, shape, 10, tuple(asked.arch_arg), mean, std, code)
        on = "ten classes"
    return _described(network, on, asked)


def _built_in() -> Result:
    shipped = [{"name": zoo.PREFIX + name, **about} for name, about in zoo.known().items()]
    trained = Table(
        ("model", "clean %", "robust %", "of", "what"),
        [
            (e["name"], f"{e['clean']:.2f}", f"{e['lower']:.1f} to {e['upper']:.1f}", f"{e['n']:,}", e["title"])
            for e in shipped
        ],
        right=("clean %", "robust %", "of"),
        note="robust: what is proved, and what the standard ensemble and square-pgd leave; their commands: --json",
    )
    found = [
        {"name": each.name, "title": each.title, "shape": list(each.shape), "any_size": each.any_size}
        for each in ARCHITECTURES.values()
    ]
    rows = [(str(e["name"]), _sides(e["shape"]) + (" or another size" if e["any_size"] else ""), str(e["title"]))
            for e in found]  # fmt: skip
    table = Table(
        ("name", "images", "what"),
        rows,
        note="others: timm:NAME and torchvision:NAME ('timm:resnet*' lists them), FILE.py:FACTORY",
    )
    names = [*(e["name"] for e in shipped), *ARCHITECTURES]
    return Result({"models": shipped + found}, names, [trained, table], "what a name gives: advmix models resnet18")


def _like(pattern: str) -> Result:
    from advmix_cli.models import building

    names = building.listed(pattern)
    facts = Facts([("", name) for name in names] or [("", "none")])
    return Result({"models": names}, names, [facts], f"what one gives: advmix models {names[0]}" if names else "")


def _described(network: Network, on: str, asked: Asked) -> Result:
    from advmix_cli import mixing
    from advmix_cli.models.normalize import normalisation

    models.check_fit(network, on)
    model = models.build(network)
    parameters = sum(each.numel() for each in model.parameters())
    stages = mixing.stages(model)
    said = normalisation(model)
    rows = [
        ("network", shown(network.arch)),
        ("images", f"{_sides(network.shape)} of {shown(on)}"),
        ("classes", str(network.classes)),
        ("parameters", f"{parameters:,}"),
        ("normalisation", "none" if said is None else f"mean {_numbers(said['mean'])}, std {_numbers(said['std'])}"),
        ("stage 0", "the image"),
        *((f"stage {number}", path.removeprefix("network.")) for number, path in enumerate(stages, 1)),
    ]
    found = {
        "arch": network.arch, "shape": list(network.shape), "classes": network.classes, "parameters": parameters,
        "normalisation": said, "stages": ["image", *(path.removeprefix("network.") for path in stages)],
    }  # fmt: skip
    return Result(found, [network.arch], [Facts(rows)], _train(network, asked))


def _train(network: Network, asked: Asked) -> str:
    """How to train what was described."""
    given = [f"--dataset {shlex.quote(shown(asked.dataset))}"] if asked.dataset else []
    given += [f"--image-size {asked.image_size}"] if asked.image_size else []
    given += [f"--arch {shlex.quote(shown(network.arch))}", *(f"--arch-arg {shlex.quote(a)}" for a in asked.arch_arg)]
    return " ".join(["train it: advmix train", *given])


def _sides(shape: Any) -> str:
    return "x".join(map(str, shape))


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
