"""Devices and processes: what `accelerate launch` really starts, signals, accelerated arithmetic, threads, memory."""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import platform
import re
import shutil
import signal
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env

from pix2pix_hub.util import UserError

logger = logging.getLogger(__name__)

# A container's memory limit, what it uses, and the name of the part of that which the kernel would give back; v2, v1.
CGROUP = "/sys/fs/cgroup/memory"
CGROUP_FILES = (
    (f"{CGROUP}.max", f"{CGROUP}.current", "inactive_file"),
    (f"{CGROUP}/memory.limit_in_bytes", f"{CGROUP}/memory.usage_in_bytes", "total_inactive_file"),
)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGEST_BLOCK = 2**30  # bytes
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LONGEST_PREPARATION = timedelta(days=30)  # of one process, which looks at or caches a large set, while others wait
WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def process_state() -> PartialState:
    """This process's place among those launched together, who wait for each other as long as it takes from here on.

    Accelerate joins CPU processes only where it is told that they use the CPU; left alone, two started by torchrun on a
    machine without GPU would each work by themselves. On GPUs the CPUs are joined as well: what processes tell each
    other then goes from memory to memory, and no GPU is waited for.
    """
    importlib.import_module("torch.distributed.nn")  # whose functions keep the group that exists when it is imported
    how = {}
    device = None if use_cpu() else torch.accelerator.current_accelerator()
    if device is not None and device.type in ("cuda", "xpu") and "LOCAL_RANK" in os.environ:
        how = {"backend": f"{device.type}:{torch.distributed.get_default_backend_for_device(device)},cpu:gloo"}
    state = PartialState(cpu=use_cpu(), **how)
    set_longest_wait(LONGEST_PREPARATION)
    return state


def set_longest_wait(longest: timedelta) -> None:
    """From here on the processes of a launch take one that keeps them waiting for longer than this for dead."""
    if torch.distributed.is_initialized():
        set_timeout = getattr(torch.distributed, "set_timeout", None)  # since torch 2.14
        (set_timeout or torch.distributed.distributed_c10d._set_pg_timeout)(longest)


@contextmanager
def sharing_failures() -> Iterator[None]:
    """Make a block that every process of a launch enters fail for all where it fails for one; all wait at its end.

    Nothing in it may wait for other processes, unless all come to that before anything can fail.

    Raises:
        UserError: another process's failure, with its number and machine. The block's own is raised as it is.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    number = PartialState().process_index
    words = str(failure) if isinstance(failure, UserError) else f"{failure!r}"
    told = [f"process {number} on {platform.node()}: {words}"] if failure else []
    failures = gather_object(told)
    if failure is not None:
        raise failure
    if failures:
        raise UserError(failures[0])


def on_any_process(condition: bool) -> bool:
    """Whether `condition` holds on any process; to be asked by all of them at the same moment."""
    state = PartialState()
    if state.num_processes == 1:
        return condition
    answer = torch.tensor(int(condition), device="cpu" if "gloo" in state.backend else state.device)
    torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MAX)
    return bool(answer)


def check_alike(what: str, value: str, advice: str) -> None:
    """Compare a value, which the sentence calls `what`, between all processes of a launch.

    Raises:
        UserError: one has another than the first process; on all of them.
    """
    seen = gather_object([(value, platform.node())])
    first, first_machine = seen[0]
    for number, (other, machine) in enumerate(seen):
        if other != first:
            raise UserError(
                f"process {number} on {machine} has another {what} ({other}) than the first process, on "
                f"{first_machine} ({first}): {advice}"
            )


def use_cpu() -> bool:
    """Whether Accelerate's launcher asked for the CPU, or there is nothing else.

    Raises:
        UserError: there is a GPU, and its driver is older than torch needs.
    """
    if parse_flag_from_env("ACCELERATE_USE_CPU"):
        return True
    if torch.accelerator.is_available():
        return False
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # that there is no GPU, or that torch is built for none
        if found := re.search(r"driver on your system is too old \(found version (\d+)0\)", str(error)):
            major, minor = divmod(int(found[1]), 100)
            raise UserError(
                f"this machine has a GPU, but its driver is for CUDA {major}.{minor} at most, and torch "
                f"{torch.__version__} needs CUDA {torch.version.cuda}: update the driver "
                "(https://www.nvidia.com/drivers), install a torch for it (https://pytorch.org), or set "
                "ACCELERATE_USE_CPU=true to use the CPU."
            ) from error
    return True


def cpu_has_bf16_units() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX); elsewhere it is emulated and slow."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit and "BF16" not in limit and "AMX" not in limit and limit not in ("ALL", "DEFAULT"):
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in checks if hasattr(torch.cpu, name))


def accelerated_precision(device_type: str) -> str:
    """ "bf16" or "fp16" where devices of that type have units for it here, else "no"."""
    if device_type == "cpu":
        return "bf16" if cpu_has_bf16_units() else "no"
    if device_type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "no"


def resolve_mixed_precision(requested: str, use_cpu: bool) -> str:
    """`"auto"`, `"no"`, `"bf16"` or `"fp16"` → what to train in, on the device Accelerate will use.

    `auto` takes what `accelerate launch --mixed_precision` asked for, else bf16 where the device has units for it.

    Raises:
        UserError: for fp16 on a CPU.
    """
    accelerator = None if use_cpu else torch.accelerator.current_accelerator(check_available=True)
    if requested == "auto":
        requested = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if requested == "no":
            requested = accelerated_precision("cpu" if accelerator is None else accelerator.type)
    if requested == "fp16" and accelerator is None:
        raise UserError("--mixed-precision fp16 needs a GPU and this run is on a CPU: type --mixed-precision auto.")
    return requested


def cpu_cores() -> int:
    """CPU cores that this process may use: its share where several were launched on this machine, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def available_memory() -> int:
    """Bytes of memory that this process could still take: of the machine's, or of the container's if that is less."""
    available = psutil.virtual_memory().available
    for limit_file, usage_file, reclaimable in CGROUP_FILES:
        try:
            limit, used = int(Path(limit_file).read_text()), int(Path(usage_file).read_text())
            cached = re.search(rf"^{reclaimable} (\d+)$", Path(usage_file).with_name("memory.stat").read_text(), re.M)
        except (OSError, ValueError):  # no such control group, or "max": no limit
            continue
        available = min(available, limit - used + (int(cached[1]) if cached else 0))
    return max(0, available)


