"""Any classification set of torchvision's, by the name of its class. torch is imported when one is opened."""

from __future__ import annotations

import difflib
import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from advmix_cli.data import decoding, source
from advmix_cli.data.decoding import Unreadable
from advmix_cli.data.source import Damaged, shown
from advmix_cli.errors import AdvmixError, DamagedError, UsageError

_FIXED = {"EMNIST": {"split": "balanced"}}
"""What a set must be told besides the split."""
_TRAIN = {"OxfordIIITPet": "trainval", "Places365": "train-standard"}
"""Sets whose `split` for training is not called train."""
_TESTS = ("test", "val", "valid", "validation")
_BASES = ("VisionDataset", "DatasetFolder", "ImageFolder")
_EVERY = 64  # pictures between two reports

_WHOLE_ROOT, _FILES_OF_ROOT, _NOTHING = "**", "*", ""
_FOLDERS = {
    "CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python", "CLEVRClassification": "clevr",
    "Caltech101": "caltech101", "Caltech256": "caltech256", "Country211": "country211", "DTD": "dtd",
    "EMNIST": "EMNIST", "EuroSAT": "eurosat", "FER2013": "fer2013", "FGVCAircraft": "fgvc-aircraft-2013b",
    "FakeData": _NOTHING, "FashionMNIST": "FashionMNIST", "Flowers102": "flowers-102", "Food101": "food-101",
    "GTSRB": "gtsrb", "Imagenette": "imagenette2", "KMNIST": "KMNIST", "LFWPeople": "lfw-py", "MNIST": "MNIST",
    "Omniglot": "omniglot-py", "OxfordIIITPet": "oxford-iiit-pet", "PCAM": "pcam", "QMNIST": "QMNIST",
    "RenderedSST2": "rendered-sst2", "SEMEION": _FILES_OF_ROOT, "STL10": "stl10_binary", "SUN397": "SUN397",
    "SVHN": _FILES_OF_ROOT, "StanfordCars": "stanford_cars", "USPS": _FILES_OF_ROOT,
}  # fmt: skip
"""Where the files of a set lie below the root; of others all that lies there counts."""


class _File(str):
    """The path of a picture: what sets that take a loader are given for one, so that it is read by our rules."""


class _NoSuchSplit(Exception):
    pass


class TorchvisionSet(source.Source):
    """A source of the pictures of one of torchvision's sets."""

    def __init__(self, name: str, root: Path, download: bool) -> None:
        """Opens the set and goes once through its items. Raises what `torchvision_set` says."""
        self._name = name
        kind = _kind(name)
        train, test, notes = _opened(kind, name, root, download)
        self._stamp = stamp(name, root)
        self._sets = {"train": train, "test": train if test is None else test}
        seen = [_Seen(name, train)] + ([] if test is None else [_Seen(name, test)])
        present = np.unique(np.concatenate([each.labels for each in seen]))
        self.classes = _classes(name, train, int(present[-1]) + 1)
        if test is None:
            chosen = np.zeros(len(seen[0].labels), dtype=bool)
            for label in present:
                rows = np.flatnonzero(seen[0].labels == label)
                chosen[rows] = source.divided(self.classes[label], [b"%d" % row for row in rows])
            self._rows = {"train": np.flatnonzero(~chosen), "test": np.flatnonzero(chosen)}
        else:
            self._rows = {split: np.arange(len(each.labels)) for split, each in zip(source.SPLITS, seen, strict=True)}
        self._files = {split: each.files for split, each in zip(source.SPLITS, seen * (3 - len(seen)), strict=True)}
        self.labels = {
            split: each.labels[self._rows[split]]
            for split, each in zip(source.SPLITS, seen * (3 - len(seen)), strict=True)
        }
        self.notes = (*([source.divided_note(self.labels)] if test is None else []), *notes)
        self.channels = 1 if all(each.grey for each in seen) else 3
        sizes = Counter[tuple[int, int]]()
        for each in seen:
            sizes.update(each.sizes)
        if not sizes:
            raise DamagedError(f"none of the pictures of torchvision:{name} can be read", "fetch them again")
        self.sizes, self.suggested, size = source.sizes_of(sizes)
        self.native = (self.channels, *size) if size else None

    def fill(self, split: str, pixels: np.ndarray, on_images: Callable[[int], None]) -> list[Damaged]:
        """As `source.Source` has it. Sets of files are decoded by several processes, others by this one."""
        rows, files = self._rows[split], self._files[split]
        if files is not None:
            return decoding.decode([files[row] for row in rows], pixels, decoding.processes(), on_images)
        _, channels, height, width = pixels.shape
        damaged, last = [], 0
        for at, (image, _) in enumerate(_items(self._name, self._sets[split], rows)):
            try:
                pixels[at] = decoding.picture(image, channels, (height, width))
            except Unreadable as error:
                damaged.append(Damaged(at, f"torchvision:{self._name} {split} {rows[at]}", error.reason))
            if (at + 1) % _EVERY == 0 or at + 1 == len(rows):
                on_images(at + 1 - last)
                last = at + 1
        return damaged

    def stamp(self) -> str:
        """As `stamp` gives it, after the set was opened."""
        return self._stamp


