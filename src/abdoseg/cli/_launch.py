"""Start several processes of one command on this machine, as torchrun does."""

import logging
import os
import signal
import sys
import threading
import time

import typer

from abdoseg.errors import RunError

SAVE_SECONDS = 120
"""How long a process that was asked to stop may take to save."""

# PyTorch's own four, and what SLURM sends: one that the launcher does not know kills it alone.
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
_LOOK_SECONDS = 1.0
_RUN_ID = "abdoseg-"


def launch(processes: int, arguments: list[str]) -> None:
    """Run ``abdoseg ARGUMENTS``, without its ``--nproc``, in so many processes that find each other.

    Ends with the status of the process that failed; what it said stands above.

    Raises
    ------
    RunError
        If one of them was killed.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"{_RUN_ID}{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        shutdown_timeout=SAVE_SECONDS,
        signals_to_handle=_SIGNALS,
    )
    _silence()
    command = ["-m", "abdoseg", *without_nproc(arguments)]
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        told = [code for code in codes if code > 0]  # those killed may have been killed because of these
        if not told:
            msg = f"a process was killed by signal {-codes[0]}; the same command goes on with what was saved"
            raise RunError(msg) from error
        raise typer.Exit(told[0]) from error
    except SignalException as error:
        raise typer.Exit(130) from error  # the first process has said that it stopped


def _silence() -> None:
    """Let the launcher not log what the processes have said already; its loggers have levels of their own."""
    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def end_with_launcher() -> None:
    """Let this process end, its state saved, once the launcher that started it is gone.

    A launcher that is killed cannot stop its processes: they would train on with nobody to stop them. Does nothing in
    a process that no launcher of PyTorch started.
    """
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    if run_id is not None:
        # Ours names the launcher, which may be gone before this process comes here.
        launcher = int(run_id.removeprefix(_RUN_ID)) if run_id.startswith(_RUN_ID) else os.getppid()
        threading.Thread(target=_stop_when_alone, args=(launcher,), daemon=True).start()


def _stop_when_alone(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    # The launcher held what the processes meet by: without it, good-byes may wait for ever.
    time.sleep(SAVE_SECONDS)
    os._exit(1)


def without_nproc(arguments: list[str]) -> list[str]:
    """Return command line arguments without ``--nproc N`` or ``--nproc=N``."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip or argument.startswith("--nproc="):
            skip = False
        elif argument == "--nproc":
            skip = True
        else:
            kept.append(argument)
    return kept
