"""Torch files whose every bit is accounted for: sealed by a digest when written, checked before anything is parsed.

A sealed file is a torch zip file whose zip comment is ``MARK`` and the sha256 of all bytes before the digest. Zip tools
and ``torch.load`` read it like any other, mapped or not.
"""

import hashlib
import pickletools
import re
import zipfile
import zlib
from pathlib import Path

__all__ = ["Damaged", "check_torch_zip", "seal"]

MARK = b"sdn-seal sha256 "
DIGEST = 64
"""Hexadecimal digits behind the mark."""
END = b"PK\x05\x06"
END_SIZE = 22
"""The last record of a zip file and its size without a comment; its last two bytes are the length of the comment."""
BLOCK = 2**20
LOCAL = b"PK\x03\x04"
MOST_PICKLE = 2**28
"""Bytes of the pickle in a torch file; that of a network of 10,000 tensors has 1 MB."""
PLAIN = re.compile(
    r"collections OrderedDict|torch Size|torch (b?float|uint|int|complex)\d+|torch bool|torch [A-Z]\w*Storage"
    r"|torch\.storage (Untyped|Typed)Storage|torch\.serialization _get_layout|torch per_(tensor|channel)_affine"
    r"|torch\._utils _rebuild_(tensor_v[23]|parameter|sparse_tensor|qtensor|meta_tensor_no_storage)"
)
"""Names that a pickle of tensors and plain values asks for. ``torch.load`` knows more, some of which take memory."""


class Damaged(ValueError):
    """A file that cannot be trusted; the message is the reason only, without the name of the file."""


def seal(path: Path) -> None:
    """Put the digest of a torch file behind it, as the comment of the zip archive.

    Args:
        path: of a file that ``torch.save`` has just written.

    Raises:
        OSError: the disk is full.
    """
    with path.open("r+b") as file:
        file.seek(-END_SIZE, 2)
        if not file.read(4) == END:
            raise AssertionError("torch.save has written no zip file, or one with a comment")
        file.seek(-2, 2)
        file.write((len(MARK) + DIGEST).to_bytes(2, "little") + MARK)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, 2)
        file.write(digest.encode())


def check_torch_zip(path: Path) -> int:
    """Check a torch zip file before it is parsed; nothing in it is executed and no size in it is believed.

    A sealed file must be equal to its digest. Another one must have the CRC-32 of each member that it states. Members
    must not be packed, so that they take no more memory than the file has bytes, and the pickle may ask for nothing but
    tensors and plain containers.

    Args:
        path: of the file.

    Returns:
        bytes of the pickle.

    Raises:
        Damaged: anything else.
        OSError: the file cannot be read.
    """
    sealed = _check_seal(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            pickles = [m for m in members if m.filename.rpartition("/")[2] == "data.pkl"]
            _check_members(members, pickles, path.stat().st_size)
            if not sealed and (bad := archive.testzip()) is not None:
                raise Damaged(f"the checksum of {bad} does not fit")
            for found in _names(archive.read(pickles[0])):
                if not PLAIN.fullmatch(found):
                    raise Damaged(f"it holds a {found.replace(' ', '.')[:60]}, which is no plain value")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(f"its zip archive is damaged: {' '.join(str(error).split())[:80]}") from None
    return pickles[0].file_size


def _check_seal(path: Path) -> bool:
    """Whether the file is sealed; it is then equal to its digest."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - END_SIZE - len(MARK) - DIGEST))
        tail = file.read()
        mark, digest = tail[-len(MARK) - DIGEST : -DIGEST], tail[-DIGEST:]
        file.seek(0)
        if mark != MARK:
            if file.read(4) != LOCAL:
                raise Damaged("it does not start as a torch zip file does")
            if tail[-END_SIZE:][:4] != END or tail[-2:] != b"\0\0":
                raise Damaged("it does not end as a torch zip file does, so it is cut off or its end was changed")
            return False
        found, left = hashlib.sha256(), size - DIGEST
        while left:
            block = file.read(min(BLOCK, left))
            if not block:
                raise Damaged("it became shorter while it was read")
            found.update(block)
            left -= len(block)
    if found.hexdigest().encode() != digest:
        raise Damaged("its bytes are not those of its seal, so it was changed or damaged since it was written")
    return True


def _check_members(members: list[zipfile.ZipInfo], pickles: list[zipfile.ZipInfo], size: int) -> None:
    if len(pickles) != 1:
        raise Damaged("it has no data.pkl, or several")
    if packed := [
        m.filename for m in members if m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size
    ]:
        raise Damaged(f"its member {packed[0]} is packed, which torch never does")
    if sum(m.file_size for m in members) > size:
        raise Damaged(f"its members announce more bytes than the {size} of the file")
    if len({m.filename for m in members}) != len(members) or min(m.header_offset for m in members):
        raise Damaged("two of its members have the same name, or something stands before the first")
    if pickles[0].file_size > MOST_PICKLE:
        raise Damaged(f"its pickle has {pickles[0].file_size} bytes")


def _names(pickle: bytes) -> list[str]:
    """Everything that a pickle asks for, as module and name."""
    asks = {"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
    return [str(what) for code, what, _ in pickletools.genops(pickle) if code.name in asks]
