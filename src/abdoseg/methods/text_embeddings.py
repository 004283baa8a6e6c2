"""Text embeddings of structures: from a file, or made by CLIP's text encoder where it is at hand."""

from pathlib import Path
from pickle import UnpicklingError
from struct import error as StructError  # noqa: N812 -- it is a class
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from abdoseg.anatomy import ABDOMEN
from abdoseg.errors import ConfigError, UnknownNameError, one_line

LEARNED = "learned"
"""The setting for embeddings that are learnt with the rest."""

CLIP = "clip"
"""The setting for embeddings made by CLIP as its users usually have it, from the files of an earlier download."""

AUTO = "auto"
"""The setting for the embeddings of CLIP where it is at hand, else learnt ones; a run freezes which."""

TEXT_WIDTH = 512
"""Numbers of one embedding: those of CLIP ViT-B/32."""

PROMPT = "A computerized tomography of a {}"

_CLIP_MODEL = "openai/clip-vit-base-patch32"
_PUBLISHED_ROWS = 32
# Rows of the file that was published with the CLIP-driven universal model, by our ids 1 to 16.
_PUBLISHED = dict(zip(ABDOMEN.names, (*range(9), 10, 11, 12, 13, 20, 21, 9), strict=True))


def read_embeddings(setting: str, structures: tuple[str, ...]) -> Tensor:
    """Return the embeddings of structures: float32 ``(N, 512)``.

    Parameters
    ----------
    setting
        A file (``.npy``, ``.safetensors``, ``.pt``, ``.pth``) with a matrix of N rows in the structures' order, or the
        32 rows published with the CLIP-driven universal model; a folder with a CLIP model as `transformers` saves it;
        or ``clip`` for that model as an earlier download left it on this machine.
    structures
        Names of structures 1..N.

    Raises
    ------
    ConfigError
        If there is no such file, it holds something else, or CLIP is not at hand.
    """
    path = Path(setting).expanduser()
    if setting == CLIP or path.is_dir():
        matrix = _made_by_clip(_CLIP_MODEL if setting == CLIP else str(path), structures)
    else:
        matrix = _chosen(_read_matrix(path), structures, path)
    if matrix.shape != (len(structures), TEXT_WIDTH) or not matrix.isfinite().all():
        found = f"{tuple(matrix.shape)}" + ("" if matrix.isfinite().all() else " with NaN")
        raise ConfigError(f"text_embeddings {setting}: found {found}, expected ({len(structures)}, {TEXT_WIDTH})")
    return matrix


def at_hand(structures: tuple[str, ...]) -> str:
    """Return what :data:`AUTO` stands for on this machine: :data:`CLIP`, or :data:`LEARNED` where that gives none."""
    try:
        read_embeddings(CLIP, structures)
    except (ConfigError, UnknownNameError):  # the latter of structures that have no title to ask CLIP for
        return LEARNED
    return CLIP


# What PyTorch's safe unpickler meets in bytes that are no pickle is any of the last ones.
_READING = (
    *(OSError, ValueError, RuntimeError, EOFError, SafetensorError, UnpicklingError),
    *(LookupError, TypeError, AttributeError, StructError),
)


def _read_matrix(path: Path) -> Tensor:
    """Return the only matrix of a file, float32."""
    try:
        found = _read_file(path)
    except _READING as error:
        reason = one_line(str(error))[:200] or "cut off"
        raise ConfigError(f"text_embeddings {path}: {reason}; expected a .npy, .safetensors or .pt file") from error
    matrices = list(found.values()) if isinstance(found, dict) else [found]
    if len(matrices) != 1 or not isinstance(matrices[0], Tensor) or matrices[0].ndim != 2:
        raise ConfigError(f"text_embeddings {path}: expected one matrix, a row for each structure")
    return matrices[0].float()


def _read_file(path: Path) -> Any:
    if path.suffix == ".npy":
        return torch.from_numpy(np.load(path, allow_pickle=False))
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix in (".pt", ".pth"):
        return torch.load(path, weights_only=True, map_location="cpu")
    msg = "an unknown kind of file" if path.is_file() else "no such file"
    raise ValueError(msg)


def _chosen(matrix: Tensor, structures: tuple[str, ...], path: Path) -> Tensor:
    """Return the structures' rows, where the matrix is the published one; else the matrix."""
    if len(matrix) != _PUBLISHED_ROWS or len(structures) == _PUBLISHED_ROWS:
        return matrix
    unknown = [name for name in structures if name not in _PUBLISHED]
    if unknown:
        raise ConfigError(f"text_embeddings {path}: its {_PUBLISHED_ROWS} rows have none for {', '.join(unknown)}")
    return matrix[[_PUBLISHED[name] for name in structures]]


def _made_by_clip(model: str, structures: tuple[str, ...]) -> Tensor:
    """Return what CLIP's text encoder makes of the prompts; nothing is downloaded."""
    try:
        from transformers import AutoTokenizer, CLIPTextModelWithProjection
    except ImportError as error:
        msg = "text_embeddings: CLIP needs the package transformers (pip install 'abdoseg[clip]'), or give a file"
        raise ConfigError(msg) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        encoder = CLIPTextModelWithProjection.from_pretrained(model, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        msg = f"text_embeddings: {model} is not on this machine ({one_line(str(error))[:200]}); give a file or a folder"
        raise ConfigError(msg) from error
    prompts = [PROMPT.format(ABDOMEN.structure(ABDOMEN.id_of(name)).title) for name in structures]
    with torch.no_grad():
        tokens = tokenizer(prompts, padding=True, return_tensors="pt")
        made: Tensor = encoder(**tokens).text_embeds
    return made.float()
