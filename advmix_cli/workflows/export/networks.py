"""A network with its weights in other forms, each read back and compared on images before it counts as written."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, models
from advmix_cli.errors import AdvmixError, UsageError
from advmix_cli.results import Facts, Result
from advmix_cli.workflows.card.folder import weights
from advmix_cli.workflows.references import ModelRef, load_model, resolve_model
from advmix_cli.workflows.session import Session

if TYPE_CHECKING:
    import torch
    from torch import nn

    Said = Callable[[torch.Tensor], torch.Tensor]

_IMAGES = 100
_APART = 1e-5
"""How far logits may lie from the model's own, in proportion to the largest where that is above 1."""
_INSTALL = "pip install 'advmix[onnx]'"


def export(session: Session, ref: str, to: str, path: Path) -> Result:
    """The model `ref` names as a file `path`; where it says something else than the model nothing is written."""
    model = resolve_model(session, ref)
    net = load_model(model, "cpu")
    content = _WRITE[to](session, model, net)
    on = _images(session, model)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / path.name
        written.write_bytes(content)
        said = _READ[to](written, model)
        apart = None if said is None else _compared(net, said, on, to)
    session.store.write(path, content)
    checked = (
        "not checked: onnxruntime is not installed" if apart is None
        else f"logits differ by at most {apart:.2g} on {len(on)} images"
    )  # fmt: skip
    rows = [("written", str(path)), ("form", to), ("of", model.name), ("takes", _takes(model)), ("read back", checked)]
    data = {
        "path": str(path), "form": to, "model": model.name, "bytes": len(content),
        "input": {"shape": list(model.network.shape), "range": [0, 1], "type": "float32"},
        "checked": apart is not None, "largest_difference": apart, "n": len(on) if apart is not None else 0,
    }  # fmt: skip
    return Result(data, [str(path)], [Facts(rows)])


def _takes(model: ModelRef) -> str:
    sides = ", ".join(map(str, model.network.shape))
    return f"float32 images (N, {sides}) in [0,1], normalisation inside; logits come out"


def _images(session: Session, model: ModelRef) -> torch.Tensor:
    """The first test images of the model's own set; noise where that is not there."""
    import torch

    from advmix_cli import attacks

    try:
        found = session.images(model.dataset, "test").first(_IMAGES)
        x = attacks.to_float(found.x[:])
        if tuple(x.shape[1:]) == model.network.shape:
            return x
    except AdvmixError:
        session.report.note(f"{model.dataset} is not there: checked on noise")
    return torch.rand(_IMAGES, *model.network.shape, generator=torch.Generator().manual_seed(0))


def _compared(net: nn.Module, said: Said, x: torch.Tensor, to: str) -> float:
    """The largest difference of logits, of all images and of one alone. Raises AdvmixError where it is large."""
    import torch

    with torch.no_grad():
        own = net(x)
        apart = max(float((net(some) - said(some)).abs().max()) for some in (x, x[:1]))
    if not apart <= _APART * max(1.0, float(own.abs().max())):
        raise AdvmixError(
            f"read back, the {to} file says something else: its logits differ by {apart:.3g}",
            "nothing was written; please report the network",
            code="export",
        )
    return apart


# What is written


def _state_dict(session: Session, model: ModelRef, net: nn.Module) -> bytes:
    import torch

    written = io.BytesIO()
    torch.save(dict(net.state_dict()), written)
    return written.getvalue()


def _traced(net: nn.Module, model: ModelRef, write: Callable[[nn.Module, Any, Any], bytes]) -> bytes:
    """What an exporter of torch makes of the network, for batches of any size; what it says on the way is left out."""
    import torch

    few = torch.rand(2, *model.network.shape, generator=torch.Generator().manual_seed(0))
    try:
        with _silent():
            return write(net, (few,), ({0: torch.export.Dim("batch", min=1)},))
    except ImportError as error:
        raise UsageError(f"--to onnx needs {error.name}", _INSTALL) from None
    except Exception as error:  # whatever a network of others does that cannot be traced
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AdvmixError(
            f"{model.label} cannot be exported: {reason[:200]}", "--to state-dict takes every network", code="export"
        ) from None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _program(session: Session, model: ModelRef, net: nn.Module) -> bytes:
    import torch

    def write(net: nn.Module, few: Any, sizes: Any) -> bytes:
        written = io.BytesIO()
        torch.export.save(torch.export.export(net, few, dynamic_shapes=sizes), written)
        return written.getvalue()

    return _traced(net, model, write)


def _onnx(session: Session, model: ModelRef, net: nn.Module) -> bytes:
    import torch

    def write(net: nn.Module, few: Any, sizes: Any) -> bytes:
        program = torch.onnx.export(
            net, few, dynamo=True, input_names=["images"], output_names=["logits"], dynamic_shapes=sizes, verbose=False
        )
        assert program is not None
        return bytes(program.model_proto.SerializeToString())

    return _traced(net, model, write)


def _safetensors(session: Session, model: ModelRef, net: nn.Module) -> bytes:
    return weights(session, model)


_WRITE = {"onnx": _onnx, "torch-export": _program, "state-dict": _state_dict, "safetensors": _safetensors}


# What is read back


def _of_weights(tensors: Any, model: ModelRef) -> Said:
    built = models.build(model.network)
    built.load_state_dict(tensors)
    return built.eval()


def _read_state_dict(path: Path, model: ModelRef) -> Said:
    import torch

    return _of_weights(torch.load(path, weights_only=True), model)


def _read_safetensors(path: Path, model: ModelRef) -> Said:
    return _of_weights(artifacts.checkpoint_weights(path, "best"), model)


def _read_program(path: Path, model: ModelRef) -> Said:
    import torch

    with _silent():
        return torch.export.load(path).module()


def _read_onnx(path: Path, model: ModelRef) -> Said | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    import torch

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


_READ: dict[str, Callable[[Path, ModelRef], Said | None]] = {
    "onnx": _read_onnx, "torch-export": _read_program, "state-dict": _read_state_dict,
    "safetensors": _read_safetensors,
}  # fmt: skip
