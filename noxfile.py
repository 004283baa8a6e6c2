"""Everything that checks or shows the project: `nox -l` lists the sessions."""

import os
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "venv"

PYPROJECT = nox.project.load_toml("pyproject.toml")
CONSTRAINTS = ("-c", "constraints.txt")


def install(session: nox.Session, *groups: str, editable: bool = False) -> None:
    """Install the package and dependency groups; torch alone first, so that its pinned build is the one taken."""
    session.install(*CONSTRAINTS, "torch")
    needs = nox.project.dependency_groups(PYPROJECT, *groups) if groups else ()
    session.install(*CONSTRAINTS, *(("-e", ".") if editable else (".",)), *needs)


@nox.session
def demo(session: nox.Session) -> None:
    """Install the package and run the whole line on phantoms (about 15 minutes on two cores)."""
    install(session)
    session.run("abdoseg", "demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Lint, types, layers, the documentation's site and all tests."""
    install(session, "test", "lint", "site")
    _lint(session)
    _site(session)
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs)


@nox.session
def triton(session: nox.Session) -> None:
    """Test the loss's GPU kernel in Triton's interpreter, and that it compiles (Triton is 1 GB on disk, so apart)."""
    install(session, "test")
    session.install(*CONSTRAINTS, "triton>=3.4")
    session.run("pytest", "tests/losses/test_triton.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, lint, types and the layer contract."""
    install(session, "lint")
    _lint(session)


def _site(session: nox.Session) -> None:
    """Build the site; a broken link or a docstring that cannot be read ends it."""
    session.run("mkdocs", "build", "--quiet", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})


def _lint(session: nox.Session) -> None:
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Run every benchmark: ours and the peer in one run, ratios of medians."""
    install(session)
    for script in sorted(Path("benchmarks").glob("*.py")):
        session.run("python", str(script), *session.posargs, env={"OMP_NUM_THREADS": str(os.cpu_count() or 1)})


@nox.session
def peers(session: nox.Session) -> None:
    """Benchmarks of patches and augmentation beside the peers, which are installed here only."""
    install(session)
    session.install(*CONSTRAINTS, "tensorstore", "blosc2", "torchio", "batchgeneratorsv2")
    for script in ("benchmarks/patches.py", "benchmarks/augmentation.py"):
        session.run("python", script, *session.posargs)


@nox.session
def share(session: nox.Session) -> None:
    """Let nnU-Net check a dataset that abdoseg exported; it is installed here only."""
    install(session)
    session.install(*CONSTRAINTS, "nnunetv2")
    session.run("python", "tests/share_with_nnunet.py")


@nox.session
def compare(session: nox.Session) -> None:
    """Run the demo with the naive method beside ours: twice the training."""
    install(session)
    session.run("abdoseg", "demo", "demo-compare", "--compare", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Inject likely bugs one by one and see that the tests catch each (about 20 minutes)."""
    install(session, "test")
    session.run("python", "tests/mutants.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Write docs/commands.md from the code and docs/sources/ from the cards, then the site into site/."""
    install(session, "site")
    session.run(
        *("python", "-m", "typer", "abdoseg.cli", "utils", "docs"),
        *("--name", "abdoseg", "--title", "Commands", "--output", "docs/commands.md"),
    )
    pages = (
        "from pathlib import Path; from abdoseg.source_pages import write_source_pages as w; w(Path('docs/sources'))"
    )
    session.run("python", "-c", pages)
    _site(session)
