"""The block that the Hugging Face hub reads off a card, and writing it as YAML."""

from __future__ import annotations

import json
from typing import Any

from advmix_cli.results import shown
from advmix_cli.ways import METHODS
from advmix_cli.workflows.card.limits import attacked, ball

Plain = dict[str, Any]

_ON_THE_HUB = {
    "mnist": "ylecun/mnist", "fashion-mnist": "zalando-datasets/fashion_mnist", "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100", "svhn": "ufldl-stanford/svhn",
}  # fmt: skip
"""What the hub calls the sets that are known by name; others go by the name that they have here."""


def _dataset(name: str) -> str:
    base = next((base for base in _ON_THE_HUB if name == base or name.startswith(f"{base}-")), "")
    resized = name.removeprefix(f"{base}-").isdigit()  # mnist-28 is mnist at 28 pixels
    return _ON_THE_HUB[base] if base and (resized or name == base) else name


def metadata(card: Plain) -> Plain:
    """It in plain values: what is known, and nothing else."""
    trained = [each for each in card["training"] if each["origin"] not in ("import", "gone")]
    sets = dict.fromkeys(_dataset(each["dataset"]) for each in card["training"] if "dataset" in each)
    results = _results(card)
    return {
        "library_name": "advmix",
        **({"license": card["license"]} if card["license"] else {}),
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys(["advmix", "adversarial-robustness", *_tags(trained)])),
        "datasets": list(sets),
        **({"metrics": ["accuracy"], "model-index": [{"name": card["title"], "results": results}]} if results else {}),
    }


def _tags(trained: list[Plain]) -> list[str]:
    tags = []
    for each in trained:
        if each["method"] != "standard":
            tags += ["certified-training" if METHODS[each["method"]].certified else "adversarial-training"]
            tags += [each["method"]]
        tags += {"mixup": ["mixup"], "manifold": ["manifold-mixup"]}.get(each["mix"], [])
    return tags


def _results(card: Plain) -> list[Plain]:
    """The figures that stand on their own: of the network itself, by correct attacks on it, each with its threat."""
    found: dict[tuple[str, str], list[Plain]] = {}
    strong = attacked(card)
    for each in card["figures"]:
        metric = _metric(each)
        if metric and each["own"] and not each["inference"] and (each["bound"] != "upper" or each in strong):
            value = {"value": round(each["accuracy"], 4)}
            found.setdefault((each["dataset"], each["split"]), []).append(metric | value)
    return [
        {
            "task": {"type": "image-classification", "name": "Image classification"},
            "dataset": {"type": _dataset(dataset), "name": dataset, "split": split},
            "metrics": metrics,
        }
        for (dataset, split), metrics in found.items()
    ]


def _metric(figure: Plain) -> Plain | None:
    n = f"{figure['n']:,} images"
    if figure["kind"] == "clean":
        return {"type": "accuracy", "name": f"accuracy, clean, {n}"}
    if figure["kind"] == "certified" and not figure["note"]:
        proved = figure["certificate"]
        name = f"certified accuracy, {ball(proved['norm'], proved['eps'])}, bounds {proved['bounds']}, {n}"
        return {"type": "certified_accuracy", "name": f"{name} (a lower bound)"}
    if figure["bound"] == "upper":
        return {"type": "robust_accuracy", "name": f"robust accuracy, {figure['what']}, {n} (an upper bound)"}
    return None


def yaml(value: Any, indent: str = "") -> str:
    """Plain values as YAML: texts as JSON has them, which is YAML too, so that no character in one means anything."""
    lines = []
    pairs = value.items() if isinstance(value, dict) else (("-", each) for each in value)
    for name, each in pairs:
        key = "-" if name == "-" else f"{name}:"
        if isinstance(each, dict | list) and each:
            inner = yaml(each, indent + "  ")
            lines.append(f"{indent}- {inner.lstrip()}" if name == "-" else f"{indent}{key}\n{inner}")
        else:
            lines.append(f"{indent}{key} {_scalar(each)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    return json.dumps(shown(value) if isinstance(value, str) else value, ensure_ascii=False)
