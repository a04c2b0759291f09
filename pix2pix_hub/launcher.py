"""Where `accelerate launch` does less than its options say, on a CPU: processes and signals.

Two things of accelerate's launcher would surprise its user. `--cpu --num_processes 2` starts one process only, unless
MPI is configured; and a SIGTERM to the launcher ends it alone, while the training goes on as an orphan.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import psutil

from pix2pix_hub.errors import UserError

PR_SET_PDEATHSIG = 1  # linux/prctl.h
WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def follow_launcher() -> None:
    """Do what `accelerate launch` was asked for; called first by every script that it may launch.

    May not return: with several processes on a CPU, this one becomes torch's launcher of them.

    Raises:
        UserError: several processes were asked for in a way that cannot be followed.
    """
    arguments = _launcher_arguments()
    if arguments is None:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # one of several, which torch's launcher would leave behind if killed
            _end_with_launcher()
        return
    _end_with_launcher()
    several = "MASTER_PORT" in os.environ and not any(name in os.environ for name in WORLD_SIZES)
    if several and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        _become_torchrun(arguments)


def _launcher_arguments() -> list[str] | None:
    """What followed `accelerate launch` on the command line of the parent process; None if that is something else."""
    parent = psutil.Process().parent()
    try:
        words = parent.cmdline() if parent is not None else []
    except psutil.Error:
        return None
    for position, word in enumerate(words):
        if word.endswith(("accelerate-launch", "accelerate.commands.launch", "accelerate/commands/launch.py")):
            return words[position + 1 :]
        if os.path.basename(word) == "accelerate" and words[position + 1 : position + 2] == ["launch"]:
            return words[position + 2 :]
    return None


def _end_with_launcher() -> None:
    """Have the kernel send SIGTERM when the launcher ends, so that the step is finished and saved (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _become_torchrun(arguments: list[str]) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    options, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    if options.num_machines != 1:
        raise UserError(
            "accelerate launch does not start CPU processes on several machines by itself: start torchrun on each, "
            "with ACCELERATE_USE_CPU=true in the environment."
        )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    module = ["--module"] if options.module else []
    command += ["--nproc_per_node", str(options.num_processes), *module, options.training_script]
    os.execv(sys.executable, [*command, *options.training_script_args])
