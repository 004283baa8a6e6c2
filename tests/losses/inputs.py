"""Random inputs of the loss: hypothesis strategies and a plain random draw."""

import dataclasses

import numpy as np
import torch
from hypothesis import strategies as st


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Numpy arrays of one call, named as the arguments."""

    logits: np.ndarray
    label: np.ndarray
    group: np.ndarray
    annotated: np.ndarray

    def tensors(self, dtype=torch.float64):
        logits = torch.tensor(self.logits, dtype=dtype, requires_grad=True)
        return logits, *(torch.tensor(a) for a in (self.label, self.group, self.annotated))

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)


def draw(seed=0, batch=2, structures=4, groups=3, shape=(5, 4, 6), scale=3.0, outside=True, density=0.5):
    rng = np.random.default_rng(seed)
    return Inputs(
        logits=rng.normal(size=(batch, 1 + structures, *shape)) * scale,
        label=rng.integers(0, structures + 1, (batch, *shape)).astype(np.uint8),
        group=rng.integers(-1 if outside else 0, groups, (batch, *shape)).astype(np.int16),
        annotated=rng.random((batch, groups, structures)) < density,
    )


def slices(inputs, axis, every=2):
    """The same inputs with one group a slice along a spatial axis (0..2), every second one annotated."""
    batch, *shape = inputs.label.shape
    index = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(3)])
    group = np.broadcast_to(index, (batch, *shape)).astype(np.int64)
    rows = np.random.default_rng(1).random((batch, shape[axis], inputs.annotated.shape[2])) < 0.6
    rows[:, np.arange(shape[axis]) % every != 0] = False
    return inputs.replace(group=group.copy(), annotated=rows)


@st.composite
def inputs(draw_from, min_groups=1, max_groups=7):
    seed = draw_from(st.integers(0, 2**32 - 1))
    return draw(
        seed=seed,
        batch=draw_from(st.integers(1, 3)),
        structures=draw_from(st.integers(1, 6)),
        groups=draw_from(st.integers(min_groups, max_groups)),
        shape=tuple(draw_from(st.lists(st.integers(1, 5), min_size=3, max_size=3))),
        scale=draw_from(st.sampled_from([0.1, 1.0, 5.0])),
        outside=draw_from(st.booleans()),
        density=draw_from(st.sampled_from([0.0, 0.3, 0.7, 1.0])),
    )
