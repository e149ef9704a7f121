"""Images and networks of one's own, through the commands: the same promises as for what is known by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image
from torch import nn

import advmix_cli
from advmix_cli import attacks, mixing, models
from advmix_cli.attacks import batches
from advmix_cli.data import prepared
from advmix_cli.errors import DamagedError, NotFoundError, UsageError
from advmix_cli.models import Network
from advmix_cli.threats import Threat

NET = '''"""A small network."""
from torch import nn


class Block(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()


class Net(nn.Module):
    def __init__(self, in_channels=3, num_classes=10, width=4):
        super().__init__()
        self.layer1, self.layer2, self.layer3 = Block(in_channels, width), Block(width, 8), Block(8, 16)
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        return self.head(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def five(in_channels=3):
    return Net(in_channels, 5)


def loud(num_classes):
    print("built")
    return Net(num_classes=num_classes)


def wants(width, depth):
    return Net(width=width)


def raises():
    raise ValueError("not today")


def nothing():
    return 7


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


class Noisy(Net):
    def forward(self, x):
        import torch

        return super().forward(x) + torch.randn(len(x), self.head.out_features)


class Dropping(Net):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.2, self.training)


class Idle(Net):
    def __init__(self, **more):
        super().__init__(**more)
        self.idle = Block(3, 4)
'''
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
Colours = dict[str, tuple[int, int, int]]
QUICK = ("--epochs", "2", "--batch-size", "16", "--lr", "0.05")


def pictures(root: Path, train: int = 20, test: int = 8, size: int = 12, colours: Colours = COLOURS) -> Path:
    """A folder of noisy pictures of a few colours."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name, colour in colours.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 60, (size, size, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def own(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with pictures and a network's file."""
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "pics")
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def test_a_folder_and_a_file_from_nothing_to_a_table(own: Path, advmix: Run) -> None:
    made = advmix("train", "--dataset", "folder:pics", "--arch", "net.py:Net", *QUICK, "--name", "m", "--json")
    assert made.data["dataset"] == f"folder:{own}/pics"
    assert made.data["arch"] == f"{own}/net.py:Net"
    again = advmix("train", "--dataset", f"folder:{own}/pics/", "--arch", f"{own}/net.py:Net", *QUICK, "--json")
    assert again.data["cached"]
    attacked = advmix("attack", "m", "--steps", "3", "--name", "c", "--json")
    assert attacked.data["n"] == 24
    assert advmix("eval", "m", "--samples", "c", "--report", "r.html").code == 0
    defended = advmix(
        "advtrain", "--init", "m", "--mix", "manifold", "--mix-stages", "layer2", *QUICK, "--steps", "2", "--json"
    )
    assert defended.code == 0, defended.err
    assert advmix("visualize", "samples", "c", "--count", "3").code == 0
    assert advmix("attack", "m", "--steps", "3", "--json").data["cached"]


def test_where_a_set_lies_is_in_no_key(own: Path, advmix: Run) -> None:
    command = ("train", "--arch", "net.py:Net", *QUICK, "--json")
    first = advmix(*command, "--dataset", "folder:pics").data
    (own / "elsewhere").mkdir()
    for name in ("pics", "net.py"):
        shutil.move(own / name, own / "elsewhere" / name)
    command = ("train", "--arch", "elsewhere/net.py:Net", *QUICK, "--json")
    again = advmix(*command, "--dataset", "folder:elsewhere/pics").data
    assert again["cached"]
    assert again["checkpoint"] == first["checkpoint"]


def test_classes_are_kept_by_name(own: Path, advmix: Run) -> None:
    advmix("train", "--dataset", "folder:pics", "--arch", "net.py:Net", *QUICK, "--name", "m")
    assert advmix("store", "show", "m", "--json").data["class_names"] == ["blue", "green", "red"]
    other = pictures(own / "other")
    for split in ("train", "test"):
        (other / split / "red").rename(other / split / "violet")
    outcome = advmix("eval", "m", "--dataset", "folder:other")
    assert outcome.code == 2
    assert "violet" in outcome.err


