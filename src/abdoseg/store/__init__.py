"""The store: harmonised cases on disk, one Zarr v3 group each, and the workspace around them."""

from abdoseg.store.twins import Twin, Twins, load_twins, save_twins
from abdoseg.store.workspace import IngestRecord, Settings, Workspace

__all__ = ["IngestRecord", "Settings", "Twin", "Twins", "Workspace", "load_twins", "save_twins"]
