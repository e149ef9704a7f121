"""What of the images is taken."""

from __future__ import annotations

from advmix_cli.data import DatasetInfo


def at_most(limit: int | None, info: DatasetInfo, split: str) -> int | None:
    """The limit, None where it is no limit: the same images are the same work."""
    return None if limit is not None and limit >= info.sizes.get(split, 0) else limit
