"""A file system that can share blocks, where this machine lets us make one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reflink_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on an XFS image of 320 MB, mounted for the session."""
    if not shutil.which("mkfs.xfs") or not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip("reflinks: needs root and mkfs.xfs to mount an image")
    folder = tmp_path_factory.mktemp("reflink")
    image, mounted = folder / "image", folder / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    mount = subprocess.run(["mount", "-o", "loop", image, mounted], check=False)
    if mount.returncode:
        pytest.skip("reflinks: this machine does not mount images")
    yield mounted
    subprocess.run(["umount", mounted], check=True)
    image.unlink()
