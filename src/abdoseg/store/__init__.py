"""The store: harmonised cases on disk, one Zarr v3 group each, and the workspace around them."""

from abdoseg.store.workspace import IngestRecord, Settings, Workspace

__all__ = ["IngestRecord", "Settings", "Workspace"]
