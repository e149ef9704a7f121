"""A disk that is almost full, and files that may not grow: then room again, and the same command."""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator

from checks import ended
from family import Family, one_by_one, seeds
from scenarios import SCENARIOS, Bench
from shim import missing
from sweeps import disturbed

_ROOM = 1 << 26


def _mount(bench: Bench, size: int, how: str = "") -> bool:
    """Whether there is a disk of that size in the place of the store now."""
    line = ["mount", "-t", "tmpfs", "-o", f"{how}size={size}", "tmpfs", str(bench.home)]
    try:
        return subprocess.run(line, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _small_disk(bench: Bench, store: str, free: int) -> Iterator[None]:
    """The store on a disk of its own, with so many bytes free."""
    bench.fresh(store)
    shutil.rmtree(bench.home)
    bench.home.mkdir()
    if not _mount(bench, _ROOM):
        raise PermissionError("no disk can be mounted")
    try:
        shutil.copytree(bench.stores[store], bench.home, dirs_exist_ok=True)
        used = shutil.disk_usage(bench.home).used
        _mount(bench, used + free, "remount,")
        yield
    finally:
        subprocess.run(["umount", "-l", str(bench.home)], check=True)


def _almost_full(bench: Bench, case: str) -> list[str]:
    """With room for a part of what the command writes."""
    name, seed = case.split()
    scenario, chance = SCENARIOS[name], random.Random(int(seed))
    bench.undisturbed(scenario)
    with _small_disk(bench, scenario.store, 4096 * chance.choice((0, 1, 2, 5, 20, chance.randrange(400)))):
        ran = bench.run(scenario)
        problems = ended(ran)
        _mount(bench, _ROOM, "remount,")
        return problems or disturbed(bench, scenario, ran)


def _small_files(bench: Bench, case: str) -> list[str]:
    """With a limit on the size of a file."""
    name, seed = case.split()
    scenario, most = SCENARIOS[name], int(2 ** random.Random(int(seed)).uniform(13, 20))
    bench.undisturbed(scenario)
    bench.fresh(scenario.store)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    child = bench.start(scenario, first=[limit])
    return disturbed(bench, scenario, child.wait(bench.undisturbed(scenario)[0].seconds + 10))


def _no_mount() -> str:
    reason = missing()
    if reason:
        return reason
    line = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        tried = subprocess.run(line, capture_output=True, check=False)
    except FileNotFoundError:
        return "there is no mount"
    return "mounting a disk is not allowed" if tried.returncode else ""


FAMILIES = (
    Family(
        "disk", "a disk with 0 to 1.6 MB free, then room and the same command", seeds(lambda bench: list(SCENARIOS)),
        one_by_one(_almost_full), few=2, skip=_no_mount,
    ),
    Family(
        "files", "a limit on the size of files, then none and the same command", seeds(lambda bench: list(SCENARIOS)),
        one_by_one(_small_files), few=2,
    ),
)  # fmt: skip
