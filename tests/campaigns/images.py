"""Image files through the library and the app: every kind, unharmed and mutated, and files made to cost much.

Each is read in a child, whose peak of memory may be `allowed` above where it stood, within `MAX_SECONDS`. What is read
must be what an independent reader makes of it: NumPy, tifffile, Pillow used plainly, or a decoder of PNG of our own.
"""

from __future__ import annotations

import ctypes
import gc
import io
import itertools
import json
import logging
import os
import random
import re
import select
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COUNT = 1000
MAX_SECONDS = 10.0
FREE_MEGABYTES = 64  # beside what size and pixels justify
Case = tuple[str, bytes, NDArray[Any] | None]  # kind, content, and its pixels (H, W[, C]) where they are known


def allowed(size: int, pixels: int, channels: int) -> float:
    """Megabytes to read a file of `size` bytes: it a few times, its pixels as Pillow has them, and in full."""
    return FREE_MEGABYTES + (4 * size + pixels * (16 + 6 * channels)) / 1e6


# ---------------------------------------------------------------------------------------------------------- the files


def unharmed(random: random.Random) -> Iterator[Case]:
    """Files of every kind that is read, with what they hold."""
    import tifffile
    from hostile_images import deep_png
    from PIL import Image

    def noise(channels: int, dtype: str) -> NDArray[Any]:
        numbers = np.random.default_rng(random.randrange(2**32))
        shape = (random.randint(1, 40), random.randint(1, 40), channels)[: 3 if channels > 1 else 2]
        if dtype[0] == "f":
            return numbers.random(shape).astype(dtype)
        return numbers.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)

    def pillow(array: NDArray[Any], format: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, format=format, **options)
        return buffer.getvalue()

    while True:
        for channels, name in itertools.product((1, 2, 3, 4), ("PNG", "BMP", "TIFF", "WEBP", "JPEG", "GIF")):
            if (name, channels) not in (("PNG", 2), ("PNG", 4), ("TIFF", 4)) and channels in (2, 4):
                continue
            pixels = noise(channels, "uint8")
            lossy = name in ("JPEG", "GIF") and channels > 1 or name == "JPEG"
            options: dict[str, Any] = {
                "WEBP": {"lossless": True},
                "JPEG": {"progressive": random.random() < 0.5},
                "TIFF": {"compression": random.choice([None, "tiff_lzw", "tiff_deflate", "packbits"])},
            }.get(name, {})
            if name in ("JPEG", "PNG", "WEBP") and random.random() < 0.3:
                exif = Image.Exif()
                exif[0x010E] = "a description"
                options["exif"] = exif
            shown = np.repeat(pixels[:, :, None], 3, axis=2) if name == "WEBP" and channels == 1 else pixels
            yield f"{name} of {channels}", pillow(pixels, name, **options), None if lossy else shown
        palette = Image.fromarray(noise(1, "uint8")).convert("P")
        for name in ("PNG", "TIFF", "GIF", "BMP"):
            buffer = io.BytesIO()
            palette.save(buffer, format=name)
            yield f"{name} with a palette", buffer.getvalue(), None
        for channels in (1, 2, 3, 4):
            pixels = noise(channels, "uint16")
            yield f"16-bit PNG of {channels}", deep_png(pixels.reshape(*pixels.shape[:2], channels)), pixels
        for channels in (1, 2, 3, 4, 7):
            for dtype in ("uint8", "uint16", "float32", "int16", "float64"):
                pixels = noise(channels, dtype)
                buffer = io.BytesIO()
                separate = channels > 1 and random.random() < 0.4
                pages = separate and random.random() < 0.5
                order = random.choice("<>")
                tifffile.imwrite(
                    buffer,
                    np.ascontiguousarray(pixels.transpose(2, 0, 1)) if separate else pixels,
                    photometric="minisblack",
                    planarconfig=None if channels == 1 or pages else "separate" if separate else "contig",
                    compression=random.choice([None, "zlib", "lzma"]),
                    tile=random.choice([None, (16, 16)]),
                    byteorder=order,
                    bigtiff=order == "<" and random.random() < 0.3,  # the others Pillow refuses
                    metadata=None,
                    predictor=None,
                )
                yield f"TIFF of {dtype}", buffer.getvalue(), pixels
        for dtype in ("uint8", "uint16", "float32", "float16", "int64", "bool"):
            pixels = noise(random.choice([1, 2, 3, 9]), dtype) if dtype != "bool" else noise(1, "uint8") > 99
            buffer = io.BytesIO()
            np.save(buffer, np.asfortranarray(pixels) if random.random() < 0.3 else pixels)
            yield ".npy", buffer.getvalue(), pixels


