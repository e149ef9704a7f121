"""The shape of the code: dependencies point one way, one module prints, imports are late."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "advmix_cli"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}

LAYERS = [
    {"advmix_cli._version", "advmix_cli.errors", "advmix_cli.passes"},
    {"advmix_cli.settings", "advmix_cli.statistics", "advmix_cli.files", "advmix_cli.zoo", "advmix_cli.world"},
    {"advmix_cli.names", "advmix_cli.gathering", "advmix_cli.locks"},
    {"advmix_cli.threats", "advmix_cli.ways", "advmix_cli.results", "advmix_cli.store"},
    {"advmix_cli.judging", "advmix_cli.remote", "advmix_cli.formats", "advmix_cli.layout"},
    {"advmix_cli.config"},
    {
        "advmix_cli.runtime",
        "advmix_cli.graphs",
        "advmix_cli.draws",
        "advmix_cli.data",
        "advmix_cli.models",
        "advmix_cli.figures",
        "advmix_cli.output",
    },
    {
        "advmix_cli.presets",
        "advmix_cli.augmentation",
        "advmix_cli.mixing",
        "advmix_cli.attacks",
        "advmix_cli.optimizing",
        "advmix_cli.splitting",
        "advmix_cli.artifacts",
    },
    {"advmix_cli.evaluation", "advmix_cli.bounds", "advmix_cli.inference"},
    {"advmix_cli.methods", "advmix_cli.checking"},
    {"advmix_cli.training", "advmix_cli.auditing"},
    {"advmix_cli.workflows"},
    {"advmix_cli.requests"},
    {"advmix_cli.answers", "advmix_cli.given", "advmix_cli.experiments"},
    {"advmix_cli.api", "advmix_cli.cli"},
]
"""Lower first: a module imports from layers below its own, and never from beside it, packages from within excepted."""


def layer(module: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if any(module == n or module.startswith(n + ".") for n in names))


def imports(path: Path) -> set[str]:
    """Everything of this package that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("advmix_cli"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("advmix_cli")}
    return found


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"advmix_cli", "advmix_cli.__main__"}))
def test_dependencies_point_one_way(module: str) -> None:
    own = layer(module)
    package = next(n for n in LAYERS[own] if module == n or module.startswith(n + "."))
    for imported in imports(MODULES[module]):
        within = imported == package or imported.startswith(package + ".")
        assert within or layer(imported) < own, f"{module} imports {imported}"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("typer", "advmix_cli.cli"),
        ("matplotlib", "advmix_cli.figures"),
        ("rich", ("advmix_cli.output", "advmix_cli.layout")),
        ("torchvision", ("advmix_cli.data", "advmix_cli.models")),
        ("timm", "advmix_cli.models"),
        ("filelock", "advmix_cli.locks"),
        ("safetensors", "advmix_cli.artifacts"),
        ("fsspec", "advmix_cli.remote"),
        ("submitit", "advmix_cli.experiments.cluster"),
    ],
)
def test_a_library_has_one_home(library: str, allowed: str | tuple[str, ...]) -> None:
    homes = (allowed,) if isinstance(allowed, str) else allowed
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text())
        checking = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if id(node) not in checking and any(name.split(".")[0] == library for name in names):
                within = any(module == home or module.startswith(home + ".") for home in homes)
                assert within, f"{module} imports {library}"


def test_a_module_is_read_in_one_sitting() -> None:
    long = {module: lines for module, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 350}
    assert long == {}


def test_all_packages_are_installed() -> None:
    import tomllib

    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    there = {".".join(p.parent.relative_to(PACKAGE.parent).parts) for p in PACKAGE.rglob("__init__.py")}
    assert set(project["tool"]["setuptools"]["packages"]) == there


def test_click_is_never_imported_and_only_output_prints() -> None:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert all(alias.name.split(".")[0] != "click" for alias in node.names), module
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                assert module == "advmix_cli.output", module


def test_the_command_line_needs_neither_torch_nor_matplotlib_nor_numpy() -> None:
    code = "import sys, advmix_cli.cli; print([m for m in ('torch', 'matplotlib', 'numpy', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_the_package_makes_openmp_passive_unless_told_otherwise() -> None:
    code = "import os; {}; import advmix_cli; print(os.environ.get('OMP_WAIT_POLICY'))"

    def policy(before: str) -> str:
        env = {"PATH": "/usr/bin", "PYTHONPATH": str(PACKAGE.parent)}
        return subprocess.run(
            [sys.executable, "-c", code.format(before)], capture_output=True, text=True, check=True, env=env
        ).stdout.strip()

    assert policy("pass") == "PASSIVE"
    assert policy("os.environ['OMP_WAIT_POLICY'] = 'ACTIVE'") == "ACTIVE"
