"""Where the hidden representations of any network can be mixed."""

from __future__ import annotations

from torch import nn


def stages(network: nn.Module) -> tuple[str, ...]:
    """Paths of modules at whose inputs hidden representations can be mixed, in the order in which they are registered.

    Of an `nn.Sequential` these are its children but the first, whose input is the image. Of another network they are
    its blocks: children that themselves hold children with parameters. Where fewer than three have a hidden input, one
    that is, or has inside, an `nn.Sequential` or `nn.ModuleList` of two blocks or more gives way to the blocks of that
    list; of several lists the outermost counts, and the one with most parameters. What begins with the layer that takes
    the image is left out. Where one block holds all parameters, as behind a normalisation, the stages are its own.
    () where nothing is found.

    Nothing is run: a network may call its modules in another order than it registers them, and some of them never.
    """
    inner = [(name, child) for name, child in network.named_children() if _size(child)]
    if len(inner) == 1 and _is_block(inner[0][1]):
        return tuple(f"{inner[0][0]}.{path}" for path in stages(inner[0][1]))
    if isinstance(network, nn.Sequential):
        return tuple(name for name, _ in network.named_children())[1:]
    paths, first = _blocks(network), _first(network)
    if sum(path not in first for path in paths) < 3:
        lists = [
            (path, module)
            for path, module in network.named_modules()
            if isinstance(module, nn.Sequential | nn.ModuleList) and len(_blocks(module)) >= 2
        ]
        if lists:
            trunk, module = min(lists, key=lambda item: (item[0].count("."), -_size(item[1])))
            at = paths.index(trunk.split(".")[0])
            paths[at : at + 1] = [f"{trunk}.{name}" for name in _blocks(module)]
    return tuple(path for path in paths if path not in first)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _is_block(module: nn.Module) -> bool:
    return any(_size(child) for child in module.children())


def _blocks(module: nn.Module) -> list[str]:
    return [name for name, child in module.named_children() if _is_block(child)]


def _first(network: nn.Module) -> set[str]:
    """The first child with parameters, its first, and so on: what begins with the layer that takes the image."""
    name = next((name for name, child in network.named_children() if _size(child)), None)
    return set() if name is None else {name, *(f"{name}.{path}" for path in _first(network.get_submodule(name)))}
