"""abdoseg: one abdominal CT/MR segmentation model from many datasets whose labels do not agree.

The public names are loaded when first used, so that ``import abdoseg`` and ``abdoseg --help`` stay quick and
load neither torch nor monai.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Public name -> module, or (module, name there).
_PUBLIC: dict[str, str | tuple[str, str]] = {
    "ABDOMEN": "anatomy",
    "AbdosegError": "errors",
    "Annotation": "annotation",
    "SAMPLERS": "sampling",
    "Sampler": "sampling",
    "Settings": "store",
    "TrainConfig": "config",
    "View": "views",
    "Workspace": "store",
    "disambiguation_loss": "losses",
    "disambiguation_terms": "losses",
    "evaluate": ("steps.evaluate_run", "evaluate_run"),
    "ingest": "steps.ingest",
    "load_card": "cards",
    "load_model": "trained",
    "load_run": "runs",
    "make_config": "config",
    "predict": ("steps.predict", "predict_file"),
    "sparsify": "steps.sparsify",
    "train": "steps.train",
    "write_phantoms": "phantom",
}

if TYPE_CHECKING:
    from abdoseg.anatomy import ABDOMEN as ABDOMEN
    from abdoseg.annotation import Annotation as Annotation
    from abdoseg.cards import load_card as load_card
    from abdoseg.config import TrainConfig as TrainConfig
    from abdoseg.config import make_config as make_config
    from abdoseg.errors import AbdosegError as AbdosegError
    from abdoseg.losses import disambiguation_loss as disambiguation_loss
    from abdoseg.losses import disambiguation_terms as disambiguation_terms
    from abdoseg.phantom import write_phantoms as write_phantoms
    from abdoseg.runs import load_run as load_run
    from abdoseg.sampling import SAMPLERS as SAMPLERS
    from abdoseg.sampling import Sampler as Sampler
    from abdoseg.steps.evaluate_run import evaluate_run as evaluate  # noqa: F401
    from abdoseg.steps.ingest import ingest as ingest
    from abdoseg.steps.predict import predict_file as predict  # noqa: F401
    from abdoseg.steps.sparsify import sparsify as sparsify
    from abdoseg.steps.train import train as train
    from abdoseg.store import Settings as Settings
    from abdoseg.store import Workspace as Workspace
    from abdoseg.trained import load_model as load_model
    from abdoseg.views import View as View

__all__ = sorted(_PUBLIC)  # noqa: PLE0605  # one list of public names, not two


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _PUBLIC:
        msg = f"module 'abdoseg' has no attribute {name!r}"
        raise AttributeError(msg)
    found = _PUBLIC[name]
    module, attribute = found if isinstance(found, tuple) else (found, name)
    return getattr(import_module(f"abdoseg.{module}"), attribute)


def __dir__() -> list[str]:
    return [*_PUBLIC, "__version__"]


def _version() -> str:
    from importlib.metadata import version

    return version("abdoseg")