def mutated(content: bytes, random: random.Random) -> bytes:
    """A few bytes changed, mostly in the header; a number made extreme; a piece cut out, doubled or zeroed; an end."""
    data = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 3])):
        at = random.randrange(min(len(data), random.choice([64, 400, len(data), len(data)])))
        piece = slice(at, at + random.randint(1, 40))
        match random.randrange(7):
            case 0 | 1:
                data[at] = random.randrange(256)
            case 2:
                number = random.choice([0, 1, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF])
                data[at : at + 4] = number.to_bytes(4, random.choice(["little", "big"]))
            case 3:
                del data[piece]
            case 4:
                data[at:at] = data[piece]
            case 5:
                data[piece] = bytes(len(data[piece]))
            case 6:
                del data[max(1, random.randrange(len(data))) :]
        data = data or bytearray(content)
    return bytes(data)


Makers = dict[str, Callable[[], bytes]]


def crafted(random: random.Random) -> Iterator[Case]:
    """Files made to cost much, or to start a program."""
    import hostile_images as hostile

    makers: Makers = {name: write for name, (write, _) in hostile.BOMBS.items()}
    makers |= packed_bombs(random) | many_pixels(random) | many_parts(random) | false_headers(random) | other_kinds()
    while True:
        for name in random.sample(sorted(makers), len(makers)):
            yield name, makers[name](), None


