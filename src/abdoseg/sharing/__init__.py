"""Sharing: a run, or stored cases, written so that other programs use them. One file a format.

To add a format of cases: write ``<format>.py`` with a writer of one case and a function that finishes the folder
(:class:`~abdoseg.sharing.parts.CaseFormat`), and add a line to :data:`CASE_FORMATS`. To add a format of runs: write
``<format>.py`` with a function of :class:`~abdoseg.sharing.parts.RunWriter`'s signature, and add a line to
:data:`RUN_FORMATS`. Modules are loaded when they are asked for.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from abdoseg.errors import unknown_name
from abdoseg.sharing.parts import CaseFormat, RunFormat

RUN_FORMATS: Mapping[str, str] = {"monai-bundle": "monai_bundle", "onnx": "onnx_model"}
"""Name of a format of runs -> module here, with ``FORMAT``."""

CASE_FORMATS: Mapping[str, str] = {"nnunet": "nnunet", "h5": "hdf5", "nifti": "nifti_folder"}
"""Name of a format of cases -> module here, with ``FORMAT``."""


def require_format(name: str) -> None:
    """Raise UnknownNameError unless a format has this name."""
    if name not in RUN_FORMATS and name not in CASE_FORMATS:
        raise unknown_name("--to", name, [*RUN_FORMATS, *CASE_FORMATS])


def run_format(name: str) -> RunFormat:
    """Return a format of runs by name."""
    return cast("RunFormat", import_module(f"abdoseg.sharing.{RUN_FORMATS[name]}").FORMAT)


def case_format(name: str) -> CaseFormat:
    """Return a format of cases by name."""
    return cast("CaseFormat", import_module(f"abdoseg.sharing.{CASE_FORMATS[name]}").FORMAT)
