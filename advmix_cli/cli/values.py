"""How options are read, completed, and their defaults shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from advmix_cli import presets, zoo
from advmix_cli.settings import fraction
from advmix_cli.settings import number as written
from advmix_cli.store import Store, check_alias
from advmix_cli.threats import ATTACKS


def complete(*choices: str) -> Callable[[str], list[str]]:
    """Completion from these words."""
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


def complete_refs(*kinds: str) -> Callable[[str], list[str]]:
    """Completion from the aliases and names of those kinds."""

    def complete(incomplete: str) -> list[str]:
        store = Store()
        aliases = [alias for alias, (kind, _) in store.refs().items() if kind in kinds]
        names = [name for kind in kinds for name in store.names(kind)]
        shipped = zoo.names() if "checkpoints" in kinds else []
        return [name for name in ("latest", *aliases, *shipped, *names) if name.startswith(incomplete)]

    return complete


def read_number(text: str | float) -> float:
    """A number or fraction."""
    if isinstance(text, float):
        return text
    try:
        return fraction(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; write a number or a fraction such as 0.3 or 8/255") from None


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number") from None


def stage(text: str) -> int | str:
    """Where to mix: a number of a stage, or the path of a module."""
    return int(text) if text.isdecimal() else text


def several(read: Callable[[str], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Values with commas between, each once."""

    def parse(given: Any) -> tuple[Any, ...]:
        return given if isinstance(given, tuple) else tuple(dict.fromkeys(read(each) for each in str(given).split(",")))

    return parse


def defaults(table: presets.Table, setting: str) -> str:
    """What the default preset says of a setting, data set by data set."""
    values = {name: values[setting] for name, values in table["default"].items() if setting in values}
    if len(set(values.values())) == 1:
        return shown(next(iter(values.values())))
    return ", ".join(f"{name} {shown(value)}" for name, value in values.items())


def shown(value: Any) -> str:
    """A default as people write it."""
    return written(value) if isinstance(value, float) else str(value)


def eps_defaults() -> str:
    """The default eps, data set by data set."""
    return ", ".join(f"{name} {written(presets.threat('default', name).eps)}" for name in presets.ATTACK["default"])


def alias(name: str | None) -> str | None:
    """A name for what is made."""
    return None if name is None else check_alias(name)


def epochs(table: presets.Table) -> Any:
    """The option of that recipe."""
    return typer.Option("--epochs", help="Epochs.", show_default=defaults(table, "epochs"))


def batch_size(table: presets.Table) -> Any:
    """The option of that recipe."""
    return typer.Option("--batch-size", help="Images a step.", show_default=defaults(table, "batch_size"))


def learning_rate(table: presets.Table) -> Any:
    """The option of that recipe."""
    shown = defaults(table, "lr")
    return typer.Option(
        "--lr", parser=read_number, metavar="NUMBER", help="The (largest) learning rate.", show_default=shown
    )


def declared(option: str, *first: str) -> str:
    """What attacks declare of an option, those of equal values together."""
    values: dict[Any, list[str]] = {}
    for attack in ATTACKS.values():
        if option in attack.options and option in attack.settings:
            values.setdefault(attack.settings[option], []).append(attack.name)
    return "; ".join([*first, *(f"{', '.join(names)} {value}" for value, names in values.items())])


def steps(table: presets.Table, *, of_attacks: bool = False) -> Any:
    """The option of that recipe, or of all attacks."""
    shown = defaults(table, "steps")
    shown = declared("steps", f"pgd: {shown}") if of_attacks else shown
    return typer.Option("--steps", help="Iterations of the attack.", show_default=shown)
