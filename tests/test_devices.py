"""What a device is taken to accelerate, the allocator's settings, and how long processes wait for each other."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launching import TORCHRUN_TWO, environment

from pix2pix_hub.devices import cpu_has_bf16_units, resolve_mixed_precision
from pix2pix_hub.util import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that multiplies bfloat16 in hardware, and nothing in the environment that says otherwise."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    for variable in ("ONEDNN_MAX_CPU_ISA", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE", "AVX512_CORE_VNNI", "avx2_vnni"])
def test_a_cpu_limited_to_older_instructions_trains_in_float32(
    limit: str, units: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cpu_has_bf16_units()
    assert resolve_mixed_precision("auto", use_cpu=True) == "bf16"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert not cpu_has_bf16_units()
    assert resolve_mixed_precision("auto", use_cpu=True) == "no"


@pytest.mark.parametrize("limit", ["AVX512_CORE_BF16", "AVX512_CORE_AMX", "ALL", "DEFAULT"])
def test_a_limit_that_leaves_the_units_changes_nothing(
    limit: str, units: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert resolve_mixed_precision("auto", use_cpu=True) == "bf16"


def test_fp16_on_a_cpu_is_refused(units: None) -> None:
    with pytest.raises(UserError, match="--mixed-precision auto"):
        resolve_mixed_precision("fp16", use_cpu=True)


@pytest.mark.skipif(torch.version.cuda is None, reason="torch is built for CPUs only")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler here")
def test_a_driver_too_old_for_torch_is_said_and_not_trained_past(tmp_path: Path) -> None:
    """CUDA's runtime answers as it does over a driver of CUDA 11.4."""
    source, library = tmp_path / "old.c", tmp_path / "old.so"
    source.write_text(
        "int cudaGetDeviceCount(int *count) { *count = 0; return 35; }\n"
        "int cudaDriverGetVersion(int *version) { *version = 11040; return 0; }\n"
        "int cudaGetLastError(void) { return 0; }\n"
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    code = """
import os
from pix2pix_hub.devices import use_cpu
try:
    use_cpu()
except Exception as error:
    print(error)
os.environ["ACCELERATE_USE_CPU"] = "true"
print(use_cpu())
"""
    command = dict(env=os.environ | {"LD_PRELOAD": str(library)}, cwd=ROOT, capture_output=True, text=True)
    said, forced = subprocess.run([sys.executable, "-c", code], **command).stdout.splitlines()
    assert "its driver is for CUDA 11.4 at most, and torch" in said and "ACCELERATE_USE_CPU" in said
    assert forced == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_large_block_is_used_again_instead_of_mapped_anew() -> None:
    """In a process of its own, since it stays so: freed pages need not be handed out, and cleared, once more."""
    code = """
import resource, torch
from pix2pix_hub.devices import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
anew = faults()
keep_freed_memory()
for _ in range(4):  # what lies around the first blocks may be in the way of using them again
    faults()
print(anew, faults())
"""
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    anew, again = map(int, words)
    assert again < anew / 10


WAITING = """
import time
from datetime import timedelta
from accelerate import PartialState
from pix2pix_hub.devices import process_state, set_longest_wait, sharing_failures

PartialState(cpu=True, timeout=timedelta(seconds=1))
state = process_state()
with sharing_failures():
    time.sleep(2 if state.is_main_process else 0)
print("waited", flush=True)
set_longest_wait(timedelta(seconds=1))
with sharing_failures():
    time.sleep(3 if state.is_main_process else 0)
"""


def test_a_process_is_waited_for_while_it_prepares_and_not_for_ever_after(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    command = [sys.executable, *TORCHRUN_TWO, str(tmp_path / "waiting.py")]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert ended.stdout.count("waited") == 2, ended.stderr
    assert ended.returncode != 0 and "1000ms" in ended.stderr