def flat(mode: str, width: int, height: int, format: str, **options: Any) -> bytes:
    """An image of one colour."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, format=format, **options)
    return buffer.getvalue()


def packed_bombs(random: random.Random) -> Makers:
    """Few bytes that unpack to many."""
    import hostile_images as hostile

    zeros = zlib.compress(bytes(3 << 28), 1)
    text = hostile.chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**20)))
    return {
        "inflate bomb": lambda: hostile.inflate_bomb(random.choice([8, 32946, 50013]), zeros),
        "inflate bomb of PackBits": lambda: hostile.inflate_bomb(32773, b"\x81\0" * random.randint(10**6, 10**7)),
        "text in PNG": lambda: hostile.into_png(text * 100),
        "colour profile in PNG": lambda: hostile.into_png(hostile.chunk(b"iCCP", b"k\0\0" + zeros)),
        "run-length BMP": lambda: hostile.run_length_bmp(2048, 2048, b"\1\0" * random.randint(1000, 2 * 10**6)),
        "run-length BMP with jumps": lambda: hostile.run_length_bmp(2048, 2048, b"\0\2\xff\xff" * 30),
    }


def many_pixels(random: random.Random) -> Makers:
    """Large images, sound or not."""
    import hostile_images as hostile

    def png(width: int, height: int, depth: int, colour_type: int, samples: int) -> bytes:
        row, packer = bytes(1 - -width * depth * samples // 8), zlib.compressobj(1)
        body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
        head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
        chunks = hostile.chunk(b"IHDR", head) + hostile.chunk(b"IDAT", body) + hostile.chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + chunks

    sizes, kinds = [(9000, 9000), (60_000_000, 1), (1, 2_000_000)], [(16, 6, 4), (16, 2, 3), (16, 4, 2), (8, 6, 4)]
    return {
        "PNG of many pixels": lambda: png(*random.choice(sizes), 1, 0, 1),
        "PNG of 4000x4000": lambda: png(4000, 4000, *random.choice(kinds)),
        "PNG header": lambda: png(random.choice([10**5, 2**31 - 1]), 2, 8, 2, 0),
        "GIF of many pixels": lambda: flat("L", 9000, 9000, "GIF"),
        "WebP of many pixels": lambda: flat("RGB", 16000, 5000, "WEBP", lossless=True, method=0),
        "JPEG of many pixels": lambda: flat("RGB", 9000, 9000, "JPEG"),
    }


def many_parts(random: random.Random) -> Makers:
    """Scans, strips, pages and segments by the thousand."""
    import hostile_images as hostile
    import tifffile

    def scans(count: int) -> bytes:
        whole = flat("L", 4000, 4000, "JPEG", progressive=True)
        start = whole.rindex(b"\xff\xda")
        return whole[:start] + whole[start:-2] * count + whole[-2:]

    def strips(rows: int) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.zeros((rows, 1), np.uint8), rowsperstrip=1, metadata=None)
        return buffer.getvalue()

    def pages(count: int, circle: bool) -> bytes:
        entry = struct.pack("<HHII", 256, 3, 1, 8)
        offsets = [8 + 18 * number for number in range(1, count)] + [8 if circle else 0]
        return b"II*\0" + struct.pack("<I", 8) + b"".join(b"\1\0" + entry + struct.pack("<I", at) for at in offsets)

    def exif(more: int) -> bytes:
        return hostile.into_jpeg(hostile.segments(0xFFE1, hostile.greedy_exif() + bytes(more), head=b"Exif\0\0"))

    return {
        "JPEG of many scans": lambda: scans(random.randint(50, 95)),
        "JPEG of very many scans": lambda: scans(20_000),
        "TIFF of many strips": lambda: strips(random.choice([10_000, 100_000])),
        "TIFF pages": lambda: pages(random.choice([10, 1000, 10**6]), random.random() < 0.5),
        "EXIF in JPEG, larger": lambda: exif(random.randint(1, 10**7)),
    }


def false_headers(random: random.Random) -> Makers:
    """Beginnings of files that promise what does not follow."""

    def npy(shape: str, more: bytes = b"") -> bytes:
        head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
        return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + more

    shapes = ["(10**9, 10**9)", "(-1, 1)", "(99999, 99999)", "(0, 5)", "(" * 50]
    magics = [b"", b"II*\0", b"\x93NUMPY\1\0", b"\xff\xd8\xff", b"GIF89a", b"BM"]
    return {
        ".npy header": lambda: npy(random.choice(shapes)),
        ".npy of many bytes": lambda: npy("(5000, 5000)", bytes(5000 * 5000)),
        "noise": lambda: random.choice(magics) + random.randbytes(random.randint(1, 10**6)),
    }


def other_kinds() -> Makers:
    """What Pillow reads and this project does not."""
    kinds = "PPM PCX TGA ICO SGI JPEG2000 DDS PDF EPS IM SPIDER QOI AVIF ICNS".split()
    modes = {kind: "F" if kind == "SPIDER" else "RGB" for kind in kinds}
    return {f"{kind} by another name": partial(flat, mode, 32, 32, kind) for kind, mode in modes.items()}


# -------------------------------------------------------------------------------------------------------- the campaign


def cases(random: random.Random, folder: Path) -> Iterator[tuple[str, str]]:
    """Files of three sorts, each read in a child; outcomes."""
    from tiny_exports import write_tiny_export

    program, mark = folder / "gs", folder / "mark"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
    program.chmod(0o755)
    write_tiny_export(folder / "export", discriminator=False)
    worker: Worker | None = None
    good, bad = unharmed(random), crafted(random)
    try:
        for number in itertools.count():
            (sort,) = random.choices(("unharmed", "mutated", "crafted"), (2, 7, 1))
            kind, content, known = next(bad if sort == "crafted" else good)
            if sort == "mutated":
                content, known = mutated(content, random), None
            path = folder / f"x{random.choice(['.png', '.jpg', '.tif', '.npy'])}"
            path.write_bytes(content)
            np.save(folder / "known.npy", known if known is not None else np.zeros(0))
            worker = worker or Worker(folder)
            outcome = worker.outcome({"path": str(path), "unharmed": sort == "unharmed", "known": known is not None})
            if mark.exists():
                outcome = "wrong: it started a program"
                mark.unlink()
            if outcome == "hang" or outcome.startswith("ended"):
                worker.close()
                worker = None
            if outcome not in ("right", "refused"):
                path.rename(path.with_name(f"bad_{number}{path.suffix}"))
            yield f"{sort}: {kind}" if sort == "crafted" else f"{sort}: {kind.split(' of ')[0]}", outcome
            path.unlink(missing_ok=True)
    finally:
        if worker is not None:
            worker.close()


class Worker:
    """A child that reads files, one after the other."""

    def __init__(self, folder: Path) -> None:
        here = Path(__file__).resolve()
        places = [str(here.parents[2]), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
        self.child = subprocess.Popen(
            [sys.executable, str(here), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(places), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        )
        self._answer(120.0)  # once it has imported what it needs

    def _answer(self, seconds: float) -> str:
        assert self.child.stdout is not None
        if not select.select([self.child.stdout], [], [], seconds)[0]:
            return "hang"
        return self.child.stdout.readline().decode().strip() or f"ended with {self.child.wait()}"

    def outcome(self, job: dict[str, Any]) -> str:
        """What became of a file."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(job).encode() + b"\n")
        self.child.stdin.flush()
        return self._answer(6 * MAX_SECONDS)  # it is read a few times

    def close(self) -> None:
        """End the child."""
        self.child.kill()
        self.child.wait()
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                stream.close()


