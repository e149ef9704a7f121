"""A card as Markdown: what is known of a model, for people, behind the block that the hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from advmix_cli.results import accuracy, duration, share, shown
from advmix_cli.threats import Threat
from advmix_cli.workflows.card.limits import ball, limits
from advmix_cli.workflows.card.metadata import metadata, yaml
from advmix_cli.workflows.evaluation import statistics

Plain = dict[str, Any]

_MOST_CLASSES = 20
_MARKS = re.compile(r"([\\`*_{}\[\]|~#$])")


def markdown(card: Plain) -> str:
    """The whole file."""
    parts = [
        ("What it is", _what(card)),
        ("How it was trained", _training(card)),
        ("What is known of its accuracy", _accuracy(card)),
        ("Audit", _audit(card)),
        ("Per class", _per_class(card)),
        ("Limits", (f"- {escaped(each)}" for each in limits(card))),
        ("The commands that make it again", [fenced("sh", "\n".join(card["commands"]))]),
        ("Digests", [_digests(card)]),
    ]
    text = [f"---\n{yaml(metadata(card))}---", f"# {escaped(card['title'])}"]
    for title, lines in parts:
        text += [f"## {title}", *_joined(lines)]
    return "\n\n".join(text) + "\n"


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Paragraphs; the points of a list stay together."""
    points: list[str] = []
    for line in lines:
        if line.startswith("- "):
            points.append(line)
            continue
        if points:
            yield "\n".join(points)
        points = []
        yield line
    if points:
        yield "\n".join(points)


