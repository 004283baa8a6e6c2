"""The CLIP-driven universal model (Liu et al. 2023): the controller reads the image and a text embedding.

The embedding is that of CLIP's text encoder on the structure's name, fixed, or a table that is learnt.
"""

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from abdoseg.methods.dynamic import PARAMETERS, DynamicModel, head_channels, loss, scores
from abdoseg.methods.parts import Method
from abdoseg.methods.task import Task
from abdoseg.methods.text_embeddings import LEARNED, TEXT_WIDTH, read_embeddings

if TYPE_CHECKING:
    from abdoseg.networks.padded import PaddedNetwork

WIDTH = 256
"""Numbers that an image and a structure are each described by."""


class TextController(nn.Module):
    """Linear map of the pooled features and a structure's embedding to the numbers of a head.

    Parameters
    ----------
    width
        Channels of the deepest features.
    structures
        N.
    learned
        Whether the embeddings are learnt; else they are fixed and are to be filled in.
    """

    def __init__(self, width: int, structures: int, *, learned: bool) -> None:
        super().__init__()
        if learned:
            self.table = nn.Parameter(torch.randn(structures, WIDTH))
        else:
            self.register_buffer("text", torch.zeros(structures, TEXT_WIDTH))
            self.from_text = nn.Linear(TEXT_WIDTH, WIDTH)
        self.learned = learned
        self.from_image = nn.Conv3d(width, WIDTH, 1)
        self.linear = nn.Linear(2 * WIDTH, PARAMETERS)

    def forward(self, deepest: Tensor) -> Tensor:
        """Map ``(B, C, x, y, z)`` to ``(B, N, 153)``."""
        of_image = self.from_image(deepest.mean(dim=(2, 3, 4), keepdim=True)).flatten(1)
        of_text = self.embeddings().to(of_image.dtype)
        both = [
            of_image[:, None].expand(-1, len(of_text), -1),
            of_text.expand(len(of_image), -1, -1),
        ]
        parameters: Tensor = self.linear(torch.cat(both, dim=2))
        return parameters

    def embeddings(self) -> Tensor:
        """Return e of each structure: ``(N, 256)``."""
        if self.learned:
            return self.table
        return functional.relu(self.from_text(self.get_buffer("text")))


def _build(network: "PaddedNetwork", task: Task) -> DynamicModel:
    learned = task.text_embeddings == LEARNED
    controller = TextController(network.deepest_channels, len(task.structures), learned=learned)
    return DynamicModel(network, controller, task)


def _prepare(model: nn.Module, task: Task) -> str:
    """Fill in the embeddings; return where they come from."""
    controller = cast("TextController", cast("DynamicModel", model).controller)
    if controller.learned:
        return "text embeddings: a learned table; --set text_embeddings=clip, or a file, takes those of CLIP"
    embeddings = read_embeddings(task.text_embeddings, task.structures)
    controller.get_buffer("text").copy_(embeddings)
    return f"text embeddings: from {task.text_embeddings}"


METHOD = Method(
    loss, ("bce", "dice"), channels=head_channels, build=_build, scores=scores, independent=True, prepare=_prepare
)