def torchvision_set(name: str, root: Path, download: bool) -> TorchvisionSet:
    """The set that torchvision calls `name` (a class of torchvision.datasets), read from or fetched to `root`.

    A set without splits is divided by a seed. Raises UsageError for an unknown name, with the nearest, and for what is
    no classification set; AdvmixError, code "data-unavailable", for what can be neither read nor fetched; and
    DamagedError for items that cannot be read.
    """
    return TorchvisionSet(name, root, download)


def stamp(name: str, root: Path) -> str:
    """SHA-256 (hex) of the version of torchvision, and of what `source.stamp` says of the set's files in `root`."""
    from importlib.metadata import version  # slow to import, and most commands need none

    total = hashlib.sha256(f"torchvision:{name} {version('torchvision')}".encode())
    place = _FOLDERS.get(name, _WHOLE_ROOT)
    if place == _FILES_OF_ROOT and root.is_dir():
        for entry in source.visible(root):
            if entry.is_file():
                total.update(f"{entry.name}\0{source.stamp(Path(entry.path))}".encode("utf-8", "surrogateescape"))
    elif place not in (_NOTHING, _FILES_OF_ROOT):
        folder = root if place == _WHOLE_ROOT else root / place
        total.update(source.stamp(folder).encode() if folder.exists() else b"nothing")
    return total.hexdigest()


def _kind(name: str) -> Any:
    """The class of that name."""
    from torchvision import datasets

    known = {
        each: kind
        for each in datasets.__all__
        if each not in _BASES
        and isinstance(kind := getattr(datasets, each), type)
        and issubclass(kind, datasets.VisionDataset)
    }
    if name not in known:
        names = {each.lower(): each for each in known}
        close = [names[each] for each in difflib.get_close_matches(name.lower(), names, cutoff=0.5)]
        raise UsageError(
            f"torchvision has no data set {name!r}",
            f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(sorted(known))}",
            code="unknown-dataset",
        )
    return known[name]


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """What the constructor takes, and what it hands on to the class above."""
    found: dict[str, inspect.Parameter] = {}
    for each in kind.__mro__:
        if "__init__" not in vars(each):
            continue
        own = dict(list(inspect.signature(vars(each)["__init__"]).parameters.items())[1:])
        found = {
            key: value for key, value in own.items() if value.kind not in (value.VAR_KEYWORD, value.VAR_POSITIONAL)
        } | found
        if all(value.kind != value.VAR_KEYWORD for value in own.values()):
            break
    return found


def _opened(kind: Any, name: str, root: Path, download: bool) -> tuple[Any, Any, list[str]]:
    """The set to train on, the one to test on (None: there are no splits), and what to say of it."""
    takes, fixed = _parameters(kind), _FIXED.get(name, {})
    needed = [
        key for key, value in takes.items() if value.default is value.empty and key not in ("root", "train", *fixed)
    ]
    if set(needed) - {"split"}:
        raise _not_for_classification(name, f"it needs {', '.join(needed)}")
    notes = [f"{key} is {value!r}" for key, value in fixed.items()]
    if "train" in takes:
        train, test = (_open(kind, name, root, download, takes, fixed | {"train": value}) for value in (True, False))
        return _with_items(name, train), _with_items(name, test), notes
    if "split" not in takes:
        return _with_items(name, _open(kind, name, root, download, takes, fixed)), None, notes
    try:
        train = _open(kind, name, root, download, takes, {"split": _TRAIN.get(name, "train")})
    except _NoSuchSplit:
        raise _not_for_classification(name, "it has no split train") from None
    train = _with_items(name, train)
    problem = _not_for_classification(name, "it has no split to test on")
    for split in _TESTS:
        try:
            test = _with_items(name, _open(kind, name, root, download, takes, {"split": split}))
        except _NoSuchSplit:
            continue
        except UsageError as error:  # a test whose labels were not published
            problem = error
            continue
        return train, test, notes if split == "test" else [*notes, f"tested on {split}"]
    raise problem


