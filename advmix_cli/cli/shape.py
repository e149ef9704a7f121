"""The form all commands have: options in groups, `-h`, names in any case, lists with commas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

Function = TypeVar("Function", bound=Callable[..., Any])

_GROUPS = {
    "Images and network": (
        "dataset", "image_size", "skip_damaged", "split", "limit", "arch", "arch_arg", "normalize", "untrained",
        "samples", "init", "weights",
    ),
    "Training": (
        "epochs", "lr", "method", "method_arg", "policy", "mix", "mix_alpha", "mix_stages", "mix_order",
        "soft_label", "augment", "awp", "ema", "sync_bn",
    ),
    "Threat": (
        "attack", "norm", "eps", "alpha", "steps", "restarts", "random_start", "loss", "targets", "queries",
        "early_stop",
    ),
    "Verdict": (
        "audit", "certify", "bounds", "inference", "inference_arg", "baseline", "pairwise", "fail_on",
    ),
    "Run": ("seed", "preset", "precision", "shard", "device", "threads", "force", "batch_size"),
    "Output": ("name", "report", "out", "log", "tensorboard", "verbose", "format", "json", "quiet", "help"),
}  # fmt: skip
"""Which option stands in which group; what none of these names comes first."""

_SEVERAL = 20
"""From so many options on they are grouped."""

_NAMES = frozenset({
    "arch", "attack", "augment", "bounds", "dataset", "fail_on", "format", "inference", "kind", "loss", "method", "mix",
    "mix_order", "norm", "normalize", "on", "policy", "precision", "preset", "split", "to", "what",
})  # fmt: skip
"""Options and arguments that take names of this program, all of small letters; one with a colon is of elsewhere."""

_LISTS = frozenset({"attack", "only", "what", "method_arg", "inference_arg", "arch_arg"})


class Command(TyperCommand):
    """A command whose long help is in groups, and that takes names as people write them."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options, each with its help."""
        told = [(param, record) for param in self.get_params(ctx) if (record := param.get_help_record(ctx))]
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], **{name: [] for name in _GROUPS}}
        several = sum(param.param_type_name == "option" for param, _ in told) >= _SEVERAL
        groups = {name: group for group, names in _GROUPS.items() for name in names}
        if any(param.name == "epochs" for param, _ in told):
            groups["batch_size"] = "Training"  # where it changes what comes out
        for param, record in told:
            option = param.param_type_name == "option"
            group = groups.get(param.name or "", "Options") if several else "Options"
            sections[group if option else "Arguments"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def invoke(self, ctx: Any) -> Any:
        """Carry it out with names in small letters and lists taken apart."""
        for name, value in ctx.params.items():
            if name in _LISTS and isinstance(value, list):
                value = [each.strip() for given in value for each in given.split(",")]
            ctx.params[name] = _small(value) if name in _NAMES else value
        return super().invoke(ctx)


def _small(value: Any) -> Any:
    """Names in small letters."""
    if isinstance(value, list | tuple):
        return type(value)(_small(each) for each in value)
    return value.lower() if isinstance(value, str) and ":" not in value else value


class App(typer.Typer):
    """Commands of this form."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        """As typer's."""
        return super().command(name, cls=Command, **settings)
