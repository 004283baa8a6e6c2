"""A head for each source, over background and the source's own structures (Chen et al. 2019, Med3D).

Each source's labels teach its own head, as if there were no other source. In prediction a structure's probability is
the mean over the heads that have it.
"""

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from abdoseg.errors import ConfigError
from abdoseg.losses import disambiguation_terms
from abdoseg.methods.parts import LossParts, LossSettings, Method, TorchBatch
from abdoseg.methods.task import Task
from abdoseg.networks.padded import crop_to

if TYPE_CHECKING:
    from abdoseg.networks.padded import PaddedNetwork

_SURE = 1e-6
"""Probabilities are kept this far from 0 and 1: their logits are interpolated."""


class OwnLogits(NamedTuple):
    """What the head of one image's source says."""

    logits: Tensor
    """``(1 + n, X, Y, Z)``; no channel where the source annotates nothing."""
    ids: tuple[int, ...]
    """The n structures."""


class MultiHead(nn.Module):
    """A network with a head, or a decoder and a head, for each source that annotates something.

    Parameters
    ----------
    network
        Its own decoder and head are those of the first such source.
    task
        Which source annotates what.
    """

    def __init__(self, network: "PaddedNetwork", task: Task) -> None:
        super().__init__()
        self.ids = tuple(ids for _, ids in task.sources)
        self.n_structures = len(task.structures)
        self.taught = [index for index, ids in enumerate(self.ids) if ids]
        others = self.taught[1:]
        self.network = network
        self.heads = nn.ModuleDict({str(i): network.new_head(1 + len(self.ids[i])) for i in others})
        # Copies of the network's decoder: all begin alike.
        own = others if task.decoder_per_source else []
        self.decoders = nn.ModuleDict({str(i): copy.deepcopy(network.decoder) for i in own})

    def forward(self, image: Tensor, source: Tensor | None = None) -> list[OwnLogits] | Tensor:
        """Return what training or prediction needs of images ``(B, 1, X, Y, Z)``.

        Parameters
        ----------
        image
            The images.
        source
            Index of each one's source, ``(B,)``.

        Returns
        -------
        list of OwnLogits or Tensor
            With sources, what each image's own head says. Without, scores ``(B, 1 + N, X, Y, Z)``: the logit of each
            structure's mean probability, and 0 for background.
        """
        maps = self.network.encoder(self.network.pad(image))
        return self._scores(maps, image) if source is None else self._of_own_heads(maps, image, source.tolist())

    def for_prediction(self) -> "MultiHead":
        """Return this model with the network's faster form."""
        self.network = self.network.for_prediction(keep_features=True)
        return self

    def _of_own_heads(self, maps: list[Tensor], image: Tensor, sources: list[int]) -> list[OwnLogits]:
        # What no image of this batch uses has a gradient all the same, 0: processes that share a batch agree on it.
        nothing = torch.stack([p.sum() * 0.0 for p in self.parameters()]).sum()
        found = []
        for i, source in enumerate(sources):
            if source in self.taught:
                logits = crop_to(self._logits(source, [level[i : i + 1] for level in maps]), image)[0]
            else:
                logits = image.new_zeros(0, *image.shape[2:])
            found.append(OwnLogits(logits + nothing, self.ids[source]))
        return found

    def _logits(self, source: int, maps: list[Tensor]) -> Tensor:
        key = str(source)
        decoder, head = self.network.decoder, self.network.head
        if key in self.decoders:
            decoder = self.decoders[key]
        if key in self.heads:
            head = self.heads[key]
        logits: Tensor = head(decoder(maps))
        return logits

    def _scores(self, maps: list[Tensor], image: Tensor) -> Tensor:
        total = image.new_zeros(len(image), 1 + self.n_structures, *image.shape[2:], dtype=torch.float32)
        heads = total.new_zeros(1 + self.n_structures)
        for source in self.taught:
            ids = [0, *self.ids[source]]
            total[:, ids] += crop_to(self._logits(source, maps), image).float().softmax(dim=1)
            heads[ids] += 1
        scores = (total / heads.clamp(min=1)[:, None, None, None]).clamp(_SURE, 1 - _SURE).logit()
        scores[:, 0] = 0.0
        return scores


def loss(outputs: list[OwnLogits], batch: TorchBatch, settings: LossSettings) -> LossParts:
    """Return focal + dice of each example's own head, mean over the batch; 0 where its source annotates nothing.

    In slices that are not annotated for all of the source's structures, the head's own background absorbs the others.
    """
    focal, dice = [], []
    for i, (logits, ids) in enumerate(outputs):
        if not ids:
            focal.append(logits.sum())
            dice.append(logits.sum())
            continue
        terms = disambiguation_terms(
            logits[None],
            _own_label(batch.label[i], ids)[None],
            batch.group[i : i + 1],
            batch.annotated[i : i + 1, :, [c - 1 for c in ids]],
            dice_over=settings.dice_over,
            reduction=settings.reduction,
            clamp=settings.clamp,
            validate=False,
        )
        focal.append(terms.focal[0])
        dice.append(terms.dice[0])
    means = (torch.stack(focal).mean(), torch.stack(dice).mean())
    return LossParts(means[0] + means[1], means)


def _own_label(label: Tensor, ids: tuple[int, ...]) -> Tensor:
    """Return the label in a head's own numbers: 1 for the first of ``ids``, 0 for all others."""
    table = torch.zeros(256, dtype=label.dtype, device=label.device)
    table[list(ids)] = torch.arange(1, len(ids) + 1, dtype=label.dtype, device=label.device)
    return table[label.long()]


def _channels(task: Task) -> int:
    """Return the channels of the first taught source's head."""
    taught = [ids for _, ids in task.sources if ids]
    if not taught:
        raise ConfigError("multi_head: no source annotates a structure; it needs annotated cases")
    return 1 + len(taught[0])


def _image_and_source(batch: TorchBatch) -> tuple[Tensor, ...]:
    return batch.image, batch.source


METHOD = Method(
    loss, ("focal", "dice"), channels=_channels, build=MultiHead, inputs=_image_and_source, independent=True
)