def memory_words(device: torch.device) -> str:
    """What this process takes of the device's memory, and how much there is of it."""
    if device.type == "cuda":
        taken, total = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
        return f"{taken / 1e9:.1f} of the GPU's {total / 1e9:.1f} GB of memory"
    return f"{psutil.Process().memory_info().rss / 1e9:.1f} GB of memory, {available_memory() / 1e9:.1f} GB are free"


def set_cpu_threads(requested: int) -> int:
    """Set torch's CPU threads and return their number.

    `accelerate launch` sets OMP_NUM_THREADS to 1 unless told otherwise, which would leave all other cores idle. So 0
    (not requested) takes a larger OMP_NUM_THREADS as it is, and else the cores shared out over the processes.
    """
    environment = os.environ.get("OMP_NUM_THREADS", "")
    given = int(environment) if environment.isdecimal() else 1
    threads = requested or (given if given > 1 else cpu_cores())
    torch.set_num_threads(threads)
    return threads


def keep_freed_memory() -> None:
    """Have glibc keep large freed blocks for the next allocation instead of giving them back (elsewhere: nothing).

    Every training step and every translated batch frees and allocates the same hundreds of megabytes. By default each
    block above 32 MB, and what lies free at the end, goes back to the system, which then hands out, and clears, new
    pages. The process keeps its largest size from then on: for commands and runs, not for servers.
    """
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
        library.mallopt(parameter, LARGEST_BLOCK)


def missing_for_compilation(device_type: str) -> str | None:
    """What `torch.compile` needs on this kind of device and does not find, and how to get it; None: nothing."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler, no {compiler} here: apt-get install g++"
    headers = Path(sysconfig.get_paths()["include"])
    if not (headers / "Python.h").is_file():
        return f"Python's headers are not in {headers}: apt-get install python3-dev"
    if device_type == "cuda" and find_spec("triton") is None:
        return "Triton is not installed: pip install triton"
    return None


def device_name(device: torch.device) -> str:
    """What the hardware calls itself: "NVIDIA H100 80GB HBM3", "AMD EPYC 7B13"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    info = Path("/proc/cpuinfo")  # Linux; elsewhere Python knows the kind of machine at least
    named = re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return named[1] if named else platform.processor() or platform.machine()


def relaunch_on_cpus() -> None:
    """Do what `accelerate launch` was asked for on CPUs; called first by every script that it may launch.

    Two things of its launcher would surprise a user there: `--cpu --num_processes 2` starts one process only, unless
    MPI is configured, and a SIGTERM to the launcher ends it alone, while the training goes on as an orphan. So the
    kernel is told to send SIGTERM when the launcher ends (on Linux), whereupon the step is finished and saved; and
    where several processes are wanted, this call does not return: the process becomes torch's launcher of them.

    Raises:
        UserError: processes on several machines, which cannot be started from here.
    """
    arguments = _launcher_arguments()
    if sys.platform == "linux" and (arguments is not None or "TORCHELASTIC_RUN_ID" in os.environ):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    several = "MASTER_PORT" in os.environ and not any(name in os.environ for name in WORLD_SIZES)
    if arguments is None or not several or not parse_flag_from_env("ACCELERATE_USE_CPU"):
        return
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    options, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    if options.num_machines != 1:
        raise UserError(
            "accelerate launch does not start CPU processes on several machines by itself: start torchrun on each, "
            "with ACCELERATE_USE_CPU=true in the environment."
        )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(options.num_processes), *(["--module"] if options.module else [])]
    os.execv(sys.executable, [*command, options.training_script, *options.training_script_args])


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


@dataclass
class StopRequest:
    """The first signal that came, by its number."""

    received: int | None = None


@contextmanager
def stop_signals(answer: str = "Stopping after this step") -> Iterator[StopRequest]:
    """Take note of SIGINT (Ctrl-C) and SIGTERM instead of ending at once, which a second Ctrl-C does.

    Outside the main thread signals cannot be caught, and nothing is changed.

    Args:
        answer: what is said when the first comes.
    """
    request, process, previous = StopRequest(), os.getpid(), {}

    def receive(number: int, frame: FrameType | None) -> None:
        if request.received is None and os.getpid() == process:  # loader workers inherit the handler: they go on
            request.received = number
            logger.info("%s; Ctrl-C once more stops at once.", answer)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
