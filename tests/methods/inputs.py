"""Small tasks and batches for the tests of methods."""

import torch

from abdoseg.methods.parts import TorchBatch
from abdoseg.methods.task import Task

STRUCTURES = ("spleen", "right_kidney", "left_kidney", "gallbladder")
TASK = Task(STRUCTURES, sources=(("a", (1, 3)), ("b", (2, 3, 4)), ("unlabelled", ())))


def make_batch(
    annotated=(((True, False, True, False),), ((False, True, True, True),)),
    shape=(16, 16, 32),
    seed=0,
    source=(0, 1),
) -> TorchBatch:
    """Return a batch whose labels are known in their groups; a tenth of the voxels lie outside the image."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.tensor(annotated)
    batch, groups, n = table.shape
    group = torch.randint(0, groups, (batch, *shape), generator=generator).to(torch.int16)
    group[torch.rand(batch, *shape, generator=generator) < 0.1] = -1
    label = torch.randint(0, n + 1, (batch, *shape), generator=generator)
    known = torch.nn.functional.pad(table, (1, 0, 1, 0), value=False).flatten(1)
    at = (group.long() + 1).flatten(1) * (n + 1) + label.flatten(1)
    label = torch.where(known.gather(1, at).view_as(label), label, 0).to(torch.uint8)
    image = torch.rand(batch, 1, *shape, generator=generator)
    return TorchBatch(image, label, group, table, torch.tensor(source), torch.arange(batch) + 7)


def unannotated(shape=(16, 16, 32)) -> TorchBatch:
    """Return a batch in which nobody looked for anything."""
    return make_batch((((False,) * 4,), ((False,) * 4,)), shape, source=(2, 2))
