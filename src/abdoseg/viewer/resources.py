"""The fixed table of what a page may ask for; a request's path is a key of it and nothing else."""

import json
from dataclasses import dataclass
from pathlib import Path

from abdoseg.viewer.scene import Scene, difference_of
from abdoseg.viewer.volumes import nifti_gz

ASSETS = Path(__file__).parent / "assets"

_VOLUME = "application/gzip"

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/viewer.css": ("viewer.css", "text/css; charset=utf-8"),
    "/viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "/niivue.js": ("niivue.js", "text/javascript; charset=utf-8"),
    "/niivue.LICENSE.txt": ("niivue.LICENSE.txt", "text/plain; charset=utf-8"),
}


@dataclass(frozen=True)
class Resource:
    """One answer: its bytes and their type."""

    content: bytes
    type: str


def resources_of(scene: Scene) -> dict[str, Resource]:
    """Return path -> resource of everything that the page of a scene loads; all of it in memory."""
    table = {path: Resource((ASSETS / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
    facts = json.dumps(scene.facts(), allow_nan=False).encode()
    table["/scene.json"] = Resource(facts, "application/json")
    image = nifti_gz(scene.image, scene.affine, scene.slope, scene.intercept)
    table["/image.nii.gz"] = Resource(image, _VOLUME)
    for name, label in scene.label_maps().items():
        table[f"/{name}.nii.gz"] = Resource(nifti_gz(label, scene.affine), _VOLUME)
    if scene.reference is not None and scene.prediction is not None:
        differs = difference_of(scene.reference, scene.prediction, scene.annotation)
        table["/difference.nii.gz"] = Resource(nifti_gz(differs, scene.affine), _VOLUME)
    return table
