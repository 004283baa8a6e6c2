"""A run as ``model.onnx`` and ``model.json``, checked in ONNX Runtime before it appears."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abdoseg.errors import ConfigError
from abdoseg.files import whole_files
from abdoseg.networks.exporting import export_onnx
from abdoseg.sharing.agreement import TOLERANCE, require_agreement
from abdoseg.sharing.facts import network_facts
from abdoseg.sharing.parts import RunFormat, RunReport, SharedRun

PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def require_onnx() -> None:
    """Raise ConfigError unless the packages are installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--to onnx: needs {', '.join(missing)}; `pip install 'abdoseg[onnx]'` installs what it needs"
        )


def files(out: Path) -> tuple[Path, ...]:
    """Return what an export writes."""
    return out / "model.onnx", out / "model.json"


def write(run: SharedRun, out: Path) -> RunReport:
    """Write ``model.onnx`` and ``model.json``.

    Raises
    ------
    RunError
        If ONNX Runtime's scores are not the network's.
    WorkspaceError
        If the files cannot be written.
    """
    import onnx

    model = run.model
    paths = files(out)
    with whole_files(*paths) as (draft, side):
        export_onnx(model.network, model.patch_shape, draft)
        onnx.checker.check_model(str(draft), full_check=True)
        difference = require_agreement(model.network, _Runtime(draft), model.patch_shape, "the ONNX model")
        opset = {entry.domain or "ai.onnx": entry.version for entry in onnx.load(str(draft)).opset_import}
        facts = {
            **network_facts(run),
            "opset": opset,
            "input_name": "image",
            "output_name": "logits",
            "checked": {"difference": difference, "limit": TOLERANCE, "onnxruntime": _version()},
        }
        side.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return RunReport(paths, difference, (f"opset {opset['ai.onnx']}, checked by onnx and ONNX Runtime {_version()}",))


def _version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


class _Runtime:
    """The model in ONNX Runtime, on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        # Bytes, so that no handle is on the file when it is moved.
        self._session: Any = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def __call__(self, image: Tensor) -> Tensor:
        (scores,) = self._session.run(None, {"image": image.numpy()})
        return torch.from_numpy(scores)


FORMAT = RunFormat("ONNX model", write, files, require_onnx)
