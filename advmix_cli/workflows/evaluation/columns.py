"""Which columns an evaluation has: from what was asked, before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from advmix_cli.config import EvalSettings
from advmix_cli.data import DatasetInfo
from advmix_cli.threats import Threat
from advmix_cli.workflows.evaluation.record import Column
from advmix_cli.workflows.references import SamplesRef


def columns(samples: Sequence[SamplesRef], settings: EvalSettings, fingerprint: str, info: DatasetInfo) -> list[Column]:
    """Clean images, caches, white-box threats, the worst case where there are several of these, and what is proved."""
    found = [Column("clean", "clean"), *(_of_cache(cache, fingerprint) for cache in samples)]
    for threat in settings.threats:
        found += _of_threat(threat)
    worst = _worst(found, samples, settings, info)
    found += [Column("worst", "worst case", bound="upper", of=tuple(worst))] if worst else []
    proved = settings.certified
    return found + ([Column("certified", proved.label, bound="lower", proved=proved)] if proved else [])


def _of_cache(cache: SamplesRef, fingerprint: str) -> Column:
    record = cache.record
    if record is None:
        return Column("samples", cache.label, joint=False)
    ours = record["fingerprint"] == fingerprint
    source = record["model"]["name"]
    return Column("samples", cache.label, cache.threat, "upper" if ours else None, source, joint=ours)


def _of_threat(threat: Threat) -> Iterator[Column]:
    yield Column("attack", threat.label, threat, "upper")
    beyond = threat.parts[threat.standard :]
    if beyond:
        label = "+".join([threat.label, *(part.attack for part in beyond)])
        yield Column("attack", label, threat, "upper", further=True)


def _worst(found: list[Column], samples: Sequence[SamplesRef], settings: EvalSettings, info: DatasetInfo) -> list[int]:
    """The columns that a worst case is taken over: white-box threats and the caches of all the same images.

    None for fewer than two threats.
    """
    if len(settings.threats) < 2:
        return []
    n = settings.limit or info.sizes.get(settings.split, 0)  # no cache is of validation images
    caches = [
        i
        for i, cache in enumerate(samples, 1)
        if found[i].joint and cache.record is not None and cache.record["n"] >= n
    ]
    return caches + [i for i, column in enumerate(found) if column.kind == "attack"]