# ----------------------------------------------------------------------------------------------------------- the child


def megabytes(name: str) -> float:
    """Of the process: VmRSS, or VmHWM, its peak."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1e3


def measured(action: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, its seconds, and its peak of memory above where it began."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    base, start = megabytes("VmRSS"), time.process_time()  # of this process: the machine may be busy with others
    try:
        made = action()
    except Exception as error:
        made = error
    return made, time.process_time() - start, megabytes("VmHWM") - base


def plain(data: bytes) -> Any:
    """The image as an independent reader has it: an array `(H, W, C)`, or a PIL image."""
    import tifffile
    from PIL import Image, ImageOps

    if data.startswith(b"\x93NUMPY"):
        return np.load(io.BytesIO(data), allow_pickle=False)
    if data.startswith(b"\x89PNG") and data[24] == 16 and data[25] in (2, 4, 6):
        return decoded_png(data)
    if data.startswith((b"II", b"MM")):
        from pix2pix_hub.image.tiff import image_pages

        if len(parts := image_pages(data, "x")) > 1 or not parts[0].pillow_reads:
            with tifffile.TiffFile(io.BytesIO(data)) as tiff:
                pages = [page for index, page in enumerate(tiff.pages) if index == 0 or not page.is_reduced]
                return np.concatenate([in_order(page.asarray(), page.axes) for page in pages], axis=2)
    image = Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
    image.load()
    return ImageOps.exif_transpose(image)


def in_order(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """A page of tifffile's → `(H, W, C)`."""
    array = array if "S" in axes else array[..., None]
    return np.moveaxis(array, 0, -1) if axes.startswith("S") else array


def decoded_png(data: bytes) -> NDArray[Any]:
    """16-bit PNG that is not interlaced, after the specification."""
    chunks, at = [], 8
    while at < len(data) and (not chunks or chunks[-1][0] != b"IEND"):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    width, height, _, colour_type, *_, interlaced = struct.unpack(">IIBBBBB", dict(chunks)[b"IHDR"])
    assert not interlaced
    step = 2 * {2: 3, 4: 2, 6: 4}[colour_type]
    inflater = zlib.decompressobj()
    raw = inflater.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    before = np.zeros(width * step, np.int64)
    rows = []
    for top in range(height):
        start = top * (1 + width * step)
        row = np.frombuffer(raw, np.uint8, width * step, start + 1).astype(np.int64)
        if raw[start] == 2:
            row = (row + before) % 256
        else:
            assert raw[start] == 0
        rows.append(row)
        before = row
    values = np.array(rows, np.uint8).reshape(height, width, step)
    return values.view(">u2").astype(np.uint16)


