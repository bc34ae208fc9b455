"""Packed files from anywhere: read to their checksums, and never to more memory than data can need."""

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

__all__ = ["BLOCK", "check_expansion", "one_line", "read_packed", "tar_members", "unpacked"]

BLOCK = 2**20
ALWAYS, RATIO = 2**26, 100
"""Up to ALWAYS bytes may come out of any file, and RATIO times as many bytes as it has; data are not packed tighter."""
XZ_MEMORY = 2**28
"""Bytes that an xz file may ask for to be unpacked; xz -9 asks for 65 MiB."""
MEMBER = 2**30
"""Bytes of one member of an archive; a batch of CIFAR-10 has 31 MB."""


def check_expansion(came: int, packed: int) -> None:
    """Refuse more bytes out of a packed file than data can be packed to.

    Args:
        came: bytes that came out so far, or that are announced.
        packed: bytes of the file.

    Raises:
        ValueError: without the name of the file.
    """
    if came > max(ALWAYS, RATIO * packed):
        raise ValueError(f"it unpacks to more than {RATIO} times its {packed} bytes, which no data do; unpack it first")


def one_line(error: BaseException) -> str:
    """What an error says, short and in one line; its kind where it says nothing."""
    return " ".join(str(error).split())[:120] or type(error).__name__


@contextmanager
def unpacked(path: str | Path) -> Iterator[IO[bytes]]:
    """The content of a file, unpacked while it is read where it is packed with gzip or xz.

    What is read is compared with the checksum of the file only at its end, so read on until nothing comes.

    Raises:
        OSError: the file cannot be opened.
        Exception: what damaged bytes make `gzip` and `lzma` raise, and ValueError of `check_expansion`.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(6)
        file.seek(0)
        if head[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as stream:
                yield cast(IO[bytes], io.BufferedReader(_Counted(stream, size), BLOCK))
        elif head == b"\xfd7zXZ\x00":
            yield cast(IO[bytes], io.BufferedReader(_Counted(_Xz(file), size), BLOCK))
        else:
            yield file


def read_packed(path: str | Path) -> bytes:
    """All bytes of a file, unpacked where it is packed with gzip or xz.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, cut short, or packed tighter than data can be.
    """
    try:
        with unpacked(path) as stream:
            return stream.read()
    except FileNotFoundError:
        raise
    except Exception as error:  # gzip, zlib and lzma raise what damaged bytes make them raise
        raise ValueError(f"{path}: damaged gzip or xz file ({one_line(error)}); copy or download it again.") from None


def tar_members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wanted files in a tar archive, plain or packed, in one pass to its very end.

    Args:
        path: of the archive.
        wanted: whether to read the file of this name.

    Raises:
        OSError: the file cannot be opened.
        ValueError: no tar archive, one that is damaged or cut short, or packed tighter than data can be.
    """
    try:
        _check_end(path)
        # In one pass: tarfile's reader that seeks believes sizes, and takes a packed file that is cut for a whole one.
        with unpacked(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isfile() and wanted(member.name):
                    yield member.name, _content(archive, member)
            while stream.read(BLOCK):  # to the checksum at its end
                pass
    except FileNotFoundError:
        raise
    except Exception as error:  # gzip, lzma and tarfile raise what damaged bytes make them raise
        if isinstance(error, PermissionError) or str(path) in str(error):
            raise
        reason = one_line(error)
        raise ValueError(
            f"{path}: not a whole tar archive (damaged archive: {reason}); copy or download it again."
        ) from None


def _check_end(path: Path) -> None:
    """Refuse a plain archive that does not end in two blocks of zeros; a packed one ends in its checksum."""
    with path.open("rb") as file:
        if file.read(2) in (b"\x1f\x8b", b"\xfd7"):
            return
        file.seek(max(0, path.stat().st_size - 1024))
        if any(file.read()):
            raise tarfile.ReadError("it does not end in two blocks of zeros")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MEMBER or member.sparse is not None:
        raise ValueError(f"{member.name} announces {member.size} bytes")
    data = cast(IO[bytes], archive.extractfile(member)).read()
    if len(data) != member.size:
        raise EOFError(f"{member.name} is cut short")
    return data


class _Counted(io.RawIOBase):
    """A stream that counts what comes out of it, and refuses more than data can be packed to."""

    def __init__(self, stream: Any, packed: int) -> None:
        self.stream, self.packed, self.came = stream, packed, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a part of the buffer."""
        data = self.stream.read(len(buffer))
        self.came += len(data)
        check_expansion(self.came, self.packed)
        buffer[: len(data)] = data
        return len(data)


class _Xz:
    """An xz file of one or several streams; unlike `lzma.open`, which takes the memory that the file asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.decoder = file, self._new()

    def read(self, size: int) -> bytes:
        """At least one byte and at most ``size``, none at the end."""
        while True:
            if self.decoder.eof:
                rest = self.decoder.unused_data or self.file.read(BLOCK)
                rest = rest.lstrip(b"\0")  # padding between streams
                if not rest:
                    if not (more := self.file.read(BLOCK)):
                        return b""
                    rest = more
                self.decoder = self._new()
            elif self.decoder.needs_input:
                if not (rest := self.file.read(BLOCK)):
                    raise EOFError("the file ended before its end-of-stream marker")
            else:
                rest = b""
            if data := self.decoder.decompress(rest, size):
                return data

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
