"""The workspace: one folder with the harmonised cases, the views and the runs.

``abdoseg.toml`` holds its settings, ``sources/<card>.zarr`` one group a case, ``sources/<card>.ingest.json``
what the last ingest could not take, ``views/<name>.json`` the recipe of a sparse view, ``runs/<name>/`` a
training run.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from abdoseg.anatomy import Anatomy
from abdoseg.case import Case, CaseFacts, Foreground
from abdoseg.differences import Difference, differences, tell
from abdoseg.errors import ConfigError, WorkspaceError, unknown_name
from abdoseg.files import write_text
from abdoseg.places import make_folder, open_place, remove_tree, require_reachable
from abdoseg.places import stamps as stamps_of
from abdoseg.store import arrays
from abdoseg.store.index import CaseBrief, read_index, write_index
from abdoseg.store.settings import SETTINGS_FILE, Settings, read_settings
from abdoseg.value_errors import why_unreadable
from abdoseg.views import FULL_VIEW, VIEW_OPTIONS, View

T = TypeVar("T", bound=BaseModel)

_SEE_STATUS = "`abdoseg status` shows what the workspace holds."
_AT_ONCE = 1000  # cases whose facts are in memory while an index is made


class IngestRecord(BaseModel):
    """What the last ingest of a source could not take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    quarantined: dict[str, str] = Field(default={}, description="case -> reason")
    skipped: dict[str, int] = Field(default={}, description="reason -> images passed over by design")
    folder: str = Field(default="", description="where the source's files lay")
    card: dict[str, Any] = Field(default={}, description="the card, so that cases can be taken again")


