"""Several trained networks as one: the mean of their probabilities."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from abdoseg.errors import ConfigError
from abdoseg.inference.probabilities import averaged_form, class_probabilities, has_independent_heads
from abdoseg.model import SegmentationModel

_SURE = 2.0**-24
"""Mean probabilities are kept this far from 0 and 1, whose logits are infinite: half the step of float32 below 1."""


class MeanOfProbabilities(nn.Module):
    """Scores that stand for the mean of several networks' probabilities.

    Of networks whose heads are all independent: each structure's logit of its mean probability, and 0 for background,
    so that the label is background where no mean reaches 0.5. Else the logarithm of the classes' mean probabilities,
    whose softmax is that mean. Among others, a network with independent heads has for background 1 minus the
    probability of its most probable structure.

    Parameters
    ----------
    networks
        Each ``(B, 1, X, Y, Z)`` to scores ``(B, C, X, Y, Z)``.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.independent_heads = all(map(has_independent_heads, networks))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 1, X, Y, Z)`` to ``(B, C, X, Y, Z)``."""
        total: Tensor | None = None
        for network in self.networks:
            p = self._probabilities(network, x)
            total = p if total is None else total.add_(p)
        assert total is not None  # there is always a network
        # Below the smallest normal number the logarithm would be that of 0.
        mean = total.div_(len(self.networks)).clamp_min_(torch.finfo(torch.float32).tiny)
        return mean.logit_(_SURE) if self.independent_heads else mean.log_()

    def _probabilities(self, network: nn.Module, x: Tensor) -> Tensor:
        scores: Tensor = network(x)
        if self.independent_heads:
            return averaged_form(scores.float(), independent=True)
        return class_probabilities(scores.float(), independent=has_independent_heads(network))


def ensemble_of(models: Sequence[SegmentationModel]) -> SegmentationModel:
    """Return one model that averages the probabilities of several, over their networks and over windows.

    Parameters
    ----------
    models
        At least one; of one list of structures, spacing, windows and patch. They may differ in network, method,
        training cases and seed. A single one is returned as it is.

    Raises
    ------
    ConfigError
        If they do not fit together.
    """
    first, *others = models
    if not others:
        return first
    for other in others:
        for what, a, b in (
            ("structures", first.anatomy.names, other.anatomy.names),
            ("spacing in mm", first.spacing_mm, other.spacing_mm),
            ("intensity windows", first.windows, other.windows),
            ("patch", first.patch_shape, other.patch_shape),
        ):
            if a != b:
                raise ConfigError(
                    f"{first.name} and {other.name}: were trained with different {what} ({a}; {b}); only runs that "
                    "agree in it can be averaged"
                )
    settings = replace(first.settings(), average="softmax")
    name = " + ".join(model.name for model in models)
    network = MeanOfProbabilities([model.network for model in models]).eval()
    return replace(first, network=network, name=name, inference=settings)
