"""Methods: how a network learns from annotation groups.

A method is a loss on the same batches. To add one: write ``<name>.py`` with a function
``(logits, batch, settings) -> LossParts`` and add a line to :data:`METHODS`. Methods share networks, sampler and
data, so that a comparison compares methods.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from abdoseg.methods.parts import LossFunction


@dataclass(frozen=True)
class MethodSpec:
    """One line of the table.

    Parameters
    ----------
    name, title, source
        What it is called, what it does, where it comes from.
    module
        Module of this package that has the function ``loss``; loaded when used, as it needs torch.
    """

    name: str
    title: str
    source: str
    module: str

    def loss(self) -> "LossFunction":
        """Load the method's loss function."""
        function: Callable[..., Any] = import_module(f"abdoseg.methods.{self.module}").loss
        return function


METHODS: dict[str, MethodSpec] = {
    "self_disambiguation": MethodSpec(
        "self_disambiguation",
        "background absorbs what was not annotated; entropy makes the model decide",
        "Chen et al. 2024, equations 1-5",
        "self_disambiguation",
    ),
    "background": MethodSpec(
        "background",
        "everything not annotated is background: the naive way, for comparison",
        "the usual practice",
        "background",
    ),
}
"""Name -> method."""
