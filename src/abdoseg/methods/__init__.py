"""Methods: how a network learns from annotation groups, and how it predicts.

To add one, write ``<name>.py`` with a :class:`~abdoseg.methods.parts.Method` called ``METHOD`` and add a line to
:data:`METHODS`. Methods share networks, sampler and data, so that a comparison compares methods.

Importing this package loads no torch, so the command line can list the methods at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from abdoseg.methods.parts import Method


@dataclass(frozen=True)
class MethodSpec:
    """What can be known of a method without loading torch.

    Parameters
    ----------
    name, title, source
        What it is called, what it does, where it comes from.
    settings
        Those settings of a training that belong to this method and to few others.
    per_source
        Whether it has to know which structures each source annotates.
    skips_unannotated
        Whether cases that hold no annotated structure are left out.
    learns_logits
        Whether its loss takes the network's own logits: then a network can be supervised at several levels.
    needs_teacher
        Whether another run labels the training cases first.
    """

    name: str
    title: str
    source: str
    settings: tuple[str, ...] = ()
    per_source: bool = False
    skips_unannotated: bool = False
    learns_logits: bool = True
    needs_teacher: bool = False

    def load(self) -> "Method":
        """Load the method; imports torch."""
        method: Method = import_module(f"abdoseg.methods.{self.name}").METHOD
        return method


_ALL = (
    MethodSpec(
        "self_disambiguation",
        "background absorbs what was not annotated; entropy makes the model decide",
        "Chen et al. 2024, equations 1-5",
    ),
    MethodSpec(
        "background",
        "everything not annotated is background: the naive way, for comparison",
        "the usual practice",
    ),
    MethodSpec(
        "ignore",
        "what is not annotated is left out; background is learnt from complete labels alone",
        "the usual ignore label",
    ),
    MethodSpec(
        "marginal",
        "cross-entropy and dice with merged background; what is drawn excludes all else",
        "Shi et al. 2021",
    ),
    MethodSpec(
        "sigmoid",
        "a yes or no for each annotated structure",
        "MultiTalent, Ulrich et al. 2023",
        settings=("dice_smooth",),
    ),
    MethodSpec(
        "multi_head",
        "a head for each source",
        "Chen et al. 2019 (Med3D)",
        settings=("decoder_per_source",),
        per_source=True,
        learns_logits=False,
    ),
    MethodSpec(
        "dodnet",
        "a head made for each structure, by the image",
        "Zhang et al. 2021",
        settings=("tasks_per_step", "dice_smooth", "passes_per_structure"),
        skips_unannotated=True,
        learns_logits=False,
    ),
    MethodSpec(
        "clip_driven",
        "a head made for each structure, by the image and text embeddings",
        "Liu et al. 2023",
        settings=("tasks_per_step", "dice_smooth", "passes_per_structure", "text_embeddings"),
        skips_unannotated=True,
        learns_logits=False,
    ),
    MethodSpec(
        "pseudo_label",
        "a finished run (--from) labels what is not annotated, then ordinary training",
        "Lee 2013",
        settings=("confidence",),
        needs_teacher=True,
    ),
)

METHODS: Mapping[str, MethodSpec] = {spec.name: spec for spec in _ALL}
"""Name -> method."""

OWN_SETTINGS: frozenset[str] = frozenset(name for spec in _ALL for name in spec.settings)
"""Settings that mean nothing to the methods that do not name them."""