def escaped(text: str) -> str:
    """Text that means nothing but itself, on one line, in a table too."""
    flat = " ".join(shown(text).split())
    said = _MARKS.sub(r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", said)  # no list, no line, no title


def fenced(language: str, text: str) -> str:
    """Lines as they are, behind a fence that is longer than any within."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{shown(text)}\n{fence}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """Cells of any text."""
    lines = [columns, ["---:" if column in right else "---" for column in columns]]
    lines += [[escaped(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _what(card: Plain) -> Iterator[str]:
    model = card["model"]
    names = model["class_names"] or [str(i) for i in range(model["classes"])]
    more = len(names) - _MOST_CLASSES
    classes = ", ".join(names[:_MOST_CLASSES]) + (f" and {more} others" if more > 0 else "")
    normalised = model["normalisation"]
    inside = "none"
    if normalised:
        mean, std = (" ".join(f"{value:.4g}" for value in normalised[part]) for part in ("mean", "std"))
        inside = f"mean {mean}, std {std}, inside the model"
    yield escaped(
        f"An image classifier ({model['arch']}) for {model['dataset']}, made with advmix: it takes float images "
        f"(N,{','.join(map(str, model['shape']))}) in [0,1] and gives {model['classes']} logits for each."
    )
    rows = [
        ("name", model["name"]), ("weights", model["weights"]), ("network", model["arch"]),
        ("images", f"{_sides(model['shape'])} of {model['dataset']}"), ("classes", classes), ("normalisation", inside),
    ]  # fmt: skip
    yield table(("", ""), rows + ([("network's file, SHA-256", model["code_sha256"])] if model["code_sha256"] else []))
    ours = card["load"]["advmix"]
    yield fenced("sh" if ours.startswith("advmix ") else "python", ours)
    if "torch" in card["load"]:
        yield "The network itself, in torch:"
        yield fenced("python", card["load"]["torch"])


def _training(card: Plain) -> Iterator[str]:
    steps = card["training"]
    for i, each in enumerate(steps, 1):
        if len(steps) > 1:
            yield f"{i}. {escaped(each['name'])}:"
        yield table(("", ""), list(_step(each)))


def _step(each: Plain) -> Iterator[tuple[str, str]]:
    if each["origin"] == "gone":
        yield "how", "not known: it is not in the store"
        return
    if each["origin"] == "import":
        yield "how", f"not known: imported from {each['source']}"
        return
    images = each["images"]
    yield "method", each["title"] + (f", {each['reference']}" if each["reference"] else "")
    if each["against"]:
        yield "against", each["against"]
    yield "begun from", _begun(each)
    held = (
        f"{images['train']:,} to learn from, {images['validation']:,} to choose the epoch, {images['test']:,} to test"
    )
    yield "data", f"{each['dataset']}: {held}"
    mix = (
        "none"
        if each["mix"] == "none"
        else f"{each['mix']}, lambda from Beta({each['mix_alpha']:g}, {each['mix_alpha']:g})"
    )
    yield "mix", mix + (f", soft labels {each['soft_label']:g}" if each["soft_label"] else "")
    shift = [f"shifts of {each['crop_padding']}"] if each["crop_padding"] else []
    augmented = [
        *(["mirror images"] if each["flip"] else []),
        *shift,
        *([each["augment"]] * (each["augment"] != "none")),
    ]
    yield "augmentation", ", ".join(augmented) or "none"
    decay = f", weight decay {each['weight_decay']:g}" if each["weight_decay"] else ""
    clip = f", gradients clipped to a norm of {each['clip']:g}" if each["clip"] else ""
    ema = f", weights averaged ({each['ema']:g})" if each["ema"] else ""
    learned = f"{each['optimizer']}, lr {each['lr']:g}, {each['schedule']}, batches of {each['batch_size']}"
    yield "optimiser", f"{learned}{decay}{clip}{ema}"
    yield "epochs", f"{each['epochs']}, chosen: {each['best_epoch']} (by {each['chosen_by']})"
    if each["eps"] is not None:
        yield "eps", ball(each["norm"], each["eps"])
    if each["steps"] is not None:
        yield "steps", str(each["steps"])
    yield "seed", str(each["seed"])
    if each["tested"]:
        yield "tested after it", f"{share(each['tested']['accuracy'], each['tested']['n'])} clean"
    if each["tested_attacked"]:
        under = each["tested_attacked"]
        threat = Threat.from_dict(under["threat"])
        yield "tested after it, attacked", f"{share(under['accuracy'], under['n'])} under {threat} (an upper bound)"
    made = each["made"]
    yield (
        "made",
        (
            f"{made['date'][:10]} on {made['gpu'] or made['device']} in {duration(made['seconds'])}, advmix "
            f"{made['advmix']}, torch {made['torch']}"
        ),
    )


def _begun(each: Plain) -> str:
    file = each["begun_from_file"]
    return each["begun_from"] or (f"the file {file['file']}" if file else f"fresh weights, seed {each['seed']}")


def _accuracy(card: Plain) -> Iterator[str]:
    if not card["figures"]:
        yield f"Nothing has been measured. To measure it:\n\n{fenced('sh', card['measure'])}"
        return
    for each in card["brackets"]:
        unattacked = "" if each["attacked"] else "; no attack was run: the upper end is the clean accuracy"
        yield (
            f"**The true figure {statistics.lies(each)}** "
            + escaped(f"({ball(each['norm'], each['eps'])}, {_images(each)}){unattacked}.")
        )
    columns = ("on", "the figure is", "images", "accuracy %", "95 % interval", "evaluation")
    yield table(columns, [_row(each) for each in card["figures"]], ("accuracy %",))
    yield (
        "Under attack an image counts only if it is right before and after. Intervals are Wilson's, of the sampling of "
        "images alone."
    )


def _row(each: Plain) -> tuple[str, ...]:
    what = each["what"] + (f"; verdicts by {each['inference']}" if each["inference"] else "")
    bound = {"upper": "an upper bound", "lower": "a lower bound", None: "measured"}[each["bound"]]
    if each["note"]:
        bound = f"nothing: {each['note']}"
    elif each["bound"] is None and each["kind"] != "clean":
        bound = "on the attacked images alone"
    interval = "[{:.2f}, {:.2f}]".format(*each["accuracy_ci95"])
    return what, bound, _images(each), f"{each['accuracy']:.2f}", interval, each["evaluation"] or "ships with advmix"


def _images(each: Plain) -> str:
    of, n = each["of"], f"{each['n']:,}"
    many = f"all {n}" if of == each["n"] else f"the first {n} of {of:,}" if of is not None else n
    return f"{many} {each['dataset']} {each['split']} images"


def _audit(card: Plain) -> Iterator[str]:
    if not card["audits"]:
        yield "No audit has been made: whether gradients are masked is not known."
        return
    for each in card["audits"]:
        robust = each["robust"]
        yield (
            f"**{escaped(each['verdict'])}** "
            + escaped(
                f"({ball(each['norm'], each['eps'])}, {each['n']:,} images of {each['dataset']} {each['split']}, "
                f"{each['evaluation']}). The strongest attack that it found, {robust['attack']}, leaves "
                f"{accuracy(robust['correct'], robust['n'])}, an upper bound."
            )
        )
        told = [check for check in each["checks"] if check["verdict"] != "ok"]
        if told:
            rows = [(check["name"], check["verdict"], _value(check), check["advice"]) for check in told]
            yield table(("check", "verdict", "value", "advice"), rows)


def _value(check: Plain) -> str:
    return f"{'infinite' if check['value'] is None else format(check['value'], '.4g')} {check['unit']}"


def _per_class(card: Plain) -> Iterator[str]:
    names = card["model"]["class_names"] or [str(i) for i in range(card["model"]["classes"])]
    found = [each for each in card["figures"] if each["by_class"] and len(each["by_class"]) == len(names)]
    if not found:
        yield "No evaluation of it has recorded this."
        return
    heads = [f"({i}) %" for i in range(1, len(found) + 1)]
    counts = [[each["by_class"][i] for each in found] for i in range(len(names))]
    rows = [
        (name, *(f"{100 * right / n:.1f} of {n:,}" if n else "-" for n, right in row))
        for name, row in zip(names, counts, strict=True)
    ]
    yield table(("class", *heads), rows, heads)
    yield "\n".join(f"- ({i}) {escaped(each['what'])}" for i, each in enumerate(found, 1))


def _digests(card: Plain) -> str:
    model = card["model"]
    rows = [("weights", f"{model['name']}@{model['weights']}", model["digest"]), ("key", model["name"], model["key"])]
    rows += [("data", model["dataset"], model["fingerprint"])] if model["fingerprint"] else []
    rows += [("weights", f"{each['name']}@{each['weights']}", each["digest"]) for each in card["training"][:-1]]
    caches = {cache["name"]: cache["digest"] for each in card["evaluations"] for cache in each["caches"]}
    rows += [("attacked images", *each) for each in caches.items()]
    rows += [("evaluation's key", each["name"], each["key"]) for each in card["evaluations"]]
    known = {model["fingerprint"]}
    for each in card["evaluations"]:
        rows += [("data", each["dataset"], each["fingerprint"])] if each["fingerprint"] not in known else []
        known.add(each["fingerprint"])
    return table(("of", "name", "SHA-256"), rows)
