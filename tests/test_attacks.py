"""The attacks against independent implementations, and what must hold for every attack."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from conftest import DEVICE, on_cpu
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advmix_cli import attacks, models
from advmix_cli.attacks.common import gradient, objective
from advmix_cli.attacks.pgd import pgd_as_run
from advmix_cli.attacks.standing import Standing
from advmix_cli.errors import AdvmixError
from advmix_cli.threats import Threat

LINF = Threat(eps=0.3, alpha=0.02, steps=20, random_start=False)
L2 = Threat(norm="l2", eps=1.5, alpha=0.2, steps=20, random_start=False)


@pytest.fixture(scope="module")
def lenet() -> nn.Sequential:
    """A LeNet5 that has learned a little, so that gradients are neither zero nor uniform."""
    return taught(models.build("lenet5", 3).to(DEVICE).train(), 40)


def taught(model: nn.Sequential, steps: int) -> nn.Sequential:
    """The model after so many steps on the blobs of `batch`, in eval mode."""
    x, y = batch(256)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def batch(n: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Blobs whose place tells the class, in [0,1], some pixels exactly 0 or 1."""
    random = torch.Generator().manual_seed(5)
    y = torch.randint(0, 10, (n,), generator=random)
    x = torch.rand((n, 1, 32, 32), generator=random) * 0.5
    for i, label in enumerate(y.tolist()):
        x[i, 0, 3 * label : 3 * label + 4, 8:24] += 0.7
    x[:, :, :2] = 0
    return x.clamp_(0, 1).to(DEVICE), y.to(DEVICE)


def run(model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat) -> torch.Tensor:
    return attacks.attack(model, x, y, threat).x_adv


def foolbox_attack(model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, kind: str) -> torch.Tensor:
    foolbox = pytest.importorskip("foolbox")
    options = {} if "FastGradient" in kind else {"abs_stepsize": threat.alpha, "steps": threat.steps}
    attack = getattr(foolbox.attacks, kind)(random_start=False, **options)
    with attacks.frozen(model):
        _, clipped, _ = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=threat.eps)
    return clipped


