"""Paths are URLs: a local path, or anything fsspec opens (`s3://…`, `memory://…`).

Whatever is written is written beside its place, flushed, and renamed: a file that is there is whole.
"""

from __future__ import annotations

import contextlib
import errno
import glob as local_glob
import hashlib
import io
import os
import posixpath
from collections.abc import Iterator
from typing import IO, Any

from shards.core.errors import UsageError

LOCK = ".lock"  # the file that a process holds while it writes a folder
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_READ_BUFFER = 128 * 2**10


def is_remote(path: str) -> bool:
    """Return whether a path goes through fsspec."""
    return "://" in path


def _remote(path: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.core.url_to_fs(path)  # type: ignore[no-any-return]


def join(folder: str, *names: str) -> str:
    """Join path parts with `/`; an absolute last part wins, as in os.path.join."""
    return posixpath.join(folder, *names)


def exists(path: str) -> bool:
    """Return whether a file or folder is there."""
    if is_remote(path):
        fs, name = _remote(path)
        return bool(fs.exists(name))
    return os.path.exists(path)


def is_dir(path: str) -> bool:
    """Return whether a path is a folder."""
    if is_remote(path):
        fs, name = _remote(path)
        return bool(fs.isdir(name))
    return os.path.isdir(path)


def size(path: str) -> int:
    """Return a file's size in bytes."""
    if is_remote(path):
        fs, name = _remote(path)
        return int(fs.size(name))
    return os.path.getsize(path)


def make_dirs(path: str) -> list[str]:
    """Make a folder and its parents; it may be there already. Returns the local folders that were not there, the outermost first.

    Raises:
        UsageError: a file or a dangling link stands in the way.
    """
    if is_remote(path):
        fs, name = _remote(path)
        fs.makedirs(name, exist_ok=True)
        return []
    missing = _missing(path)
    try:
        os.makedirs(path, exist_ok=True)
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        where = missing[0]
        if not os.path.lexists(where):
            raise
        kind = "a link to nothing" if os.path.islink(where) else "a file"
        raise UsageError(f"{path!r} can be no folder: {where!r} is {kind}", "a folder, or a name that is free") from error
    return missing


def _missing(path: str) -> list[str]:
    """Return which of a folder and its parents are no folders, the outermost first."""
    missing: list[str] = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path.rstrip("/"))
    return missing[::-1]


def remove(path: str) -> None:
    """Remove a file or a whole folder; nothing happens where there is none."""
    if not exists(path):
        return
    if is_remote(path):
        fs, name = _remote(path)
        fs.rm(name, recursive=True)
    elif os.path.isdir(path):
        import shutil

        shutil.rmtree(path)
    else:
        os.remove(path)


def move(path: str, target: str) -> None:
    """Move a file over another one, or to where none is."""
    if is_remote(path):
        fs, name = _remote(path)
        fs.mv(name, _remote(target)[1])
    else:
        os.replace(path, target)


def names(folder: str) -> list[str]:
    """Return the sorted names in a folder; an absent folder has none."""
    if not exists(folder):
        return []
    if is_remote(folder):
        fs, name = _remote(folder)
        return sorted({posixpath.basename(p.rstrip("/")) for p in fs.ls(name, detail=False)})
    return sorted(os.listdir(folder))


def find(pattern: str) -> list[str]:
    """Return the sorted files that a path, a folder or a glob names (`**` and `{00000..00012}` work too).

    Raises:
        UsageError: nothing is there.
    """
    paths: list[str] = []
    for alternative in _braces(pattern):
        paths += _matches(alternative)
    if not paths:
        raise UsageError(f"no file at {pattern!r}", "a file, a folder, or a glob in quotes")
    return sorted(set(paths))


def _braces(pattern: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]
    from braceexpand import braceexpand

    return list(braceexpand(pattern))


def _matches(path: str) -> list[str]:
    if is_remote(path):
        fs, name = _remote(path)
        protocol = path.partition("://")[0]
        if fs.isdir(name):
            hits = fs.find(name)
        else:
            hits = [name] if fs.exists(name) else fs.glob(name)
        return [f"{protocol}://{h.lstrip('/') if protocol == 'memory' else h}" for h in hits]
    if os.path.isdir(path):
        return [join(path, name) for name in walk(path)]
    if os.path.exists(path):
        return [path]
    return [p for p in local_glob.glob(path, recursive=True) if os.path.isfile(p)]


def walk(folder: str) -> list[str]:
    """Return the sorted names of all files under a folder, relative to it, with `/` between parts.

    Linked folders are followed, as torchvision's ImageFolder does; a link to a folder that it lies in is not.

    Raises:
        UsageError: there is no such folder, or a part of it cannot be read.
    """
    if is_remote(folder):
        fs, name = _remote(folder)
        root = name.rstrip("/") + "/"
        return sorted(p.removeprefix(root) for p in fs.find(name))
    relative_names = []
    above = {folder: frozenset([os.path.realpath(folder)])}  # of each folder to come: where it and those around it really lie
    for root, folders, files in os.walk(folder, onerror=_unreadable, followlinks=True):
        around = above.pop(root)
        for name in list(folders):
            path = os.path.join(root, name)
            place = os.path.realpath(path)
            if place in around:
                folders.remove(name)
            above[path] = around | {place}
        inner = os.path.relpath(root, folder).replace(os.sep, "/")
        relative_names += files if inner == "." else [f"{inner}/{name}" for name in files]
    return sorted(relative_names)


def _unreadable(error: OSError) -> None:
    raise UsageError(f"cannot read the folder {error.filename!r}: {error.strerror}", "a readable folder") from error


