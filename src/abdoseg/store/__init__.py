"""The store: harmonised cases on disk, one Zarr v3 group each, and the workspace around them."""

from abdoseg.store.derived import DerivedCases
from abdoseg.store.index import CaseBrief
from abdoseg.store.settings import Settings
from abdoseg.store.shown import lacks_occupied, occupied_slices, shown_annotation
from abdoseg.store.twins import Twin, Twins, load_twins, save_twins
from abdoseg.store.workspace import IngestRecord, Workspace

__all__ = [
    "CaseBrief",
    "DerivedCases",
    "IngestRecord",
    "Settings",
    "Twin",
    "Twins",
    "Workspace",
    "lacks_occupied",
    "load_twins",
    "occupied_slices",
    "save_twins",
    "shown_annotation",
]
