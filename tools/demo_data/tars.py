"""Writes the tars of the demo data, reproducibly to the byte."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def write_tar(path: Path, contents: Iterable[tuple[str, bytes]]) -> None:
    """Writes a tar of the named contents in their order, without times and owners."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in contents:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(content))
