"""What of the images is taken."""

from __future__ import annotations


def at_most(limit: int | None, size: int) -> int | None:
    """The limit, None where it is none of so many images: the same images are the same work."""
    return None if limit is not None and limit >= size else limit
