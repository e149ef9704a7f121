"""The smallest images that a network takes."""

from __future__ import annotations

from advmix_cli.errors import UsageError


def check_size(network: str, smallest: int, height: int, width: int) -> None:
    """Raise UsageError when a side of the images is shorter than `smallest`."""
    if min(height, width) < smallest:
        raise UsageError(
            f"{network} takes images of {smallest}x{smallest} and larger, these have {height}x{width}",
            "enlarge the images, or choose an architecture that takes smaller ones",
        )