def test_the_first_images_of_a_folder_are_of_all_classes(own: Path, advmix: Run) -> None:
    x, y, classes = advmix_cli.datasets("folder:pics", "train", limit=20)
    assert classes == ("blue", "green", "red")
    assert set(y.tolist()) == {0, 1, 2}
    colours = torch.tensor([COLOURS[name] for name in classes]) / 255
    assert torch.equal((x.mean((2, 3))[:, None] - colours).norm(dim=2).argmin(1), y)


def test_a_set_that_does_not_fit_in_memory_gives_the_same(
    own: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train", "--dataset", "folder:pics", "--arch", "net.py:Net", *QUICK, "--force", "--json")
    first = advmix(*command).data
    monkeypatch.setattr(prepared, "_IN_MEMORY", 0)
    assert advmix(*command).data["digest"] == first["digest"]
    attack = ("attack", "--steps", "2", "--json", "--force")
    of_file = advmix(*attack).data["robust_accuracy"]
    monkeypatch.undo()
    assert of_file == 100 * round(of_file * 24 / 100) / 24


def test_a_changed_picture_is_seen(own: Path, advmix: Run) -> None:
    before = advmix("data", "verify", "folder:pics", "--json").data["fingerprints"]
    Image.new("RGB", (12, 12)).save(own / "pics/train/red/0.png")
    assert advmix("data", "verify", "folder:pics", "--json").data["fingerprints"] != before


def test_images_that_were_prepared_are_verified(own: Path, advmix: Run, home: Path) -> None:
    advmix("data", "fetch", "folder:pics")
    assert advmix("store", "verify").code == 0
    (images,) = home.glob("datasets/*.images")
    content = bytearray(images.read_bytes())
    content[100] ^= 1
    images.write_bytes(content)
    outcome = advmix("store", "verify")
    assert (outcome.code, "damaged" in outcome.out) == (4, True)
    images.write_bytes(content[:-3])  # of another length: prepared again
    assert advmix("train", "--dataset", "folder:pics", "--arch", "net.py:Net", *QUICK).code == 0


def test_what_was_prepared_can_be_removed(own: Path, advmix: Run, home: Path) -> None:
    run = "folder:pics"
    fetched = advmix("data", "fetch", run, "--json").data["fingerprints"]
    kept = sorted((home / "datasets").glob("*pics*"))
    assert advmix("data", "remove", run, "--dry-run", "--json").data["removed"] is False
    assert sorted((home / "datasets").glob("*pics*")) == kept
    unasked = advmix("data", "remove", run)
    assert (unasked.code, "a yes" in unasked.err) == (2, True)
    told = advmix("data", "remove", run, "-y", "--json").data
    assert told["removed"] is True
    assert sorted(map(Path, told["files"])) == kept
    assert not [path for path in kept if path.exists()]
    again = advmix("data", "remove", run, "-y")
    assert (again.code, "nothing is prepared" in again.err) == (3, True)
    unnamed = advmix("data", "remove", "-y")
    assert (unnamed.code, "name a data set" in unnamed.err) == (2, True)
    assert advmix("data", "fetch", run, "--json").data["fingerprints"] == fetched
    assert advmix("data", "fetch", f"{run}@24").code == 0
    both = advmix("data", "remove", run, "-y", "--json").data["files"]
    assert len(both) == 2 * len(kept)
    assert sum("24" in Path(file).name for file in both) == len(kept)


def test_a_hint_says_what_was_asked(own: Path, advmix: Run) -> None:
    told = advmix("models", "net.py:Net", "--dataset", "folder:pics", "--image-size", "24")
    assert told.code == 0, told.err
    assert "advmix train --dataset folder:pics --image-size 24 --arch" in told.err


def test_a_share_of_what_is_not_mixed_is_refused(advmix: Run, home: Path) -> None:
    wrong = advmix("train", "--mix-alpha", "2", "--limit", "100")
    assert (wrong.code, "nothing is mixed" in wrong.err) == (2, True)
    made = advmix("train", "--mix", "none,mixup", "--mix-alpha", "2", "--limit", "100", "--epochs", "1", "--json")
    assert made.code == 0, made.err
    plain = advmix("train", "--limit", "100", "--epochs", "1", "--json").data["checkpoint"]
    assert made.data["runs"][0]["checkpoint"] == plain


def test_damaged_pictures_are_left_out_only_when_asked(own: Path, advmix: Run) -> None:
    (own / "pics/train/red/3.png").write_bytes(b"no picture")
    command = ("train", "--dataset", "folder:pics", "--arch", "net.py:Net", *QUICK)
    refused = advmix(*command)
    assert refused.code == 4
    assert "pics/train/red/3.png cannot be read" in refused.err
    taken = advmix(*command, "--skip-damaged", "--json")
    assert sum(taken.data["images"][part] for part in ("train", "validation")) == 59
    assert "1 damaged picture" in taken.err


def test_image_size(own: Path, advmix: Run) -> None:
    Image.new("RGB", (30, 20)).save(own / "pics/train/red/0.png")
    command = ("train", "--dataset", "folder:pics", "--arch", "net.py:Net", *QUICK, "--json")
    refused = advmix(*command)
    assert refused.code == 2
    assert "--image-size 32" in refused.errors[0]["hint"]
    assert advmix(*command, "--image-size", "16").data["dataset"] == f"folder:{own}/pics@16"
    assert advmix("data", "list", "-q").out.splitlines()[-1] == f"folder:{own}/pics@16"


def test_mnist_at_another_size_is_a_set_of_its_own(advmix: Run) -> None:
    small = ("--limit", "200", "--epochs", "1", "--batch-size", "50")
    made = advmix("train", "--dataset", "glyphs", "--image-size", "28", "--arch", "convsmall", *small, "--json").data
    assert made["dataset"] == "glyphs@28"
    assert advmix("train", "--dataset", "glyphs", "--arch", "convsmall", *small, "--json").data["cached"]
    assert advmix("attack", "--limit", "5", "--steps", "1", "--json").data["dataset"] == "glyphs@28"
    assert advmix("train", "--image-size", "32", *small, "--json").data["dataset"] == "glyphs"


def test_an_array_file(own: Path, advmix: Run) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 28, 28), dtype=np.uint8)
    y = np.arange(60) % 3
    np.savez(own / "a.npz", x_train=x[:45], y_train=y[:45], x_test=x[45:], y_test=y[45:])
    made = advmix("train", "--dataset", "npz:a.npz", *QUICK, "--json")
    assert made.data["arch"] == "convsmall"
    assert made.data["checkpoint"].startswith("a-convsmall-none-")
    assert torch.equal(advmix_cli.datasets("npz:a.npz")[1], torch.tensor(y[45:]))  # in their own order


