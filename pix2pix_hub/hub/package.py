"""This package, as others get it: files in a Space, and a wheel beside a model."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
from functools import cache
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from pix2pix_hub.util import __version__

PACKAGE = Path(__file__).parents[1]
SUFFIXES = (".py", ".css", ".html", ".js", ".md", ".typed")
NOT_SHIPPED = "assets"  # folder of the models that the package brings
WHEEL_NAME = f"pix2pix_hub-{__version__}-py3-none-any.whl"


def package_files() -> dict[str, bytes]:
    """Path → content of the package's files, without its models."""
    return {
        path.relative_to(PACKAGE.parent).as_posix(): path.read_bytes()
        for path in sorted(PACKAGE.rglob("*"))
        if path.suffix in SUFFIXES and path.is_file() and path.relative_to(PACKAGE).parts[0] != NOT_SHIPPED
    }


@cache
def wheel() -> bytes | None:
    """The package without its models as pip takes it (PEP 427), the same bytes for the same files; None where it runs
    without being installed, and nobody knows what it needs."""
    try:
        installed = importlib.metadata.distribution("pix2pix_hub")
    except importlib.metadata.PackageNotFoundError:
        return None
    info, files = f"pix2pix_hub-{__version__}.dist-info", package_files()
    # an editable installation may be found by its egg-info, where metadata have another name
    files[f"{info}/METADATA"] = (installed.read_text("METADATA") or installed.read_text("PKG-INFO") or "").encode()
    files[f"{info}/entry_points.txt"] = (installed.read_text("entry_points.txt") or "").encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: pix2pix_hub\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = f"{info}/RECORD,,\n"
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    stream = io.BytesIO()
    with ZipFile(stream, "w") as archive:
        for name, content in (files | {f"{info}/RECORD": record.encode()}).items():
            archive.writestr(ZipInfo(name), content, ZIP_DEFLATED)
    return stream.getvalue()