def art_attack(model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat) -> torch.Tensor:
    pytest.importorskip("art")
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    # ART averages the loss over the batch unless told otherwise, and tiny gradients then become zero.
    loss = nn.CrossEntropyLoss(reduction="sum")
    shape = tuple(x.shape[1:])
    classifier = PyTorchClassifier(model, loss, shape, nb_classes=10, clip_values=(0, 1), device_type="cpu")
    attack = ProjectedGradientDescentPyTorch(
        classifier,
        norm=2 if threat.norm == "l2" else "inf",
        eps=threat.eps,
        eps_step=threat.alpha,
        max_iter=threat.steps,
        batch_size=len(x),
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


@on_cpu
def test_linf_pgd_is_foolboxs_bit_for_bit(lenet: nn.Sequential) -> None:
    x, y = batch()
    ours = run(lenet, x, y, LINF)
    assert torch.equal(ours, foolbox_attack(lenet, x, y, LINF, "LinfPGD"))
    assert (ours != x).float().mean() > 0.5


@on_cpu
def test_linf_pgd_is_arts_bit_for_bit(lenet: nn.Sequential) -> None:
    x, y = batch()
    assert torch.equal(run(lenet, x, y, LINF), art_attack(lenet, x, y, LINF))


@on_cpu
def test_l2_pgd_is_foolboxs_bit_for_bit(lenet: nn.Sequential) -> None:
    x, y = batch()
    assert torch.equal(run(lenet, x, y, L2), foolbox_attack(lenet, x, y, L2, "L2PGD"))


@on_cpu
def test_l2_pgd_differs_from_arts_by_rounding_alone(lenet: nn.Sequential) -> None:
    """ART takes the length with `linalg.norm` and multiplies |gradient| / length by the sign; here, as in foolbox,
    it is the root of the summed squares and one product. One step differs in the last bits; the verdicts agree."""
    x, y = batch()
    one = dataclasses.replace(L2, steps=1)
    assert (run(lenet, x, y, one) - art_attack(lenet, x, y, one)).abs().max() < 5e-7
    ours, theirs = run(lenet, x, y, L2), art_attack(lenet, x, y, L2)
    assert torch.equal(lenet(ours).argmax(1), lenet(theirs).argmax(1))


@on_cpu
@pytest.mark.parametrize(("norm", "kind"), [("linf", "LinfFastGradientAttack"), ("l2", "L2FastGradientAttack")])
def test_fgsm_is_foolboxs_bit_for_bit(lenet: nn.Sequential, norm: str, kind: str) -> None:
    x, y = batch()
    threat = Threat(attack="fgsm", norm=norm, eps=0.25, alpha=0.25, steps=1, random_start=False)
    assert torch.equal(run(lenet, x, y, threat), foolbox_attack(lenet, x, y, threat, kind))


@on_cpu
def test_pgd_on_a_normalising_batch_norm_model_is_foolboxs() -> None:
    model = models.build("preactresnet18", 1)
    x = torch.rand((16, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    y = torch.arange(16) % 10
    threat = Threat(eps=8 / 255, alpha=2 / 255, steps=3, random_start=False)
    assert torch.equal(run(model, x, y, threat), foolbox_attack(model, x, y, threat, "LinfPGD"))


@settings(max_examples=25, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(0, 1),
    steps=st.integers(1, 4),
    alpha=st.floats(1e-3, 2),
    restarts=st.integers(1, 3),
)
def test_every_attack_keeps_budget_and_range(norm: str, eps: float, steps: int, alpha: float, restarts: int) -> None:
    model = models.build("lenet5", 3).to(DEVICE)
    x, y = batch(6)
    threat = Threat(norm=norm, eps=eps, alpha=alpha, steps=steps, restarts=restarts)
    x_adv = run(model, x, y, threat)
    length = (x_adv - x).abs().max() if norm == "linf" else (x_adv - x).flatten(1).norm(dim=1).max()
    assert length <= eps + 1e-6
    assert 0 <= x_adv.min() <= x_adv.max() <= 1


def test_eps_zero_changes_nothing(lenet: nn.Sequential) -> None:
    x, y = batch()
    for norm in ("linf", "l2"):
        assert torch.equal(run(lenet, x, y, Threat(norm=norm, eps=0.0, alpha=0.1, steps=3)), x)


def test_the_attack_leaves_everything_as_it_was() -> None:
    model = models.build("preactresnet18").to(DEVICE).train()
    model[1].eval()
    next(model.parameters()).requires_grad_(False)
    x = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    y = torch.tensor([0, 1], device=DEVICE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    pixels = x.clone()
    attacks.attack(model, x, y, Threat(eps=0.1, alpha=0.1, steps=2))
    assert torch.equal(x, pixels)
    assert not x.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_flags_are_restored_after_an_error() -> None:
    class Fails(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no")

    model = nn.Sequential(nn.Flatten(), Fails(1024, 10)).to(DEVICE).train()
    x, y = batch(2)
    with pytest.raises(RuntimeError, match="no"):
        run(model, x, y, LINF)
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def network_of_1x1() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(3, 256, 3, 4), nn.ReLU(), nn.Conv2d(256, 512, 1), nn.ReLU()
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(512 * 64, 10))
    return model.eval().to(memory_format=torch.channels_last)


@on_cpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("arch", ["lenet5", "preactresnet18", "1x1"])
def test_logits_and_gradients_are_the_same_bits_in_any_batch(arch: str, precision: str) -> None:
    model, random = network_of_1x1() if arch == "1x1" else models.build(arch, 3), torch.Generator().manual_seed(0)
    x = torch.rand((40, *models.info("preactresnet18" if arch == "1x1" else arch).shape), generator=random)
    y = torch.randint(0, 10, (40,), generator=random)
    torch.set_num_threads(1)
    with attacks.frozen(model):
        whole = gradient(model, x, objective("ce", y, None), precision)
        for index in (torch.arange(1), torch.arange(7) + 20, torch.tensor([39, 3, 5, 0]), torch.arange(17) * 2):
            part = gradient(model, x[index], objective("ce", y[index], None), precision)
            assert all(torch.equal(a, b[index]) for a, b in zip(part, whole, strict=True))
            with torch.no_grad():
                assert precision == "bf16" or torch.equal(attacks.logits(model, x[index]), whole[2][index])


@on_cpu
@pytest.mark.parametrize(
    "threat",
    [
        Threat(eps=0.1, alpha=0.01, steps=12, early_stop=True),
        Threat(norm="l2", eps=2.5, alpha=0.5, steps=6, restarts=2),
    ],
    ids=["until-won", "l2"],
)
def test_nothing_depends_on_batches_order_or_company(lenet: nn.Sequential, threat: Threat) -> None:
    x, y = batch(50)
    whole = attacks.attack_set(lenet, x, y, threat, seed=4, images=True)
    assert 0 < int(whole.robust.sum()) < 50
    for size in (3, 16, 50):
        other = attacks.attack_set(lenet, x, y, threat, seed=4, images=True, batch_size=size)
        assert torch.equal(other.x_adv, whole.x_adv)
        assert torch.equal(other.robust, whole.robust)
    index = torch.tensor([41, 2, 30, 7, 11])
    few = attacks.attack_set(lenet, x[index], y[index], threat, seed=4, images=True, index=index)
    assert torch.equal(few.x_adv, whole.x_adv[index])
    assert torch.equal(few.robust, whole.robust[index])


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(lenet: nn.Sequential) -> None:
    x, y = batch()
    threat = Threat(eps=0.3, alpha=0.05, steps=2)
    first, second = run(lenet, x, y, threat), run(lenet, x, y, threat)
    other = attacks.attack(lenet, x, y, threat, seed=1).x_adv
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_restarts_never_help_the_model_and_keep_the_worst(lenet: nn.Sequential) -> None:
    x, y = batch(64)
    weak = Threat(eps=0.18, alpha=0.05, steps=2)
    survivors = []
    for restarts in (1, 2, 5):
        found = attacks.attack(lenet, x, y, dataclasses.replace(weak, restarts=restarts))
        assert torch.equal(lenet(found.x_adv).argmax(1) != y, found.success)
        survivors.append(int((~found.success).sum()))
    assert survivors == sorted(survivors, reverse=True)
    assert survivors[-1] < survivors[0]


def test_more_steps_and_a_larger_eps_break_more(lenet: nn.Sequential) -> None:
    x, y = batch(64)

    def broken(eps: float) -> int:
        return int(attacks.attack(lenet, x, y, Threat(eps=eps, alpha=eps / 4 or 1.0, steps=10)).success.sum())

    counts = [broken(eps) for eps in (0.0, 0.05, 0.15, 0.5)]
    assert counts == sorted(counts)
    assert counts[-1] == 64


def test_as_run_leaves_the_ball_by_up_to_twice_eps(lenet: nn.Sequential) -> None:
    x, y = batch(64)
    threat = Threat(eps=0.3, alpha=0.01, steps=40, variant="as-run")
    largest = float((run(lenet, x, y, threat) - x).abs().max())
    assert 0.39 < largest <= 0.40 + 1e-5  # 40 steps of 0.01
    larger = dataclasses.replace(threat, alpha=0.1)
    largest = float((run(lenet, x, y, larger) - x).abs().max())
    assert 0.55 < largest <= 0.6 + 1e-6


def test_as_run_works_in_normalised_units_where_the_model_normalises() -> None:
    model = models.build("preactresnet18", 2).double()  # so that rounding turns no sign
    normalize = model[0].normalize
    x = torch.rand((3, 3, 32, 32), generator=torch.Generator().manual_seed(3)).double()
    y = torch.tensor([3, 1, 4])
    threat = Threat(eps=8 / 255, alpha=2 / 255, steps=7, variant="as-run")
    noise = torch.empty_like(x).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    with attacks.frozen(model):
        ours = normalize(pgd_as_run(model, x, y, threat, noise=noise)[0])

    # The same attack written down in the units of the published code, on the network behind the normalisation.
    behind = nn.Sequential(*list(model[0])[1:], *model[1:]).eval()
    clean = normalize(x)
    centre = (clean + noise * threat.eps).clamp(0, 1)
    z = clean.clone()
    for _ in range(7):
        z.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(behind(z), y), z)
        z = z.detach() + threat.alpha * gradient.sign()
        z = (centre + (z - centre).clamp(-threat.eps, threat.eps)).clamp(0, 1)
    assert ours.min() >= -1e-6
    assert ours.max() <= 1 + 1e-6
    assert torch.allclose(ours, z, atol=1e-9)


def test_results_outside_range_or_budget_are_refused() -> None:
    x = torch.full((2, 1, 2, 2), 0.5)
    with pytest.raises(AdvmixError, match="leave the budget"):
        attacks.perturbation(x, x + 0.2, Threat(eps=0.1))
    with pytest.raises(AdvmixError, match=r"leave \[0,1\]"):
        attacks.perturbation(x, x + 0.6, Threat(eps=1.0))
    with pytest.raises(AdvmixError, match=r"leave \[0,1\]"):
        attacks.perturbation(x, torch.full_like(x, float("nan")), None)
    with pytest.raises(AdvmixError, match=r"l2 0\.39999"):
        attacks.perturbation(x, x + 0.2, Threat(norm="l2", eps=0.3))
    measured = attacks.perturbation(x, x + 0.2, Threat(eps=0.1, variant="as-run"))
    assert (measured.linf, measured.l2) == (pytest.approx(0.2), pytest.approx(0.4))
    assert attacks.perturbation(x, x, None) == attacks.Change(0.0, 0.0)


@pytest.mark.parametrize("eps", [4.0, 12.0, 16.0])
def test_a_large_l2_ball_is_not_left_by_rounding(eps: float) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).to(DEVICE).eval()
    x = torch.full((4, 3, 32, 32), 0.5, device=DEVICE)
    x_adv = run(model, x, torch.arange(4, device=DEVICE), Threat(norm="l2", eps=eps, alpha=eps / 4, steps=10))
    assert (x_adv - x).double().flatten(1).norm(dim=1).max() <= eps * (1 + 1e-6)


def test_a_wrong_sample_is_never_robust(lenet: nn.Sequential) -> None:
    x, _ = batch(16)
    wrong = (lenet(x).argmax(1) + 1) % 10
    pixels = (x * 255).round().to(torch.uint8)
    attacked = attacks.attack_set(lenet, pixels, wrong, Threat(eps=0.3, alpha=0.1, steps=2), batch_size=5, seed=0)
    assert not attacked.clean.any()
    assert not attacked.robust.any()


def test_the_loss_of_a_set_is_that_of_its_worst_images(lenet: nn.Sequential) -> None:
    x, y = batch(40)
    found = attacks.attack_set(lenet, x, y, Threat(eps=0.1, alpha=0.03, steps=4), seed=0, images=True)
    expected = F.cross_entropy(lenet(found.x_adv.to(DEVICE)), y, reduction="none").detach().cpu()
    (after,) = found.after.values()
    torch.testing.assert_close(after.losses, expected)
    assert found.change.linf <= 0.1 + 1e-6
    assert found.change.l2 > found.change.linf


def test_only_float32_ends_a_sample(lenet: nn.Sequential) -> None:
    """bf16 sees images as wrong that float32 calls right; were it believed, they would be given up too soon."""
    x, y = batch(256)
    with torch.no_grad():
        y = lenet(x).argmax(1)
    early = Threat(eps=0.03, alpha=0.002, steps=30, precision="bf16", early_stop=True)
    found = attacks.attack(lenet, x, y, early)
    with torch.no_grad():
        assert torch.equal(lenet(found.x_adv).argmax(1) != y, found.success)
    late = attacks.attack(lenet, x, y, dataclasses.replace(early, early_stop=False))
    assert int((late.success & ~found.success).sum()) == 0, "what the last of all steps breaks is broken"


def test_a_candidate_that_float32_calls_right_goes_on(lenet: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = batch(32)
    with torch.no_grad():
        y = lenet(x).argmax(1)
    standing = Standing(lenet, x, y=y, won=torch.ones_like(y, dtype=torch.bool))
    standing.confirm()
    standing.settle()
    assert len(standing) == 32
    standing.rows["won"] = torch.ones_like(standing.rows["won"])
    standing.settle()
    assert len(standing) == 0
