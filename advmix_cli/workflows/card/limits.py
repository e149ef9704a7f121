"""What a card's figures do not say: sentences that follow from the facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from advmix_cli.results import accuracy
from advmix_cli.settings import number

Plain = dict[str, Any]


def limits(card: Plain) -> list[str]:
    """All that apply."""
    return [*_of_training(card), *_of_figures(card), *_of_audits(card), *_of_what_was_tried(card)]


def ball(norm: str, eps: float) -> str:
    """For people."""
    return f"{norm} eps {number(eps)}"


def attacked(card: Plain) -> list[Plain]:
    """The figures that bound the robust accuracy from above: correct attacks, and the network's own verdicts."""
    return [
        each
        for each in card["figures"]
        if each["bound"] == "upper" and each["joint"] and not each["inference"] and not _as_run(each)
    ]


def _as_run(figure: Plain) -> bool:
    return figure["threat"] is not None and figure["threat"]["variant"] == "as-run"


def _balls(figures: list[Plain]) -> list[str]:
    """Of what attacks and certificates were for; the worst case is over others that stand beside it."""
    threats = [each["threat"] or each["certificate"] for each in figures if each["threat"] or each["certificate"]]
    return list(dict.fromkeys(ball(each["norm"], each["eps"]) for each in threats))


def _of_training(card: Plain) -> Iterator[str]:
    last = card["training"][-1]
    if last["origin"] == "import":
        yield "It was imported: how it was trained is not known."
    elif card["training"][0]["origin"] == "gone":
        begun = card["training"][0]["name"]
        yield f"What it began from, {begun}, is not in the store: how that was trained is not said."
    if last["origin"] != "import":
        yield f"It is one training run, of seed {last['seed']}: another seed comes to other figures."


def _of_figures(card: Plain) -> Iterator[str]:
    if not card["figures"]:
        yield "Nothing has been measured: no evaluation of it is in the store."
        return
    upper, proved = attacked(card), {(each["norm"], each["eps"]) for each in card["brackets"]}
    open_above = [each for each in upper if each["threat"] and not _proved(each["threat"], proved)]
    if open_above:
        yield (
            f"Nothing is proved in {', '.join(_balls(open_above))}: attacks bound the true figure from above only, and "
            "a stronger attack may take more."
        )
    named = {each["threat"]["attack"] for each in upper if each["threat"]}
    if open_above and "autoattack" not in named:
        yield "The standard ensemble (AutoAttack) was not run: the attacks that were may be weak ones."
    unattacked = [each for each in card["brackets"] if not each["attacked"]]
    both = {(each["norm"], each["eps"]) for each in card["brackets"] if each["attacked"]}
    if any((each["norm"], each["eps"]) not in both for each in unattacked):
        yield "Where no attack was run, the upper end of a bracket is the clean accuracy."
    notes = {each["note"] for each in card["figures"] if each["note"]}
    if notes:
        yield f"Bounds could not be had ({'; '.join(sorted(notes))}): its certified figure of 0 says nothing."
    for (dataset, split, of), sizes in _partly(card):
        said = ", ".join(f"{n:,}" for n in sizes)
        yield f"On {dataset} {split} only the first {said} of {of:,} images were met where the table says so."
    others = sorted({each["dataset"] for each in card["figures"]} - {card["model"]["dataset"]})
    if others:
        yield f"It learned {card['model']['dataset']}; figures on {', '.join(others)} are of other images."
    if any(each["kind"] == "samples" and not each["own"] for each in card["figures"]):
        yield "Images that were attacked against other models are a weaker test than an attack on this one."
    if any(not each["joint"] for each in card["figures"]):
        yield "Where the clean originals of attacked images are not known, the figure is on the attacked ones alone."
    if any(_as_run(each) for each in card["figures"]):
        yield "The as-run attack leaves its ball: its figures compare with the report's code and with nothing else."
    if any(each["inference"] for each in card["figures"]):
        yield "Verdicts from mixtures are drawn at random: they are no claim of robustness."


def _proved(threat: Plain, proved: set[tuple[str, float]]) -> bool:
    """Whether a bracket is of a ball that holds the threat's."""
    return any(norm == threat["norm"] and threat["eps"] <= eps for norm, eps in proved)


def _partly(card: Plain) -> list[tuple[tuple[str, str, int], list[int]]]:
    found: dict[tuple[str, str, int], set[int]] = {}
    for each in card["figures"] + card["brackets"]:
        if each["of"] is not None and each["n"] < each["of"]:
            found.setdefault((each["dataset"], each["split"], each["of"]), set()).add(each["n"])
    return [(where, sorted(sizes)) for where, sizes in found.items()]


def _of_audits(card: Plain) -> Iterator[str]:
    for each in card["audits"]:
        if each["verdict"] == "masked":
            robust = each["robust"]
            yield (
                "Its gradients are masked, says the audit: what gradient attacks leave is not to be believed. The "
                f"strongest attack that it tried, {robust['attack']}, leaves "
                f"{accuracy(robust['correct'], robust['n'])} of {robust['n']:,} images."
            )
        elif each["verdict"] == "suspicious":
            yield "The audit is suspicious of its gradients: stronger attacks take more than the weaker ones say."
        elif each["verdict"] == "at chance":
            yield "It is at chance, says the audit: it has learned nothing, and its robustness means nothing."
    if attacked(card) and not card["audits"]:
        yield "No audit has looked for masked gradients."


def _of_what_was_tried(card: Plain) -> Iterator[str]:
    if not card["figures"]:
        return
    met = _balls(attacked(card) + [each for each in card["figures"] if each["kind"] == "certified"])
    if not met:
        yield "Only its clean accuracy is known: nothing is said of its robustness."
    else:
        yield (
            f"Nothing is said outside {', '.join(met)} around the images of this test: of other norms, larger changes, "
            "noise, blur, rotations, or images from elsewhere."
        )