def same(decoded: Any, other: Any) -> bool:
    """Whether `read_image` gave what an independent reader did."""
    from PIL import Image

    if isinstance(other, Image.Image) and other.mode not in ("I", "F") and not other.mode.startswith("I;"):
        return np.array_equal(np.asarray(decoded.convert("RGBA")), np.asarray(other.convert("RGBA")))
    array = np.asarray(other)
    array = array.astype(np.uint8) * 255 if array.dtype == bool else array
    values = decoded.values
    if decoded.palette is not None:  # GIF keeps gray so
        values = np.asarray(decoded.convert("L" if array.ndim == 2 else "RGB"))
    return values.shape[:2] == array.shape[:2] and np.array_equal(
        values.reshape(-1), array.astype(values.dtype).reshape(-1)
    )


def judge(job: dict[str, Any], pipeline: Any, folder: Path) -> str:
    """The outcome of one file."""
    from pix2pix_hub.image.read import open_image, read_image
    from pix2pix_hub.ui.handlers import check_picture
    from pix2pix_hub.ui.store import Limits
    from pix2pix_hub.util import UserError

    path = Path(job["path"])
    data = path.read_bytes()
    decoded, *costs = measured(lambda: read_image(path, "x"))
    refused = isinstance(decoded, UserError)
    if isinstance(decoded, Exception) and not refused:
        return f"traceback: {decoded!r:.60}"
    channels = 4
    if refused:
        head = measured(lambda: open_image(data, "x"))[0]
        pixels = 0 if isinstance(head, Exception) else head.width * head.height
    else:
        pixels = int(np.prod(decoded.size))
        channels = max(4, decoded.values.shape[2])
    most = allowed(len(data), pixels, channels)
    verdicts = [costs, measured(lambda: check_picture(path, "x", Limits()))]
    taken = not isinstance(verdicts[1][0], Exception)
    if isinstance(verdicts[1][0], Exception) and not isinstance(verdicts[1][0], UserError):
        return f"traceback in the app: {verdicts[1][0]!r:.60}"
    for seconds, peak in (costs, verdicts[1][1:]):
        if seconds > MAX_SECONDS:
            return f"slow: {seconds:.0f} s"
        if peak > most:
            return f"memory: {peak:.0f} MB, {most:.0f} MB justified"
    if refused:
        return "refused" if not job["unharmed"] else "wrong: refused"
    known = np.load(folder / "known.npy", allow_pickle=False) if job["known"] else measured(lambda: plain(data))[0]
    if isinstance(known, Exception):
        return f"wrong: read, but for an independent reader {known!r:.40}"
    if not same(decoded, known):
        return "wrong: other pixels"
    if taken and pixels < 10**5:
        made = measured(lambda: pipeline(path))[0]
        if isinstance(made, Exception) and not isinstance(made, UserError):
            return f"traceback in the pipeline: {made!r:.60}"
        if not isinstance(made, Exception) and np.asarray(made).shape[:2] != decoded.size:
            return "wrong: a result of another size"
    return "right"


def serve(folder: Path) -> None:
    """Read the files that are named on the standard input."""
    import torch

    from pix2pix_hub import Pix2PixPipeline
    from pix2pix_hub.ui import handlers  # noqa: F401  before memory is measured

    warnings.simplefilter("ignore")
    logging.disable()  # tifffile's, the independent reader's
    torch.set_num_threads(1)
    pipeline = Pix2PixPipeline.from_pretrained(folder / "export", device="cpu")
    gc.freeze()  # what is there already is not looked through again
    answers, sys.stdout = sys.stdout, sys.stderr
    for text in itertools.chain(["ready"], (judge(json.loads(line), pipeline, folder) for line in sys.stdin)):
        answers.write(text.replace("\n", " ") + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
