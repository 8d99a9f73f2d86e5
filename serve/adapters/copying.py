"""Copying an adapter out of a folder that others may change meanwhile."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NoReturn

from serve.adapters.base import hash_of_files
from serve.adapters.places import CONFIG, WEIGHTS
from serve.adapters.refusal import unfit
from serve.disk import sync, sync_folder

_PIECE = 1024 * 1024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_adapter(root: Path, adapter: Path, to: Path) -> str:
    """Copy an adapter's settings and weights, onto the disk.

    Whatever is put in place of a folder or file meanwhile: no link is followed, and the hash is of
    the bytes that were copied. Links beside the two files are left out.

    Args:
        root: the adapters' folder.
        adapter: a folder below it, without links.
        to: a folder of ours.

    Returns:
        The hash of all files in the adapter's folder, as `folder_hash`.

    Raises:
        AdapterRefused: one of the two is a link, or something can't be read.
    """
    hashes: dict[Path, str] = {}
    with _opened(root, adapter) as folder:
        for inside, _, names, descriptor in os.fwalk(".", dir_fd=folder, onerror=_refuse):
            for name in names:
                path = Path(inside, name)
                wanted = str(path) in (CONFIG, WEIGHTS)
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if wanted or stat.S_ISREG(found.st_mode):
                    with _open_file(name, descriptor, path) as file:
                        hashes[path] = _hash(file, to / name if wanted else None)
    sync_folder(to)
    return hash_of_files(hashes)


@contextmanager
def _opened(root: Path, folder: Path) -> Iterator[int]:
    descriptor = os.open(root, _READ | os.O_DIRECTORY)
    try:
        for part in folder.relative_to(root).parts:
            try:
                below = os.open(part, _READ | os.O_DIRECTORY, dir_fd=descriptor)
            except OSError as error:
                _refuse(error)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _open_file(name: str, folder: int, path: Path) -> BufferedReader:
    try:
        # Without waiting, which a pipe would do for its other end.
        file = os.fdopen(os.open(name, _READ | os.O_NONBLOCK, dir_fd=folder), "rb")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise unfit(f"its {path} is a link; put the file itself there.") from None
        raise unfit(f"its {path} can't be read: {error.strerror}.") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise unfit(f"its {path} is not a file.")
    return file


def _refuse(error: OSError) -> NoReturn:
    raise unfit(f"its folder can't be read: {error.strerror}.") from None


def _hash(file: BufferedReader, copy: Path | None) -> str:
    """The hash of a file's content; copies it if there is a place for it."""
    if copy is None:
        return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    with copy.open("wb") as written:
        while piece := file.read(_PIECE):
            digest.update(piece)
            written.write(piece)
        sync(written)
    return digest.hexdigest()