class Workspace:
    """A workspace on disk; cheap to make, reads when asked."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings

    @classmethod
    def open(cls, path: Path | str) -> "Workspace":
        """Open an existing workspace.

        Raises
        ------
        WorkspaceError
            If there is none, or its format is another one.
        """
        path = _reached(path)
        file = path / SETTINGS_FILE
        if not file.is_file():
            msg = f"{path}: no workspace here; `abdoseg ingest CARD FOLDER` makes one, or choose one with --workspace"
            raise WorkspaceError(msg)
        return cls(path, read_settings(file))

    @classmethod
    def is_at(cls, path: Path | str) -> bool:
        """Whether a workspace is there, of whatever version."""
        return (_reached(path) / SETTINGS_FILE).is_file()

    @classmethod
    def create(cls, path: Path | str, settings: Settings | None = None) -> "Workspace":
        """Open the workspace at ``path``, or make one with ``settings`` (default: the paper's).

        Raises
        ------
        WorkspaceError
            If the folder cannot be written.
        ConfigError
            If a workspace with other settings stands there.
        """
        path = _reached(path)
        if (path / SETTINGS_FILE).is_file():
            workspace = cls(path, read_settings(path / SETTINGS_FILE))
            if settings is not None and settings != workspace.settings:
                raise ConfigError(f"{path}: a workspace with other settings is there; choose another folder")
            return workspace
        settings = settings or Settings()
        try:
            for name in ("sources", "views", "runs"):
                make_folder(path / name)
            write_text(path / SETTINGS_FILE, settings.to_toml())
        except WorkspaceError:
            raise
        except OSError as error:
            raise WorkspaceError(f"{path}: cannot make a workspace ({error.strerror}); check the path") from error
        return cls(path, settings)

    def forget_settings(self) -> None:
        """Take away what makes the folder a workspace, so that one with other settings can be made there."""
        (self.path / SETTINGS_FILE).unlink()

    @property
    def anatomy(self) -> Anatomy:
        """Structures in channel order."""
        return self.settings.anatomy

    @property
    def runs_folder(self) -> Path:
        """Folder with one folder a run."""
        return self.path / "runs"

    @property
    def incoming(self) -> Path:
        """Folder in which cases are built before they appear."""
        return self.path / "sources" / ".incoming"

    def source_folder(self, source: str) -> Path:
        """Folder of a source's Zarr group."""
        return self.path / "sources" / f"{source}.zarr"

    def case_folder(self, key: str) -> Path:
        """Folder of the case ``source/case``."""
        source, _, case = key.partition("/")
        return self.source_folder(source) / case

    def sources(self) -> list[str]:
        """Ids of the sources that hold at least one case."""
        return sorted({folder.parent.name.removesuffix(".zarr") for folder in self._case_folders()})

    def _case_folders(self) -> list[Path]:
        files = (self.path / "sources").glob("*.zarr/*/zarr.json")
        return sorted((file.parent for file in files if arrays.may_be_case(file.parent)), key=str)

    def case_keys(self, sources: Iterable[str] | None = None) -> list[str]:
        """Keys ``source/case`` of all cases, sorted.

        Raises
        ------
        UnknownNameError
            If a named source is not in the workspace.
        """
        by_source: dict[str, list[str]] = {}
        for folder in self._case_folders():
            source = folder.parent.name.removesuffix(".zarr")
            by_source.setdefault(source, []).append(f"{source}/{folder.name}")
        chosen = list(by_source) if sources is None else list(sources)
        for source in chosen:
            if source not in by_source:
                raise unknown_name("source", source, list(by_source), _SEE_STATUS)
        return [key for source in chosen for key in by_source[source]]

    def facts(self, sources: Iterable[str] | None = None) -> list[CaseFacts]:
        """Return the facts of all cases of ``sources`` (default: all), sorted by key.

        Raises
        ------
        WorkspaceError
            If the settings were changed under a stored case: its grid or its label ids would be misread.
        """
        found = arrays.read_facts([self.case_folder(key) for key in self.case_keys(sources)])
        self.check_settings(found)
        return found

    def check_settings(self, found: Sequence[CaseFacts | CaseBrief]) -> None:
        """Raise WorkspaceError if cases were stored with other settings than the workspace has now."""
        digest = self.settings.digest()
        for facts in found:
            if facts.settings_digest != digest:
                msg = (
                    f"{self.path / SETTINGS_FILE}: structures, spacing or windows are not those that {facts.key} was "
                    "stored with; undo the change, or make a new workspace and ingest again"
                )
                raise WorkspaceError(msg)

    def briefs(self, sources: Iterable[str] | None = None) -> list[CaseBrief]:
        """Return what splits and samplers need of all cases of ``sources`` (default: all), sorted by key.

        Read from the index of each source; cases that it does not know, or not as they are now, are read and put
        into it.

        Raises
        ------
        UnknownNameError
            If a named source is not in the workspace.
        WorkspaceError
            If the settings were changed under a stored case.
        """
        found = [brief for source in self.chosen_sources(sources) for brief in self._source_briefs(source)]
        self.check_settings(found)
        return found

    def chosen_sources(self, sources: Iterable[str] | None) -> list[str]:
        """Return the named sources, or all that are there.

        Raises
        ------
        UnknownNameError
            If a named source is not in the workspace.
        """
        there = sorted(folder.name.removesuffix(".zarr") for folder in (self.path / "sources").glob("*.zarr"))
        if sources is None:
            return there
        chosen = list(sources)
        for source in chosen:
            if source not in there:
                raise unknown_name("source", source, there, _SEE_STATUS)
        return chosen

    def _index_file(self, source: str) -> Path:
        return self.path / "sources" / f"{source}.index.jsonl"

    def _source_briefs(self, source: str) -> list[CaseBrief]:
        folder, file = self.source_folder(source), self._index_file(source)
        stamps = {case: stamp for case, stamp in stamps_of(folder, "zarr.json").items() if not case.startswith(".")}
        known = read_index(file)
        briefs = {case: brief for case, brief in known.items() if brief.stamp == stamps.get(case)}
        fresh = sorted(set(stamps) - set(briefs))
        for first in range(0, len(fresh), _AT_ONCE):
            some = fresh[first : first + _AT_ONCE]
            for case, facts in zip(some, arrays.read_facts([folder / case for case in some]), strict=True):
                briefs[case] = CaseBrief.of(facts, self.settings.structures, stamps[case])
        in_order = [briefs[case] for case in sorted(briefs)]
        if fresh or len(known) != len(briefs):
            write_index(file, in_order)
        return in_order

    def read_facts(self, key: str) -> CaseFacts:
        """Facts of one case, without its voxels."""
        return arrays.read_facts([self.case_folder(key)])[0]

    def read_case(self, key: str) -> Case:
        """One case with its voxels."""
        return arrays.read_case(self.case_folder(key))

    def open_case(self, key: str) -> arrays.OpenCase:
        """One case of which parts can be read; see :func:`abdoseg.store.arrays.open_case`."""
        return arrays.open_case(self.case_folder(key))

    def read_foreground(self, key: str) -> Foreground:
        """Labelled voxels of one case."""
        return arrays.read_foreground(self.case_folder(key))

    def remove(self, source: str, case: str | None = None) -> list[str]:
        """Remove one case, or a whole source with its record; return the keys removed."""
        if case is None and source not in self.sources() and source in self.records():
            self._record_file(source).unlink()  # nothing of it could be taken: only the reasons are there
            remove_tree(self.source_folder(source))
            return []
        keys = [k for k in self.case_keys([source]) if case is None or k == f"{source}/{case}"]
        if not keys:
            known = [k.partition("/")[2] for k in self.case_keys([source])]
            raise unknown_name(f"case of {source}", str(case), known[:20])
        for key in keys:
            arrays.remove_case(self.case_folder(key), self.incoming)
        if case is None:
            remove_tree(self.source_folder(source))
            self._record_file(source).unlink(missing_ok=True)
            self._index_file(source).unlink(missing_ok=True)
        return keys

    # -- what an ingest could not take ---------------------------------------------------------------------------

    def _record_file(self, source: str) -> Path:
        return self.path / "sources" / f"{source}.ingest.json"

    def write_record(self, record: IngestRecord) -> None:
        """Save what the last ingest of a source could not take."""
        write_text(self._record_file(record.source), record.model_dump_json(indent=1))

    def records(self) -> dict[str, IngestRecord]:
        """Return the records of all sources, by source."""
        files = sorted((self.path / "sources").glob("*.ingest.json"))
        records = [_read_model(IngestRecord, file) for file in files]
        return {record.source: record for record in records}

    # -- views ---------------------------------------------------------------------------------------------------

    def views(self) -> list[View]:
        """All sparse views, by name."""
        return [_read_model(View, file) for file in sorted((self.path / "views").glob("*.json"))]

    def view(self, name: str) -> View | None:
        """Return the view called ``name``; ``None`` for the full view.

        Raises
        ------
        UnknownNameError
            If there is no such view.
        """
        if name == FULL_VIEW:
            return None
        views = {view.name: view for view in self.views()}
        if name not in views:
            raise unknown_name("view", name, [FULL_VIEW, *views], "`abdoseg sparsify` makes one.")
        return views[name]

    def save_view(self, view: View) -> None:
        """Write a view's recipe; the same name with another recipe is refused."""
        existing = {v.name: v for v in self.views()}.get(view.name)
        if existing is not None and existing != view:
            told = tell(self._view_differences(view, existing), "the view", VIEW_OPTIONS)
            raise ConfigError(f"view {view.name}: exists with other settings ({told}); choose another --name")
        write_text(self.path / "views" / f"{view.name}.json", view.model_dump_json(indent=1))

    def _view_differences(self, view: View, existing: View) -> list[Difference]:
        """Return in what two views differ, with the names of structures for their ids."""

        def named(ids: list[int]) -> list[str]:
            return [self.anatomy.structure(one).name for one in ids]

        found = differences(view, existing)
        return [d._replace(found=named(d.found), there=named(d.there)) if d.name == "structures" else d for d in found]

    def remove_view(self, name: str) -> None:
        """Delete a view's recipe.

        Raises
        ------
        UnknownNameError
            If there is no such view.
        ConfigError
            If it is the active one, or stands for all labels.
        """
        if self.view(name) is None:
            raise ConfigError(f"view {name}: shows all labels, and is always there; name a sparse one")
        if name == self.active_view_name():
            msg = f"view {name}: is the active one; choose another first, as with `abdoseg sparsify --view {FULL_VIEW}`"
            raise ConfigError(msg)
        (self.path / "views" / f"{name}.json").unlink(missing_ok=True)

    def active_view_name(self) -> str:
        """Name of the view that ``train`` uses; ``"full"`` when none was made."""
        file = self.path / "views" / "ACTIVE"
        return file.read_text(encoding="utf-8").strip() if file.is_file() else FULL_VIEW

    def activate_view(self, name: str) -> None:
        """Make a view, or ``"full"``, the active one."""
        self.view(name)
        write_text(self.path / "views" / "ACTIVE", name + "\n")


def _reached(path: Path | str) -> Path:
    place = open_place(path)
    require_reachable(place)
    return place


def _read_model(model: type[T], file: Path) -> T:
    try:
        return model.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # of bytes that are no text, of JSON, of its values
        raise WorkspaceError(f"{file}: cannot be read ({why_unreadable(error)}); mend or delete it") from error
