"""Exports of strangers through every door that takes one, and checkpoints of strangers through `convert`.

A case is an export, damaged or made to do harm, that `Pix2PixPipeline`, `UNetGenerator`, the app and `push` are given
in turn; or a checkpoint. Each is refused in a sentence, or taken for exactly what an independent reader finds in it.
All of it runs in a process of its own, with bounds on time and memory; nothing in a file may run, nothing outside an
export be shown or published.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import random as random_module
import selectors
import shutil
import struct
import subprocess
import sys
import traceback
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convert.foreign_networks import CycleGANResNet, CycleGANUNet, save
from hub.run_exports import make_export
from hub_server import HubServer
from launching import environment
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_exports import GRAY16, LABELS

from pix2pix_hub.hub.package import WHEEL_NAME
from pix2pix_hub.hub.push import push_export
from pix2pix_hub.image.format import RGB
from pix2pix_hub.inference.pipeline import Pix2PixPipeline
from pix2pix_hub.models import UNetGenerator, load_generator
from pix2pix_hub.ui.models import ModelInfo
from pix2pix_hub.util import UserError

COUNT = 200
SECONDS = 20.0  # of one case, all its doors
SLACK_BYTES = {"export": 256 << 20, "checkpoint": 64 << 20}  # beside three times the files; pictures may be 16 MP
SECRET = "SECRET-of-this-machine"
REPO = "tester/streets"
JSON_FILES = ("config.json", "preprocessor_config.json", "metrics.json", "training_config.json")
Change = Callable[[random_module.Random, Path], str]  # damages an export in place; what it did


def cases(random: random_module.Random, folder: Path) -> Iterator[tuple[str, str]]:
    """See `COUNT`; two cases of three are exports, the third a checkpoint."""
    (folder / "secret").write_text(json.dumps({SECRET: {"value": 1.0}}))
    exports = [
        make_export(folder / "intact" / str(number) / "model", number, source)
        for number, source in enumerate((RGB, GRAY16, LABELS))
    ]
    with contextlib.closing(Worker(folder / "hub")) as worker:
        while True:
            case = folder / "case"
            shutil.rmtree(case, ignore_errors=True)
            if random.random() < 0.67:
                shutil.copytree(random.choice(exports), case / "model")
                change = random.choice(CHANGES)
                kind = change(random, case / "model")
                yield f"export: {kind}", _judged(worker.run("export", case / "model"), case / "model", folder)
            else:
                case.mkdir()
                kind, path, wanted = _checkpoint(random, case)
                yield f"checkpoint: {kind}", _judged_checkpoint(worker.run("checkpoint", path), wanted, folder)


# --------------------------------------------------------------------------------------------------- what came of it


def _judged(answer: dict[str, Any] | str, export: Path, folder: Path) -> str:
    """The worst outcome of the doors, or "refused" where one did, or "right"."""
    if isinstance(answer, str):
        return answer
    if (folder / "mark").exists():
        return "ran what a file holds"
    for door, (outcome, found) in answer.items():
        if outcome not in ("right", "refused"):
            return f"{door} {outcome}"
        if outcome == "refused" and not (len(found) < 4000 and found.replace("\n", "").isprintable()):
            return f"{door} says {found[:60]!r}"
        if outcome == "right" and "weights" in found and found["weights"] != _digests(export / "model.safetensors"):
            return f"{door} wrong weights"
        if SECRET in json.dumps(found):
            return f"{door} shows what a link leads to"
    return "refused" if any(outcome == "refused" for outcome, _ in answer.values()) else "right"


def _judged_checkpoint(answer: dict[str, Any] | str, wanted: str, folder: Path) -> str:
    if isinstance(answer, str):
        return answer
    if (folder / "mark").exists():
        return "ran what a file holds"
    outcome, found = answer["convert"]
    if outcome == "right":
        return "wrong: converted" if wanted == "refused" else "right" if found["difference"] < 1e-5 else "wrong weights"
    return "wrong: refused" if outcome == "refused" and wanted == "right" else outcome


def _digests(path: Path) -> dict[str, str] | None:
    """Name → digest of the float32 values in a safetensors file, read without any library; None: it is none."""
    try:
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
        header.pop("__metadata__", None)
        types = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8"}
        found = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            values = np.frombuffer(body[start:end], types[entry["dtype"]]).reshape(entry["shape"])
            found[name] = _digest(values)
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.astype(values.dtype if values.dtype == np.int64 else np.float32).tobytes()).hexdigest()


# ------------------------------------------------------------------------------------------------- damage to an export

VALUES = (
    "null true false -1 0 2 65 1e308 -1e308 NaN Infinity -Infinity 1e999 0.5 1000000000000000 [] {} [[]] [1,2,3] "
    '"" "x" "\\ud800" "\\u0000" "../../secret" "instance" [null] {"a":{}} {"value":null} {"value":"1"} [[1,2,3]] '
).split() + [
    "9" * 400,
    "[" * 50 + "]" * 50,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 5000 + "1" + "}" * 5000,
    json.dumps("y" * 100_000),
    "[" + "1," * 50_000 + "1]",
    "[" + "[]," * 3_000_000 + "[]]",
    "[" + '{"color":[1,2,3],"name":null,"share":0.1},' * 10_000 + "{}]",
]


def _json_field(random: random_module.Random, export: Path) -> str:
    """Another value, or none, in any place of a JSON file."""
    path = export / random.choice((*JSON_FILES, "discriminator/config.json"))
    content, place = json.loads(path.read_text()), "@place@"
    node = content
    while True:
        key = random.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or not node[key] or random.random() < 0.3:
            break
        node = node[key]
    if random.random() < 0.2:
        del node[key]
    else:
        node[key] = place
    text = json.dumps(content).replace(json.dumps(place), random.choice(VALUES))
    path.write_text(text[:-1] + "," + text[1:] if random.random() < 0.1 else text)  # every key twice
    return f"a value in {path.name}"


def _json_file(random: random_module.Random, export: Path) -> str:
    """Another file in place of a JSON file."""
    path = export / random.choice(JSON_FILES)
    text, encoding = path.read_text(), random.choice(("utf-16", "utf-32", "utf-8-sig"))
    put = random.choice((None, None, Path.mkdir, os.mkfifo, _grown))
    if put is None:
        damaged = random.randbytes(random.randrange(3000)), text[: random.randrange(len(text))].encode()
        others = text.encode(encoding), b"[" * random.choice((10**3, 10**5, 10**7)), text.encode() + b" " * (2 << 20)
        path.write_bytes(random.choice((*damaged, *others)))
    else:
        path.unlink()
        put(path)
    return f"another file for {path.name}"


def _grown(path: Path) -> None:
    """A file that no disk has."""
    with path.open("ab") as file:
        file.truncate(1 << 40)


def _weights(random: random_module.Random, export: Path) -> str:
    path = export / random.choice(("", "discriminator/")) / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    case = random.choice(("tensors", "pickle", "header", "length", "bytes", "bytes"))
    if case == "tensors":
        tensors = load_file(path)
        name = random.choice(list(tensors))
        dtypes = (torch.int64, torch.bool, torch.int32, torch.float16, torch.float64, torch.complex64)
        tensors[name] = random.choice([tensors[name][:1].contiguous(), *(tensors[name].to(dtype) for dtype in dtypes)])
        save_file(tensors, path)
        return "a tensor of another kind"
    if case == "pickle":
        torch.save({"weights": Marks(export.parents[1] / "mark")}, path)
        return "a pickle for weights"
    if case == "header":
        header = json.loads(data[8 : 8 + length])
        entry = header[random.choice([name for name in header if name != "__metadata__"])]
        values = ["I32", "F64", [], [-1, 4], [2**62, 4], [0, 2**63], [0, 0], [8, 4], None, "F32" * 1000, [[1]]]
        entry[random.choice(("dtype", "shape", "data_offsets"))] = random.choice(values)
        text = json.dumps(header).encode()
        data = len(text).to_bytes(8, "little") + text + data[8 + length :]
    elif case == "length":
        claimed = random.choice((0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1))
        data = claimed.to_bytes(8, "little") + data[8:]
    else:
        data = random.choice((_cut, _longer, _flipped, lambda random, data: b""))(random, data)
    path.write_bytes(data)
    return "weights damaged"


def _cut(random: random_module.Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) - 1)]


def _longer(random: random_module.Random, data: bytes) -> bytes:
    return data + random.choice((bytes(7), random.randbytes(99), data[-22:]))


def _flipped(random: random_module.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _link(random: random_module.Random, export: Path) -> str:
    """A link that leads out, to a secret or to what was there."""
    path = export / random.choice((*JSON_FILES, "README.md", "samples.png", "model.safetensors"))
    outside = export.parents[1] / "secret"
    if random.random() < 0.3 and path.exists():
        outside = path.rename(export.parent / path.name)
    path.unlink(missing_ok=True)
    path.symlink_to(random.choice((outside, outside, os.path.relpath(outside, export), path, export.parent / "none")))
    return f"a link for {path.name}"


LAUGHS = "a: &a [x,x]\n" + "".join(f"{b}: &{b} [*{a},*{a}]\n" for a, b in pairwise("abcdefghijklmn"))
INDEX = "[{name: x, results: [{task: {type: *n}, dataset: {type: *n, name: *n}, metrics: [{type: *n, value: *n}]}]}]"
CARDS = (
    b"![" * 50_000,
    b"<img" * 25_000 + b"[](" * 10_000,
    b"---\n- 1\n---\n# a",
    b"---\n" * 30_000,
    b"---\na: 1" + b"\n" * 200_000,
    b"---\na: " + b"[" * 100_000 + b"\n---\n",
    b"---\na: [" + b"[]," * 80_000 + b"]\n---\n",
    f"---\n{LAUGHS}model-index: {INDEX}\n---\n# a".encode(),
    b"---\nlicense: [a]\nmodel-index: 5\n---\n",
    b"<!-- pix2pix-hub: keep -->\n" * 5000,
    "---\nlicense: mit\n---\n# Mine ä {{ 7*7 }} {% for a in range(10**9) %}".encode(),
)


def _card(random: random_module.Random, export: Path) -> str:
    noise = random.randbytes(5000), b"---\n" + random.randbytes(50) + b"\n---\n# a"
    (export / "README.md").write_bytes(random.choice((*CARDS, *noise)))
    if random.random() < 0.2:
        _grown(export / "README.md")
    if random.random() < 0.3:
        (export / "training_config.json").unlink()
    return "a card"


def _samples(random: random_module.Random, export: Path) -> str:
    path, case = export / "samples.png", random.choice(("size", "rows", "bytes", "bytes"))
    data = bytearray(path.read_bytes())
    if case == "size":
        data[16:24] = struct.pack(">2I", random.choice((1, 60_000, 2**31 - 1)), random.choice((1, 60_000, 2**31 - 1)))
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        path.write_bytes(data)
    elif case == "rows":
        Image.new("1", (11, 1_000_000)).save(path)
        content = json.loads((export / "preprocessor_config.json").read_text()) | {"image_size": [1, 1]}
        (export / "preprocessor_config.json").write_text(json.dumps(content))
    else:
        others = random.randbytes(999), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + bytes(99)
        path.write_bytes(random.choice((_cut(random, bytes(data)), _flipped(random, bytes(data)), *others)))
    return "samples.png"


CHANGES: tuple[Change, ...] = (_json_field,) * 5 + (_json_file, _json_file, _weights, _weights, _link, _card, _samples)
CHANGES += (lambda random, export: "intact",)

# ----------------------------------------------------------------------------------------------------- checkpoints


class Marks:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


class Forged:
    """A tensor of a storage with any offset, sizes and strides."""

    def __init__(self, values: torch.Tensor, *geometry: Any, function: Any = torch._utils._rebuild_tensor_v2) -> None:
        self.values, self.geometry, self.function = values, geometry, function

    def __reduce__(self) -> Any:
        storage = torch.storage.TypedStorage(
            wrap_storage=self.values.untyped_storage(), dtype=self.values.dtype, _internal=True
        )
        return self.function, (storage, *self.geometry, False, OrderedDict())


def _checkpoint(random: random_module.Random, folder: Path) -> tuple[str, Path, str]:
    """A file, with what it is and "right", "refused" or "either": what is wanted of `convert`."""
    torch.manual_seed(random.randrange(2**31))
    network = random.choice((lambda: CycleGANUNet(5, "batch"), lambda: CycleGANResNet(6, "instance")))()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.2)
    inputs = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.save((inputs, network.train()(inputs)), folder / "reference.pt")
    state, path, early = dict(network.state_dict()), folder / "G.pth", random.random() < 0.4
    name = random.choice([key for key, tensor in state.items() if tensor.ndim == 4])
    shape, make = state[name].shape, random.choice(CHECKPOINTS)
    early = early and make != "flip"  # values of early files have no checksum
    if make == "intact":
        if random.random() < 0.3:
            save_file(state, folder / "G.safetensors")
            return make, folder / "G.safetensors", "right"
        return make, save(network, path, random.choice(("", "module."))), "right"
    if make == "tensor":
        values, double = state[name], random.choice((torch.float64, torch.float32))
        kinds = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]
        others = [values.to(kind) for kind in kinds]
        others += [values.clone().index_fill_(0, torch.tensor([0]), bad) for bad in (torch.nan, torch.inf)]
        others += [values.to_sparse(), torch.quantize_per_tensor(values, 0.1, 0, torch.qint8), values.to("meta")]
        others += [values[:1].expand(10**5, *shape[1:]), values.to(double)[..., :1], torch.zeros(0), None, 5, [values]]
        state[name] = random.choice(others)  # type: ignore[assignment]
    elif make == "geometry":
        flat, count = torch.rand(shape.numel()), shape.numel()
        wrong: list[Any] = [
            Forged(flat, count, tuple(shape), state[name].stride()),  # begins where the storage ends
            Forged(flat, -4, tuple(shape), state[name].stride()),
            Forged(flat, 0, tuple(shape), (10**9, 1, 1, 1)),
            Forged(flat, 0, tuple(shape), (-1, 1, 1, 1)),
            Forged(flat, 0, (-shape[0], *shape[1:]), state[name].stride()),
            Forged(flat, 0, (2**62, 2, 1, 1), (1, 1, 1, 1)),
            Forged(flat, 2**62, tuple(shape), (2**61, 1, 1, 1)),
            Forged(flat, 0.5, tuple(shape), state[name].stride()),
            Forged(flat, 0, "abcd", None),
            Forged(flat[:5].clone(), 0, tuple(shape), state[name].stride()),  # few values, many wanted
        ]
        state[name] = random.choice(wrong)
    elif make == "code":
        mark = folder.parent / "mark"
        state[name] = Marks(mark)  # type: ignore[assignment]
        if random.random() < 0.8:
            return make, _with_pickle(random, path, early, _code(random, mark)), "refused"
    elif make == "pickle":
        return make, _with_pickle(random, path, early, random.choice(PICKLES)), "refused"
    if make == "bomb":
        return _bomb(random, path, state)
    torch.save(state, path, _use_new_zipfile_serialization=not early)
    data = path.read_bytes()
    if make == "tar":
        data = b"tensors".ljust(257, b"\0") + b"ustar\0" + random.randbytes(2000)
    elif make in ("cut", "longer", "flip"):
        data = {"cut": _cut, "longer": _longer, "flip": _flipped}[make](random, data)
    path.write_bytes(data)
    return make, path, "either" if make == "flip" else "refused"


CHECKPOINTS = ("intact", "tensor", "geometry", "code", "pickle", "cut", "longer", "flip", "tar", "bomb", "bomb")


def _bomb(random: random_module.Random, path: Path, state: dict[str, torch.Tensor]) -> tuple[str, Path, str]:
    """Entries that unpack to gigabytes, or claim to."""
    torch.save(state, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    ending = random.choice(("/data/0", "/data.pkl", "/byteorder"))
    victim = next(entry for entry in entries if entry.endswith(ending))
    if random.random() < 0.5:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for entry, content in entries.items():
                with archive.open(entry, "w", force_zip64=True) as file:
                    if entry == victim:
                        for _ in range(64):
                            file.write(bytes(1 << 24))
                    file.write(content)
        return "zip bomb", path, "refused"
    data, central = bytearray(path.read_bytes()), b"PK\1\2"
    at = data.index(central)
    while at >= 0:
        claimed = random.choice((2**31, 2**32 - 2, 10**6))
        data[at + 24 : at + 28] = claimed.to_bytes(4, "little")
        if random.random() < 0.5:
            data[at + 20 : at + 24] = claimed.to_bytes(4, "little")
        if random.random() < 0.3:
            data[at + 42 : at + 46] = bytes(4)  # all at one place
        at = data.find(central, at + 4)
    path.write_bytes(data)
    return "zip with other sizes", path, "refused"


def _code(random: random_module.Random, mark: Path) -> bytes:
    """Pickles that would leave a mark."""
    command = f"touch {mark}".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    quoted = f"S'touch {mark}'\n".encode()
    python = f"S'open({str(mark)!r}, \"w\")'\n".encode()
    evaluate = b"X" + struct.pack("<I", len(python) - 4) + python[2:-2]
    codes = [
        b"\x80\x02cos\nsystem\n" + text + b"\x85R.",
        b"\x80\x02cposix\nsystem\n" + text + b"\x85R.",
        b"(" + quoted + b"ios\nsystem\n.",
        b"(cos\nsystem\n" + quoted + b"o.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + text + b"\x85R.",
        b"\x80\x02cbuiltins\neval\n" + evaluate + b"\x85R.",
        b"\x80\x02c__builtin__\neval\n" + evaluate + b"\x85R.",
        b"\x80\x02cbuiltins\ngetattr\ncos\nX\x06\0\0\0system\x86R" + text + b"\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\ncos\nsystem\n" + text + b"\x85R\x85R.",
        b"\x80\x02ccollections\nOrderedDict\n)R}X\x0a\0\0\0__reduce__cos\nsystem\nsb" + text + b"\x85R.",
    ]
    return random.choice(codes)


PICKLES = (
    b"\x80\x02(.",
    b"\x80\x02.",
    b"\x80\x02",
    b"\x80\x02h\x07.",
    b"\x80\x02j\xff\xff\xff\x7f.",
    b"\x80\x02]r\xff\xff\xff\xff.",
    b"\x80\x02})" + b"\x85" * 60_000 + b"K\1s.",  # a key that is nested so deep
    b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\1s.",
    b"\x80\x02" + b"}" * 5_000_000 + b".",
    b"\x80\x02" + b"(" * 5_000_000 + b".",
    b"\x80\x02" + b"]" * 60_000 + b"a" * 59_999 + b".",
    b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    b"\x80\x02ccollections\nCounter\nX\x03\0\0\0abc\x85R.",
    b"\x80\x02ctorch._utils\n_rebuild_meta_tensor_no_storage\nctorch\nfloat32\nK\2\x85K\1\x85\x89t.",
    b"\x80\x02X\xff\xff\xff\xffabc.",
    b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    b"\x80\x02X\x07\0\0\0storage\x85Q.",
    b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuJ\xff\xff\xff\x7ftQ.",
    b"\x80\x02(X\x07\0\0\0storageK\1X\1\0\0\x000X\3\0\0\0cpuK\1tQ.",
    b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuJ\0\0\0\x80tQ.",
    b"\x80\x02}X\3\0\0\0aaaK\1sb.",
    b"\x80\x02}N.",
    b"\x80\x02c\n\n.",
    b"\x80\x02c\xff\xff\n\xfe\n.",
)


def _with_pickle(random: random_module.Random, path: Path, early: bool, content: bytes) -> Path:
    """A file as PyTorch writes it, but for the pickle that describes it."""
    torch.save({"model.1.weight": torch.zeros(4)}, path, _use_new_zipfile_serialization=not early)
    if early:
        data = path.read_bytes()
        starts = [at for at in range(len(data)) if data.startswith(b"\x80\x02", at)]
        place = random.choice((0, 3, 4))
        path.write_bytes(data[: starts[place]] + content + (data[starts[4] :] if place < 4 else b""))
        return path
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, old in entries.items():
            archive.writestr(entry, content if entry.endswith("data.pkl") else old)
    return path


# -------------------------------------------------------------------------------------------- the process that tries


class Worker:
    """A process that tries one case after the other, and a new one where it hung, died or grew too large."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[str] | None = None

    def run(self, kind: str, path: Path) -> dict[str, Any] | str:
        """What `work` answers; or what became of the process."""
        if self.process is None:
            shutil.rmtree(self.home, ignore_errors=True)
            words = ["-c", "import exports; exports.work()", str(self.home)]
            paths = os.pathsep.join(["", str(Path(__file__).parent), str(Path(__file__).parents[1])])
            variables = environment() | {"PYTHONPATH": environment()["PYTHONPATH"] + paths}
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                [sys.executable, *words], env=variables, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
            )
            assert self._answer(120.0) is not None, "the worker does not start"
        process, files = self.process, [path, *path.rglob("*")]
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        before = _peak(process.pid)
        assert process.stdin is not None
        process.stdin.write(json.dumps([kind, str(path)]) + "\n")
        process.stdin.flush()
        answer = self._answer(SECONDS)
        if answer is None:
            outcome = "hang" if process.poll() is None else f"died with {process.returncode}"
            self.close()
            return outcome
        used = _peak(process.pid) - before
        allowed = SLACK_BYTES[kind] + 3 * sum(file.stat().st_blocks * 512 for file in files if file.is_file())
        return json.loads(answer) if used <= allowed else f"memory {used / 1e9:.2f} GB"

    def _answer(self, seconds: float) -> str | None:
        assert self.process is not None and self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            return self.process.stdout.readline() or None if selector.select(seconds) else None

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def work() -> None:
    """Read `[kind, path]` a line, and answer with each door's outcome and what it found, until the input ends."""
    from pix2pix_hub.convert.checkpoint import convert_checkpoint

    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    with HubServer(Path(sys.argv[1])) as hub, pytest.MonkeyPatch.context() as patch:
        hub.use_in_process(patch)
        patch.setattr("pix2pix_hub.hub.push.WAITS", ())

        def convert(path: Path) -> dict[str, Any]:
            made = path.parent / "made"
            shutil.rmtree(made, ignore_errors=True)
            convert_checkpoint(path, made)
            inputs, expected = torch.load(path.parent / "reference.pt", weights_only=True)
            with torch.no_grad():
                return {"difference": float((load_generator(made)(inputs) - expected).abs().max())}

        def push(path: Path) -> dict[str, Any]:
            hub.repos.clear()
            before = len(hub.unknown)
            try:
                push_export(path, REPO)
            except UserError:
                left = [len(repo.commits) for repo in hub.repos.values()]
                assert left in ([], [1]), f"refused, but {left} commits"
                raise
            assert len(hub.unknown) == before
            files = hub.repo(REPO).head().tree
            differing = [
                name
                for name, file in files.items()
                if name not in ("README.md", ".gitattributes", WHEEL_NAME)
                and file.content != (path / name).read_bytes()
            ]
            assert not differing, f"{differing} are others on the Hub"
            return {"found": b"".join(file.content for file in files.values()).decode(errors="replace")[: 10**6]}

        doors: dict[str, dict[str, Callable[[Path], dict[str, Any]]]] = {
            "export": {"generator": _generator, "pipeline": _pipeline, "app": _app, "push": push},
            "checkpoint": {"convert": convert},
        }
        make_export(Path(sys.argv[1]) / "first" / "model")
        for door in doors["export"].values():  # what is imported late is imported now
            door(Path(sys.argv[1]) / "first" / "model")
        answers.write("ready\n")
        answers.flush()
        for line in sys.stdin:
            kind, path = json.loads(line)
            found = {name: _outcome(door, Path(path)) for name, door in doors[kind].items()}
            answers.write(json.dumps(found) + "\n")
            answers.flush()


