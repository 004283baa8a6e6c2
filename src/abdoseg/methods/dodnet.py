"""DoDNet (Zhang et al. 2021): the controller reads the image and the number of the structure."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from abdoseg.methods.dynamic import PARAMETERS, DynamicModel, head_channels, loss, scores
from abdoseg.methods.parts import Method
from abdoseg.methods.task import Task

if TYPE_CHECKING:
    from abdoseg.networks.padded import PaddedNetwork


class OneHotController(nn.Module):
    """Linear map of the pooled features and a one-hot structure to the numbers of a head.

    Parameters
    ----------
    width
        Channels of the deepest features.
    structures
        N.
    """

    def __init__(self, width: int, structures: int) -> None:
        super().__init__()
        self.register_buffer("tasks", torch.eye(structures), persistent=False)
        self.linear = nn.Linear(width + structures, PARAMETERS)

    def forward(self, deepest: Tensor) -> Tensor:
        """Map ``(B, C, x, y, z)`` to ``(B, N, 153)``."""
        pooled, tasks = deepest.mean(dim=(2, 3, 4)), self.get_buffer("tasks")
        of_image = pooled[:, None].expand(-1, len(tasks), -1)
        of_task = tasks.to(pooled.dtype).expand(len(pooled), -1, -1)
        parameters: Tensor = self.linear(torch.cat([of_image, of_task], dim=2))
        return parameters


def _build(network: "PaddedNetwork", task: Task) -> DynamicModel:
    return DynamicModel(network, OneHotController(network.deepest_channels, len(task.structures)), task)


METHOD = Method(loss, ("bce", "dice"), channels=head_channels, build=_build, scores=scores, independent=True)
