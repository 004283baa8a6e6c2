"""``abdoseg view``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from abdoseg.cli._console import DEFAULT_WORKSPACE, DeviceOption, WorkspaceOption, err, say, warn

if TYPE_CHECKING:
    from abdoseg.viewer import Scene, ViewerServer


def view(
    target: Annotated[
        str,
        typer.Argument(
            metavar="CASE|FILE",
            help="SOURCE/CASE of the workspace; or a scan: NIfTI, NRRD, MetaImage, the folder of a DICOM series, or a "
            ".zip of one of them.",
        ),
    ],
    run: Annotated[str | None, typer.Option(help="Show this run's prediction of the case.")] = None,
    pred: Annotated[Path | None, typer.Option(help="Show this label map as the prediction.")] = None,
    label: Annotated[Path | None, typer.Option(help="Show this label map as the reference of a scan on file.")] = None,
    card: Annotated[
        str | None,
        typer.Option(help="With --label: the card whose label values the file uses.", metavar="NAME|FILE"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 0,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Look at a case or a scan in the browser: image, reference and prediction; nothing leaves this machine."""
    from abdoseg.viewer import ViewerServer, resources_of

    scene = _scene(target, (run, pred, label, card), device, workspace)
    for note in scene.notes:
        say(escape(note))
    resources = resources_of(scene)
    if scene.browser_bytes > 4e9:
        warn(f"a large scan: the browser will need about {scene.browser_bytes / 1e9:.0f} GB")
    with ViewerServer(resources, port) as server:
        try:
            _serve(server, scene, open_page=open_)
        except KeyboardInterrupt:
            # The way to end it, and nothing to go on with.
            say("stopped")


def _serve(server: "ViewerServer", scene: "Scene", *, open_page: bool) -> None:
    held = sum(len(resource.content) for resource in server.resources.values()) / 1e6
    say(f"{held:.0f} MB here, about {scene.browser_bytes / 1e6:.0f} MB in the browser; Ctrl-C ends it")
    # Not through markup, and unbroken: the address is copied from here.
    err.print(server.url, markup=False, soft_wrap=True)
    if open_page:
        import webbrowser

        webbrowser.open(server.url)
    server.serve_forever()


def _scene(
    target: str, given: tuple[str | None, Path | None, Path | None, str | None], device: str, workspace: Path
) -> "Scene":
    from abdoseg.errors import ConfigError
    from abdoseg.runs import load_run
    from abdoseg.steps.view import view_case, view_files
    from abdoseg.store import Workspace

    run, pred, label, card = given
    if _is_file(target, workspace):
        if run is not None:
            raise ConfigError(
                f"--run {run}: for cases of the workspace; for a file, `abdoseg predict {target} -o organs.nii.gz` "
                "and --pred organs.nii.gz"
            )
        return view_files(Path(target), label, pred, card=card)
    if label is not None or card is not None:
        option = f"--card {card}" if label is None else f"--label {label}"
        raise ConfigError(f"{option}: for scans on file; {target} is a case and has its own labels")
    opened = Workspace.open(workspace)
    chosen = None if run is None else load_run(opened, run)
    return view_case(opened, target, chosen, pred, device=device)


def _is_file(target: str, workspace: Path) -> bool:
    """Whether a target is a path: it is there, or can be no SOURCE/CASE of a workspace that is there."""
    from abdoseg.errors import CaseError, WorkspaceError
    from abdoseg.store import Workspace

    if Path(target).exists():
        return True
    source, _, case = target.partition("/")
    if not source or not case or "/" in case:
        raise CaseError(f"{target}: no such file, and no SOURCE/CASE; check the path, or see `abdoseg status`")
    try:
        Workspace.open(workspace)
    except WorkspaceError as error:
        raise CaseError(f"{target}: no such file, and no case ({error})") from error
    return False
