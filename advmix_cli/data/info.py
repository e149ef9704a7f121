"""What is known of a data set without its images."""

from __future__ import annotations

import dataclasses

Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set. `shape` is (C,H,W) as the models take it, `native` as the source has it.

    `mean` and `std` are those of its training images, a value a channel, in [0,1].
    """

    name: str
    title: str
    shape: Shape
    sizes: dict[str, int]
    classes: tuple[str, ...]
    arch: str
    source: str = ""  # module:function, called with (split, root, download), gives native pixels and labels
    files: dict[str, str] = dataclasses.field(default_factory=dict)  # path below the data folder -> SHA-256, if known
    version: int = 1  # grows when the same files or seed come to other pixels
    native: Shape = (0, 0, 0)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    flips: bool = True  # whether a mirror image is of the same class

    @property
    def colour(self) -> bool:
        """Whether its images have more than one channel."""
        return self.shape[0] > 1

    def resized(self, size: int) -> DatasetInfo:
        """The same set at another size: a set of its own."""
        shape = (self.shape[0], size, size)
        return dataclasses.replace(self, name=f"{self.name}@{size}", shape=shape, arch=usual_arch(shape))


def usual_arch(shape: Shape) -> str:
    """The architecture that suits images of that shape, where nothing is said."""
    if shape[0] == 1:
        return "lenet5" if shape[1:] == (32, 32) else "convsmall"
    return "resnet18" if max(shape) <= 64 else "torchvision:resnet18"
