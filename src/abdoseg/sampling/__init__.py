"""Which example comes next: structure, modality, source, case and voxel, as a pure function of (seed, t).

A sampler is an order of levels. To add one, add a line to :data:`~abdoseg.sampling.hierarchical.SAMPLERS`.
"""

from abdoseg.sampling.candidates import (
    Candidates,
    CaseEntry,
    candidate_voxels,
    held_by_voxels,
    held_structures,
    kind_of,
)
from abdoseg.sampling.hierarchical import SAMPLERS, Draw, Probabilities, Sampler, SamplerSpec, Weights
from abdoseg.sampling.stream import Purpose, stream
from abdoseg.sampling.voxels import Centre, choose_anywhere, choose_background, choose_foreground

__all__ = [
    "SAMPLERS",
    "Candidates",
    "CaseEntry",
    "Centre",
    "Draw",
    "Probabilities",
    "Purpose",
    "Sampler",
    "SamplerSpec",
    "Weights",
    "candidate_voxels",
    "choose_anywhere",
    "choose_background",
    "choose_foreground",
    "held_by_voxels",
    "held_structures",
    "kind_of",
    "stream",
]
