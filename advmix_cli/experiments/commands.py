"""Requests as the command lines that make them, and such lines as the parts of a file that would."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from typing import Any

from advmix_cli.errors import UsageError
from advmix_cli.experiments.shape import TOGETHER
from advmix_cli.experiments.values import COMMANDS, options_of
from advmix_cli.settings import number

_POSITIONAL = ("model", "models")
_UNSAID = {"name", "verbose", "report", "fail_on"}
_FLAGS = {"q", "quiet", "json", "force", "verbose", "skip_damaged"}
"""Options of commands, and of no request, that take no value."""


def command_of(kind: str, request: Any) -> str:
    """The command that makes the same request: what is not at its default is said."""
    words = ["advmix", kind]
    fields = {field.name: field for field in dataclasses.fields(request)}
    for name in _POSITIONAL:
        given = getattr(request, name, None)
        words += [given] if isinstance(given, str) else list(given or ())
    for name, field in fields.items():
        value = getattr(request, name)
        if name in _POSITIONAL or name in _UNSAID or value is None or value in (field.default, ()):
            continue
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else f"--no-{name.replace('_', '-')}")
        elif name in TOGETHER:
            words += [option, ",".join(map(_written, value))]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if name == "mix_stages":
                words += [option, ",".join(map(_written, value))]
            else:
                words += [word for each in value for word in (option, _written(each))]
        else:
            words += [option, _written(value)]
    return shlex.join(words)


def _written(value: Any) -> str:
    return number(value, exact=True) if isinstance(value, float) else str(value)


def part_of_file(command: str, id: str) -> str:
    """The table of an experiment's file that asks for what a command asked. Raises UsageError for other commands."""
    words = shlex.split(command)
    kind = words[1] if len(words) > 1 else ""
    if kind not in COMMANDS:
        raise UsageError(f"{' '.join(words[:2])} is no part of an experiment", "train, advtrain, attack and eval are")
    known = options_of(kind)
    section = {"attack": "attacks", "eval": "evaluations"}.get(kind, "runs")
    lines, given, of = [f"[{section}.{json.dumps(id)}]"], dict[str, list[str]](), list[str]()
    left = iter(words[2:])
    for word in left:
        if not word.startswith("-") or word == "-":
            of.append(word)
            continue
        name, equals, value = word.partition("=")
        key = name.lstrip("-").replace("-", "_")
        if known.get(key.removeprefix("no_")) in (bool, bool | None):
            given[key.removeprefix("no_")] = ["false" if key.startswith("no_") else "true"]
        elif key not in _FLAGS:
            given.setdefault(key, []).append(value if equals else next(left, ""))
    lines += [f'command = "{kind}"'] if section == "runs" else [f"of = {json.dumps(of if len(of) != 1 else of[0])}"]
    for key, values in given.items():
        several = values[0].split(",") if key in TOGETHER else values
        if key == "init":
            lines.append(f"init = {json.dumps(values[0])}")
        elif key in known and key in TOGETHER and len(several) > 1:
            lines.append(f"grid.{key} = [{', '.join(_toml(known[key], each) for each in several)}]")
        elif key in known:
            said = [_toml(known[key], each) for each in several]
            lines.append(f"{key} = {said[0] if len(said) == 1 else '[' + ', '.join(said) + ']'}")
    return "\n".join(lines) + "\n"


def _toml(hint: Any, text: str) -> str:
    """A value as TOML: a number where the option takes one."""
    if text in ("true", "false"):
        return text
    if any(name in str(hint) for name in ("int", "float")):
        try:
            float(text)
        except ValueError:
            return json.dumps(text)
        return text
    return json.dumps(text)
