"""Folders of data that ship with the package."""

from pathlib import Path


def shipped_folder(name: str) -> Path:
    """Return a folder of data that ships with the package: the checkout's, or the installed copy."""
    package = Path(__file__).parent
    checkout = package.parents[1] / name
    return checkout if checkout.is_dir() and (checkout.parent / "pyproject.toml").is_file() else package / f"_{name}"