def _outcome(door: Callable[[Path], dict[str, Any]], path: Path) -> tuple[str, Any]:
    try:
        return "right", door(path)
    except UserError as error:
        return "refused", str(error)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"traceback: {type(error).__name__} in {Path(frame.filename).name}:{frame.name}: {str(error)[:80]}", None


def _weights_of(network: torch.nn.Module) -> dict[str, str]:
    return {name: _digest(tensor.numpy()) for name, tensor in network.state_dict().items()}


def _generator(path: Path) -> dict[str, Any]:
    return {"weights": _weights_of(UNetGenerator.from_pretrained(path))}


def _pipeline(path: Path) -> dict[str, Any]:
    pipeline = Pix2PixPipeline.from_pretrained(path, device="cpu", dtype="float32")
    weights = _weights_of(pipeline.generator)
    source = copy.copy(pipeline.preprocessor.source)
    dtype = np.uint16 if source.dtype == "uint16" else np.uint8
    channels = 1 if source.mode in ("gray", "labels") else 3
    pixels = np.full((32, 32, channels), source.classes[0] if source.classes else 7, dtype)
    with contextlib.suppress(UserError):  # the picture need not fit
        pipeline(pixels[:, :, 0] if channels == 1 else pixels)
    with contextlib.suppress(UserError):
        pipeline.discriminator  # noqa: B018
    return {"weights": weights}


def _app(path: Path) -> dict[str, Any]:
    info = ModelInfo(path, "theirs")
    sizes = [each.source.size for each in info.examples]
    pictures = [picture and picture.size for picture in (info.samples, info.thumbnail, *info.curves)]
    return {
        "card": info.card,
        "metrics": info.numbers,
        "summary": info.summary(),
        "task": info.task,
        "sizes": [*sizes, *pictures],
    }