def _open(
    kind: Any, name: str, root: Path, download: bool, takes: dict[str, inspect.Parameter], given: dict[str, Any]
) -> Any:
    from advmix_cli.data import vision

    arguments = dict(given)
    if "loader" in takes:
        arguments["loader"] = _File

    def made(root: str, *, download: bool) -> Any:
        every = arguments | {"root": root, "download": download}
        try:
            return kind(**{key: value for key, value in every.items() if key in takes})
        except ModuleNotFoundError as error:
            raise AdvmixError(
                f"torchvision:{name} needs the library {error.name}",
                f"pip install {error.name}",
                code="data-unavailable",
            ) from error
        except Exception as error:  # each set raises what it likes where its files are not what they should be
            if isinstance(error, ValueError) and "argument split" in str(error):
                raise _NoSuchSplit from error
            raise RuntimeError(str(error) or type(error).__name__) from error

    try:
        return vision.open_set(made, f"torchvision:{name}", "", root, download)
    except AdvmixError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise
        raise AdvmixError(
            error.message,
            f"put torchvision's files of {name} into {shown(str(root))}, or set ADVMIX_DATA to the folder they lie in",
            code=error.code,
        ) from error


def _not_for_classification(name: str, why: str) -> UsageError:
    return UsageError(
        f"torchvision:{name} is not a classification set: {why}",
        "an item of such a set is a PIL image and a whole number; give a folder or an .npz file otherwise",
    )


def _with_items(name: str, dataset: Any) -> Any:
    """The set, if its first item is a picture and a label."""
    try:
        count = len(dataset)
    except TypeError:
        raise _not_for_classification(name, "it has no length") from None
    if not count:
        raise UsageError(f"torchvision:{name} holds no pictures", "fetch it again")
    next(_items(name, dataset, np.arange(1)))
    return dataset


def _items(name: str, dataset: Any, rows: np.ndarray) -> Iterator[tuple[Image.Image | _File, int]]:
    """Pictures and labels. Raises UsageError for items that are none, DamagedError for those that cannot be read."""
    for row in rows:
        try:
            item = dataset[int(row)]
        except Exception as error:
            raise DamagedError(
                f"item {row} of torchvision:{name} cannot be read: {shown(str(error) or type(error).__name__)[:120]}",
                "fetch the set again",
            ) from error
        image, label = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(image, Image.Image | _File):
            raise _not_for_classification(name, f"its items are no pairs of a picture and a label, but {_what(item)}")
        if isinstance(label, bool) or not isinstance(label, int | np.integer) or label < 0:
            raise _not_for_classification(name, f"item {row} has the label {shown(repr(label))[:40]}")
        yield image, int(label)


def _what(item: Any) -> str:
    return ", ".join(type(each).__name__ for each in item) if isinstance(item, tuple) else type(item).__name__


class _Seen:
    """What one pass through a set shows: `labels` int64 (N,), `files` if all its pictures are, `grey`, `sizes`."""

    def __init__(self, name: str, dataset: Any) -> None:
        labels, files = [], []
        self.grey, self.sizes = True, Counter[tuple[int, int]]()
        for image, label in _items(name, dataset, np.arange(len(dataset))):
            labels.append(label)
            if isinstance(image, _File):
                files.append(str(image))
            try:
                grey, height, width = decoding.inspect(image)
            except Unreadable:
                continue
            self.grey = self.grey and grey
            self.sizes[height, width] += 1
        self.labels = np.array(labels, dtype=np.int64)
        self.files = files if len(files) == len(labels) else None


def _classes(name: str, dataset: Any, count: int) -> tuple[str, ...]:
    """The names of `count` classes or more: the set's own, else their numbers; which share one get their number too."""
    if count < 2:
        raise UsageError(f"torchvision:{name} has one class only", "a classifier needs at least two")
    own = getattr(dataset, "classes", None)
    if not isinstance(own, list | tuple) or len(own) < count:
        return tuple(str(label) for label in range(count))
    names = [", ".join(map(str, each)) if isinstance(each, list | tuple) else str(each) for each in own]
    often = Counter(names)
    return tuple(f"{each} ({label})" if often[each] > 1 else each for label, each in enumerate(names))