class _Named(io.FileIO):
    """A local file whose errors say which file it is: the system's own say so on opening alone."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "r")
        self.path = path

    def readinto(self, buffer: Any) -> int | None:  # type: ignore[override]
        with naming(self.path):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with naming(self.path):
            return super().readall()


@contextlib.contextmanager
def naming(path: str, *others: str) -> Iterator[None]:
    """Let an error of the system that leaves the block name the file `path`; without a name, or with one of `others`, it helps nobody."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, *others):
            error.filename = path
        raise


def open_read(path: str) -> IO[bytes]:
    """Open a file for reading bytes."""
    if is_remote(path):
        fs, name = _remote(path)
        return fs.open(name, "rb")  # type: ignore[no-any-return]
    return io.BufferedReader(_Named(path), _READ_BUFFER)


def read_bytes(path: str) -> bytes:
    """Return a whole file."""
    with open_read(path) as file:
        return file.read()


def read_text(path: str) -> str:
    """Return a whole UTF-8 file; a byte-order mark is dropped."""
    return read_bytes(path).decode("utf-8-sig")


def printable(name: str) -> str:
    """Return a file name as text that any file can hold; bytes that are no UTF-8 are shown escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_range(path: str, offset: int, length: int) -> bytes:
    """Return `length` bytes from `offset` on; all the rest where the length is negative."""
    if is_remote(path):
        fs, name = _remote(path)
        return fs.cat_file(name, offset, offset + length if length >= 0 else None)  # type: ignore[no-any-return]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            return os.pread(descriptor, length if length >= 0 else os.fstat(descriptor).st_size - offset, offset)
    finally:
        os.close(descriptor)


class Ranges:
    """Reads byte ranges into buffers; the local files that it read last stay open."""

    MOST = 64

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def read_into(self, place: memoryview, path: str, offset: int) -> int:
        """Fill `place` with the bytes from `offset` on; returns how many there were."""
        if is_remote(path):
            content = read_range(path, offset, len(place))
            place[: len(content)] = content
            return len(content)
        if path not in self._open:
            if len(self._open) >= self.MOST:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[path] = os.open(path, os.O_RDONLY)
        with naming(path):
            return os.preadv(self._open[path], [place], offset)

    def __enter__(self) -> Ranges:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under its name only when the block ends well.

    On an error the half-written file is removed and the error goes on.
    """
    folder, _, name = path.rpartition("/")
    temporary = f"{folder + '/' if folder else ''}.{name}.tmp-{os.getpid()}"
    if is_remote(path):
        fs, target = _remote(path)
        _, beside = _remote(temporary)
        try:
            with fs.open(beside, "wb") as file:
                yield file
            fs.mv(beside, target)
        except BaseException:
            if fs.exists(beside):
                fs.rm(beside)
            raise
        return
    try:
        with naming(path, temporary):  # writing names no file, and nobody knows the temporary name
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what is told
            os.remove(temporary)
        raise


@contextlib.contextmanager
def locked(folder: str, name: str = LOCK) -> Iterator[None]:
    """Hold a folder for this process alone while the block runs. A process that dies leaves no lock behind.

    A folder that is not there is made, and goes again if the block leaves it empty. An object store knows no locks, and some
    network disks know none: there nothing is held.

    Raises:
        UsageError: another process holds it, or the folder is a file or a dangling link.
    """
    if is_remote(folder):
        yield
        return
    made: list[str] = []
    path = join(folder, name)
    try:
        file = _take(folder, name, made)
        if file is None:
            problem = f"{folder}: another process is writing here"
            raise UsageError(problem, "one command at a time in a folder", "wait for it, or another folder")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.remove(path)
            file.close()
    finally:
        for folder_made in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(folder_made)


def _take(folder: str, name: str, made: list[str]) -> IO[bytes] | None:
    """Return the lock file of a folder, open and locked, or None where another process holds it.

    `made` gets the folders that had to be made for it.
    """
    import fcntl

    path = join(folder, name)
    while True:
        made += make_dirs(folder)
        try:
            file = open(path, "ab")  # noqa: SIM115  the caller closes it
        except FileNotFoundError:
            if not os.path.lexists(path):
                continue  # the holder of before has taken the folder away since it was made
            raise
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return file
            file.close()
            raise
        if _is_at(file, path):
            return file
        file.close()


def _is_at(file: IO[bytes], path: str) -> bool:
    """Return whether an open file is the one at `path`: its holder of before may have removed it since it was opened,
    and then its lock would hold nobody off."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def write_bytes(path: str, content: bytes) -> None:
    """Write a whole file at once, atomically."""
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: str, text: str) -> None:
    """Write a whole UTF-8 file at once, atomically."""
    write_bytes(path, text.encode())


def sha256(path: str) -> str:
    """Return a file's sha256 in hex, reading it in pieces."""
    with open_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def identity(path: str) -> list[Any]:
    """Return what tells a container's version without reading it: name, size, and mtime in ns where there is one."""
    if is_remote(path):
        fs, name = _remote(path)
        info = fs.info(name)
        stamp = info.get("ETag") or info.get("mtime") or info.get("created") or ""
        return [posixpath.basename(name), int(info["size"] or 0), str(stamp)]
    status = os.stat(path)
    return [os.path.basename(path), status.st_size, status.st_mtime_ns]


def relative(path: str, base: str) -> str:
    """Return `path` relative to the folder `base`, with `/` between parts."""
    if is_remote(path) or is_remote(base):
        return posixpath.relpath(path.partition("://")[2], base.partition("://")[2])
    return os.path.relpath(path, base).replace(os.sep, "/")
