"""Which sources of a workspace are synthetic, so that no table passes them off as patients."""

from pathlib import Path

from abdoseg.store import Workspace


def phantom_sources(workspace: Workspace) -> list[str]:
    """Return the sources whose files lay beside the hidden truth that ``abdoseg phantom`` writes."""
    found = []
    for source, record in sorted(workspace.records().items()):
        folder = Path(record.folder)
        notes = [near / "truth" / "README.txt" for near in (folder, folder.parent)]
        if record.folder and any(_tells_of_phantoms(note) for note in notes):
            found.append(source)
    return found


def _tells_of_phantoms(note: Path) -> bool:
    try:
        return note.read_text(encoding="utf-8").startswith("Hidden truth of the phantoms")
    except (OSError, UnicodeDecodeError):
        return False