def test_mean_and_std_are_those_of_the_pixels(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a part of them, whatever their order: every second picture here is black."""
    pixels = np.zeros((400, 3, 12, 12), np.uint8)
    pixels[1::2] = np.random.default_rng(0).integers(0, 256, (200, 3, 12, 12))
    path = own / "images"
    pixels.tofile(path)
    whole = prepared._spread(path, 400, (3, 12, 12))
    floats = pixels / 255
    assert whole == {"mean": floats.mean((0, 2, 3)).round(4).tolist(), "std": floats.std((0, 2, 3)).round(4).tolist()}
    monkeypatch.setattr(prepared, "_MEASURED", 200)
    assert np.allclose(prepared._spread(path, 400, (3, 12, 12))["mean"], whole["mean"], atol=0.05)


def test_torchvision_sets(own: Path, advmix: Run) -> None:
    x, _, classes = advmix_cli.datasets("torchvision:FakeData@32", "test", limit=4)
    assert x.shape == (4, 3, 32, 32)
    assert len(classes) == 10


# Networks


def test_a_head_for_other_classes_begins_afresh(own: Path, advmix: Run) -> None:
    torch.save(models.build(Network("resnet18", (3, 12, 12), 7)).state_dict(), own / "w.pt")
    command = ("train", "--dataset", "folder:pics", "--arch", "resnet18", "--epochs", "1", "--limit", "20")
    made = advmix(*command, "--weights", "w.pt", "--json")
    assert "begin afresh" in made.err
    assert advmix("store", "show", made.data["checkpoint"], "--json").data["weights"]["file"] == "w.pt"
    assert advmix(*command, "--json").data["checkpoint"] != made.data["checkpoint"]


def test_weights_of_a_file_network_are_imported_and_evaluated(own: Path, advmix: Run) -> None:
    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    torch.save(namespace["Net"](1, 10).state_dict(), own / "W.pt")
    command = ("import", "W.pt", "--dataset", "glyphs", "--image-size", "28", "--arch", "net.py:Net", "--name", "n")
    assert advmix(*command).code == 0
    assert advmix("eval", "n", "--limit", "20").code == 0
    net = advmix_cli.load("n", run_code=True)
    x = torch.rand(3, 1, 28, 28)
    expected = namespace["Net"](1, 10)
    expected.load_state_dict(torch.load(own / "W.pt"))
    torch.testing.assert_close(net(x), expected.eval()(x))


def test_a_network_s_file_is_run_only_where_it_was_named(own: Path, advmix: Run, home: Path) -> None:
    advmix("train", "--dataset", "folder:pics", "--arch", "net.py:Net", *QUICK, "--name", "m")
    with pytest.raises(UsageError, match="would have to be run"):
        advmix_cli.load("m")
    (checkpoint,) = home.glob("checkpoints/*.safetensors")
    copy = own / "copy.safetensors"
    shutil.copy(checkpoint, copy)
    outside = advmix("eval", "./copy.safetensors")
    assert (outside.code, "would have to be run" in outside.err) == (2, True)
    checkpoint.unlink()
    assert advmix("import", "copy.safetensors").code == 2
    assert advmix("import", "copy.safetensors", "--arch", "net.py:Net").code == 0
    (own / "net.py").write_text(NET + "\n# changed\n")
    changed = advmix("eval", "m")
    assert (changed.code, "not what it was" in changed.err) == (4, True)
    (own / "net.py").unlink()
    assert advmix("eval", "m").code == 3


BAD = {
    "no file": ("nowhere.py:Net", 3, "there is no file"),
    "no factory": ("net.py:Nett", 2, "has no Nett"),
    "raises": ("net.py:raises", 2, "ValueError: not today"),
    "wants arguments": ("net.py:wants", 2, "wants width, depth"),
    "five classes": ("net.py:five", 2, "(2, 5) for 2 images"),
    "no module": ("net.py:nothing", 2, "gives a int"),
    "no logits": ("net.py:Pair", 2, "gives a tuple"),
    "no name": ("net.py:a b", 2, "no name of a function"),
    "only a file": ("net.py", 2, "no factory in it"),
    "broken": ("broken.py:Net", 2, "cannot be run"),
    "unknown": ("resnet19", 2, "unknown arch"),
    "of torchvision": ("torchvision:resnet19", 2, "torchvision knows no classifier"),
    "too small": ("torchvision:vgg11", 2, "does not take images"),
}


@pytest.mark.parametrize("name", BAD)
def test_networks_that_are_none(own: Path, advmix: Run, name: str) -> None:
    (own / "broken.py").write_text("import no_such_library\n")
    if name == "too small":
        pictures(own / "tiny", size=8)
    arch, code, message = BAD[name]
    on = "folder:tiny" if name == "too small" else "folder:pics"
    outcome = advmix("train", "--dataset", on, "--arch", arch, *QUICK)
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err


OPTIONS = {
    "no number": (("--arch-arg", "widthtwo"), "KEY=VALUE"),
    "no such argument": (("--arch-arg", "breadth=2"), "has no argument breadth"),
    "twice": (("--arch-arg", "width=2", "--arch-arg", "width=3"), "given twice"),
    "stage without manifold": (("--mix-stages", "layer1"), "use --mix manifold"),
    "no such stage": (("--mix", "manifold", "--mix-stages", "layer9"), "no module layer9"),
    "no such number": (("--mix", "manifold", "--mix-stages", "9"), "no stage 9"),
    "normalisation": (("--normalize", "0.5"), "no mean and std"),
    "of other channels": (("--normalize", "0.5,0.5:0.2,0.2"), "3 channels"),
    "std of nothing": (("--normalize", "0.5:0"), "above 0"),
    "size": (("--image-size", "4"), "from 8 to 1024"),
    "no weights": (("--weights", "nothing.pt"), "there is no file"),
    "weights of another": (("--weights", "net.py"), "net.py"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_do_not_fit(own: Path, advmix: Run, name: str) -> None:
    more, message = OPTIONS[name]
    outcome = advmix("train", "--dataset", "folder:pics", "--arch", "net.py:Net", *QUICK, *more)
    assert outcome.code in (2, 3, 4)
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert "unexpected" not in outcome.err


def test_what_a_network_prints_is_no_result(own: Path, advmix: Run) -> None:
    made = advmix("train", "--dataset", "folder:pics", "--arch", "net.py:loud", *QUICK, "--json")
    assert json.loads(made.out)["status"] == "ok"


def test_the_audit_finds_a_network_that_draws(own: Path, advmix: Run) -> None:
    advmix("train", "--dataset", "folder:pics", "--arch", "net.py:Noisy", *QUICK, "--name", "m")
    found = advmix("eval", "m", "--audit", "--limit", "12", "--json").data["audit"]["checks"]
    drawn = [check for check in found if check["name"] == "the same twice"]
    assert [check["verdict"] for check in drawn] == ["masked"], [check["name"] for check in found]


def test_a_network_with_dropout_continues_to_the_byte(own: Path, advmix: Run) -> None:
    command = ("train", "--dataset", "folder:pics", "--arch", "net.py:Dropping", "--batch-size", "16", "--json",
               "--threads", "1")  # fmt: skip
    whole = advmix(*command, "--epochs", "3").data["digest"]
    torch.manual_seed(5)  # nobody's numbers matter
    assert advmix(*command, "--epochs", "3", "--force").data["digest"] == whole
    together = advmix(*command, "--epochs", "3", "--seed", "0,1", "--force").data["runs"]
    assert together[0]["digest"] == whole


def test_mixing_at_a_module_is_mixing_its_input() -> None:
    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    net = namespace["Idle"](num_classes=3).eval()
    x, targets = torch.rand(6, 3, 12, 12), torch.eye(3)[torch.arange(6) % 3]
    perm = torch.randperm(6)
    hidden = net.layer1(x)
    mixed = mixing.mix(hidden, hidden[perm], 0.3)
    expected = net.head(net.layer3(net.layer2(mixed)).mean((2, 3)))
    for stage in ("layer2", 1):
        found, soft = mixing.forward_mixed(net, x, targets, mixing.Draw(0.3, stage, perm))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        torch.testing.assert_close(soft, mixing.mix(targets, targets[perm], 0.3), rtol=0, atol=0)
    assert not net.layer2._forward_pre_hooks
    image, _ = mixing.forward_mixed(net, x, targets, mixing.Draw(0.3, 0, perm))
    torch.testing.assert_close(image, net(mixing.mix(x, x[perm], 0.3)), rtol=0, atol=0)
    with pytest.raises(UsageError, match="takes no part"):
        mixing.forward_mixed(net, x, targets, mixing.Draw(0.3, "idle", perm))
    assert not net.idle._forward_pre_hooks


def test_a_stage_that_is_called_twice_is_mixed_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x))

    net, x, perm = Twice(), torch.rand(5, 4), torch.randperm(5)
    found, _ = mixing.forward_mixed(net, x, torch.rand(5, 4), mixing.Draw(0.3, "layer", perm))
    torch.testing.assert_close(found, net(mixing.mix(x, x[perm], 0.3)))


@pytest.mark.parametrize("arch", ["lenet5", "preactresnet18"])
@pytest.mark.parametrize("stage", range(5))
def test_hooks_mix_what_the_stages_of_a_sequence_take(arch: str, stage: int) -> None:
    net = models.build(arch).train()
    assert isinstance(net, nn.Sequential)
    x, targets = torch.rand(4, *models.usual(arch).shape), torch.eye(10)[:4]
    perm, lam = torch.tensor([2, 0, 3, 1]), 0.7
    found, _ = mixing.forward_mixed(net, x, targets, mixing.Draw(lam, stage, perm))
    hidden = x
    for place, layer in enumerate(net):
        if place == stage:
            hidden = mixing.mix(hidden, hidden[perm], lam)
        hidden = layer(hidden)
    assert torch.equal(found, hidden)


def test_timm(own: Path, advmix: Run) -> None:
    timm = pytest.importorskip("timm")
    made = advmix("train", "--dataset", "folder:pics", "--arch", "timm:resnet18", *QUICK, "--name", "t", "--json")
    assert made.code == 0, made.err
    theirs = timm.create_model("resnet18", num_classes=3)
    net = advmix_cli.load("t")
    theirs.load_state_dict(net.network.state_dict())
    x = torch.rand(4, 3, 12, 12)
    mean, std = (torch.tensor(timm.get_pretrained_cfg("resnet18").to_dict()[part]) for part in ("mean", "std"))
    expected = theirs.eval()((x - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-5)
    assert advmix("models", "timm:resnet1*", "-q").out.splitlines()[:2] == ["timm:resnet10t", "timm:resnet14t"]


def test_torchvision_networks_take_grey_images() -> None:
    net = models.build(Network("torchvision:mobilenet_v3_small", (1, 32, 32), 4))
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(net(x), net(x.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("arch", sorted(models.ARCHITECTURES))
def test_normalisation_is_before_the_network(arch: str) -> None:
    info = models.info(arch)
    plain, told = (
        models.build(Network(arch, info.shape, 10, mean=mean, std=std), 3)
        for mean, std in (((), ()), ((0.4,) * info.shape[0], (0.2,) * info.shape[0]))
    )
    x = torch.rand(2, *info.shape)
    torch.testing.assert_close(told(x), plain((x - 0.4) / 0.2), rtol=1e-4, atol=1e-4)


def test_a_code_that_is_gone_or_changed_is_said(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(NET)
    arch, code = models.named(f"{path}:Net")
    network = Network(arch, (3, 12, 12), 3, code=code)
    models.build(network)
    path.write_text(NET + "#\n")
    with pytest.raises(DamagedError, match="not what it was"):
        models.build(network)
    path.unlink()
    with pytest.raises(NotFoundError, match="is gone"):
        models.build(network)


def test_a_batch_of_one_is_avoided_or_said(own: Path, advmix: Run) -> None:
    """Batch norm cannot learn from it: 20 images, of which 2 are held out, and then one more."""
    command = ("train", "--dataset", "folder:pics", "--arch", "net.py:Net", "--epochs", "1", "--limit", "20", "--json")
    made = advmix(*command, "--batch-size", "17").data
    assert made["images"] == {"train": 17, "validation": 3, "test": 20}
    deep = ("--arch", "torchvision:resnet18", "--batch-size", "1")
    outcome = advmix(*command, *deep)
    assert (outcome.code, outcome.errors[0]["code"]) == (2, "usage")
    assert "a batch of one image" in outcome.errors[0]["message"]


def test_few_large_images_are_computed_at_a_time_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    net = models.build(Network("resnet18", (3, 72, 72), 4))
    x, y = torch.rand(6, 3, 72, 72), torch.arange(6) % 4
    assert batches.suitable(net, x[:, :, :32, :32], None) == batches.CPU
    each = batches.kept_bytes(net, x, 1)
    assert each > 72 * 72 * 64 * 4 * 8, "eight layers of 64 channels at full size, at the least"
    monkeypatch.setattr(batches, "free_memory", lambda: 4 * 3 * each)
    assert batches.suitable(net, x, None) == 2
    found = attacks.attack_set(net, x, y, Threat(eps=0.01, steps=1), seed=0)
    assert found.batch_size == 2


def test_memory_that_only_caches_files_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MEMORY", tmp_path / "meminfo")
    assert batches.free_memory() > 1 << 30, "a system that does not say"
    batches.MEMORY.write_text("MemTotal:  16000000 kB\nMemFree:      90000 kB\nMemAvailable:   12000000 kB\n")
    assert batches.free_memory() == (12_000_000 << 10) // batches.threads()


def test_the_recipe_of_an_unknown_set_is_said(own: Path, advmix: Run) -> None:
    made = advmix("train", "--dataset", "folder:pics", "--arch", "net.py:Net", "--epochs", "1")
    assert "recipe: 1 epoch in batches of 16, sgd at 0.1, flipped, cropped by 1, 6 images held out" in made.err
    shown = advmix("presets", "folder:pics")
    assert "epochs        120" in shown.out
    assert advmix("presets", "folder:pics", "--json").data["presets"]["attack"]["default"][f"folder:{own}/pics"]
    assert advmix("presets", "mnits").code == 2
    assert advmix("presets", "mnist").out.count("--dataset mnist") == 3
