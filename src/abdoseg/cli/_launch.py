"""Start several processes of one command on this machine, as torchrun does."""

import logging
import os
import sys

import typer

from abdoseg.errors import RunError


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
        run_id=f"abdoseg-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        shutdown_timeout=120,  # a stopped process saves first
    )
    # It logs what the processes have said already.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    command = ["-m", "abdoseg", *without_nproc(arguments)]
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        told = [code for code in codes if code > 0]  # those killed may have been killed because of these
        if not told:
            raise RunError(f"a process of this training was killed by signal {-codes[0]}") from error
        raise typer.Exit(told[0]) from error
    except SignalException as error:
        raise typer.Exit(130) from error  # the first process has said that it stopped


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
