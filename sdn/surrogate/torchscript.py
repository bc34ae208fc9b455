"""The tensors of a TorchScript archive by name, read without running its code or loading its pickle.

Such an archive is a zip file: code/ holds the program, data.pkl the modules as a pickle, and data/0, data/1, ... the
numbers. ``torch.jit.load`` compiles the program and ``pickle.load`` calls whatever a pickle names. Here the pickle is
followed instruction by instruction, by a machine that knows the few that torch writes and can call nothing.
"""

import io
import math
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from sdn.runs.tensor_files import Damaged

__all__ = ["LARGEST", "named_tensors"]

LARGEST, LARGEST_PICKLE, MOST_MEMBERS = 2**26, 2**18, 4096
"""Bytes of an archive, packed or unpacked; bytes of its data.pkl; members. A surrogate has 12 kB, 1 kB and 20."""
MOST_VALUES, DEEPEST, MOST_AXES = 10_000, 60, 8
"""Values in the modules, each as often as it is named; modules inside each other; axes of a tensor."""
AGAIN = "save it again with torch.jit.save(torch.jit.trace(module, example), path)"
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, struct.error, OverflowError, ValueError)
"""What `zipfile` raises for an archive that is damaged or encrypted."""
NUMPY = {"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "LongStorage": "i8"}
LISTS = {"build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag"}
"""How TorchScript writes down the types of its lists."""
MARK = object()
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": MARK}
EMPTY: dict[str, Any] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
Kind = TypeVar("Kind")


def named_tensors(content: bytes) -> dict[str, Tensor]:
    """The parameters and buffers in a TorchScript archive.

    Args:
        content: all bytes of a file of ``torch.jit.save``, from a trace or a script, also of one for mobile devices.

    Returns:
        name as in ``state_dict`` -> tensor of its own memory on the CPU. Constants have no names and are left out.

    Raises:
        Damaged: a ValueError whose message is the reason, without the name of the file: a plain pickle, a file of
            ``torch.save``, another zip file, damage, or sizes beyond `LARGEST`.
    """
    if not content.startswith(b"PK\3\4"):
        kind = "a plain pickle, which can run code when it is loaded" if content[:1] == b"\x80" else "no zip archive"
        raise Damaged(f"is {kind}; it was not opened. Expected TorchScript: {AGAIN}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = _members(archive)
            top = _top(members)
            order = members.get(f"{top}/byteorder")
            big = order is not None and order.file_size < 9 and archive.read(order).strip() == b"big"
            stored = dict(_walk(Machine().run(archive.read(members[f"{top}/data.pkl"]))))
            _check_amount(stored)
            files = {each.storage.key: f"{top}/data/{each.storage.key}" for each in stored.values()}
            numbers = {key: archive.read(file) for key, file in files.items() if file in members}
            return {name: _tensor(name, each, numbers, "<>"[big]) for name, each in stored.items()}
    except Damaged:
        raise
    except BROKEN as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise Damaged(f"is a zip archive that is damaged or cut off ({reason}); get the file again") from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by name. They announce few bytes, and `zipfile` reads no more of one than it announces."""
    every = archive.infolist()
    members = {member.filename: member for member in every}
    if not len(members) == len(every) <= MOST_MEMBERS:
        limit = f"at most {MOST_MEMBERS} are read, of different names"
        raise Damaged(f"has {len(every)} members of {len(members)} names, {limit}; {AGAIN}")
    if methods := {m.compress_type for m in every} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise Damaged(f"has members packed by the methods {sorted(methods)}, 0 and 8 are read; {AGAIN}")
    if odd := [name for name in members if re.search(r"^[/\\]|^.:|(^|[/\\])\.\.($|[/\\])", name)]:
        raise Damaged(f"has a member {odd[0][:80]!r}, which points out of the archive; get the file from its authors")
    if (size := sum(member.file_size for member in every)) > LARGEST:
        raise Damaged(f"has {size} bytes when unpacked, at most {LARGEST} are read; get the file from its authors")
    return members


def _top(members: Mapping[str, zipfile.ZipInfo]) -> str:
    """The folder in which everything in a TorchScript archive stands."""
    tops = [name.split("/")[0] for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if not tops and any(name.endswith("/model.json") for name in members):
        raise Damaged(f"is TorchScript of a torch before 1.4, which is not read; load it in an old torch and {AGAIN}")
    if len(tops) != 1:
        raise Damaged(f"is a zip archive with {len(tops)} data.pkl in its folders, TorchScript has one; {AGAIN}")
    if f"{tops[0]}/constants.pkl" not in members:
        way = "give what torch.load(path, weights_only=True) reads of a state dict to `of_published`, or"
        raise Damaged(f"is a file of torch.save, not TorchScript (it has no constants.pkl); {way} {AGAIN}")
    if (size := members[f"{tops[0]}/data.pkl"].file_size) > LARGEST_PICKLE:
        raise Damaged(f"has a data.pkl of {size} bytes, at most {LARGEST_PICKLE} are read; {AGAIN}")
    return tops[0]


class Name(NamedTuple):
    """What a pickle asks to import; never looked up."""

    module: str
    name: str


class Storage(NamedTuple):
    """Where numbers lie: the kind of storage, the member under data/, and how many there are."""

    kind: str
    key: str
    length: int


class Stored(NamedTuple):
    """A tensor as it is written; offset, sizes and strides count numbers."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(eq=False)
class Object:
    """A module or another object of TorchScript; nothing but what it holds."""

    state: dict[str, Any] = field(default_factory=dict)


def _walk(root: Object) -> Iterator[tuple[str, Stored]]:
    """Every tensor of a module and those inside it, by its dotted name."""
    open_, seen = [("", root, 0)], 0
    while open_:
        prefix, module, depth = open_.pop(0)
        for key, value in module.state.items():
            seen += 1
            if seen > MOST_VALUES or depth > DEEPEST:
                raise Damaged(f"has over {MOST_VALUES} values or {DEEPEST} modules inside each other; {AGAIN}")
            if isinstance(value, Stored):
                yield f"{prefix}{key}", value
            elif isinstance(value, Object):
                open_.append((f"{prefix}{key}.", value, depth + 1))


def _check_amount(stored: Mapping[str, Stored]) -> None:
    """Refuse tensors that show the same numbers over and over, each of which would take memory of its own."""
    if (size := 8 * sum(math.prod(each.size) for each in stored.values())) > LARGEST:
        raise Damaged(f"announces tensors of {size} bytes, at most {LARGEST} are read; get the file from its authors")


def _tensor(name: str, stored: Stored, numbers: Mapping[str, bytes], order: str) -> Tensor:
    storage, offset, size, stride = stored
    if storage.kind not in NUMPY:
        raise Damaged(f"holds {name} as {storage.kind[:40]!r}, known are {[*NUMPY]}; cast it with .float() and {AGAIN}")
    if storage.key not in numbers:
        raise Damaged(f"has no member data/{storage.key[:40]} for {name}; get the file again")
    dtype, content = np.dtype(order + NUMPY[storage.kind]), numbers[storage.key]
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if len(content) != dtype.itemsize * storage.length or max(last + 1, math.prod(size)) > storage.length:
        announced = f"{size} out of {storage.length} numbers of {dtype.itemsize} bytes"
        raise Damaged(f"announces {name} as {announced}, there are {len(content)} bytes; get the file again")
    whole = torch.from_numpy(np.frombuffer(content, dtype).astype(dtype.newbyteorder("=")))
    return whole.as_strided(size, stride, offset).clone()


class Machine:
    """Follows the few instructions of a pickle that TorchScript writes; it imports nothing and calls no object."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickle: bytes) -> Object:
        """The module that a pickle stands for; it holds plain values, `Object` and `Stored`.

        Raises:
            Damaged: another instruction, a name that no module needs, or no pickle at all.
        """
        try:
            for code, argument, _ in pickletools.genops(pickle):
                if code.name not in ("PROTO", "STOP") and not self._push(code.name, argument):
                    self._act(code.name)
            [root] = self._stack
            return _a(Object, root)
        except Damaged:
            raise
        except (ValueError, LookupError, TypeError) as error:
            reason = " ".join(str(error).split())[:80]
            raise Damaged(f"has a damaged data.pkl ({reason}); get the file again") from None

    def _push(self, code: str, argument: Any) -> bool:
        """Put a value on the stack, or note the topmost; False for an instruction that works on the stack."""
        if code in CONSTANTS:
            self._stack.append(CONSTANTS[code])
        elif code in EMPTY:
            self._stack.append(EMPTY[code]())
        elif code in ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"):
            self._stack.append(argument)
        elif code == "GLOBAL":
            self._stack.append(Name(*argument.split(" ")))
        elif code in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        else:
            return False
        return True

    def _act(self, code: str) -> None:
        pop, push = self._stack.pop, self._stack.append
        match code:
            case "TUPLE":
                push(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple([pop() for _ in range(int(code[-1]))][::-1]))
            case "SETITEM" | "SETITEMS":
                items = self._since_mark() if code == "SETITEMS" else [pop(), pop()][::-1]
                keys = [_a(str, key) for key in items[::2]]
                _a(dict, self._stack[-1]).update(zip(keys, items[1::2], strict=True))
            case "APPEND" | "APPENDS":
                items = self._since_mark() if code == "APPENDS" else [pop()]
                _a(list, self._stack[-1]).extend(items)
            case "BINPERSID":
                push(_storage(*pop()))
            case "NEWOBJ" | "REDUCE":
                arguments, name = _a(tuple, pop()), _a(Name, pop())
                push(_made(code, name, arguments))
            case "BUILD":
                state = _a(dict, pop())
                _a(Object, self._stack[-1]).state = state
            case _:
                raise Damaged(f"has a pickle with the instruction {code}, which TorchScript never writes; {AGAIN}")

    def _since_mark(self) -> list[Any]:
        items = []
        while (item := self._stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]


def _made(code: str, name: Name, arguments: tuple[Any, ...]) -> Any:
    """What torch would make of a name and arguments, made here."""
    if code == "NEWOBJ":
        if name.module.split(".")[0] == "__torch__" and not arguments:
            return Object()
    elif name in (Name("torch._utils", "_rebuild_tensor_v2"), Name("torch._utils", "_rebuild_tensor")):
        return _stored(*arguments[:4])
    elif name == Name("collections", "OrderedDict") and not arguments:
        return {}
    elif name.module == "torch.jit._pickle" and name.name in LISTS:
        return arguments[0]
    raise Damaged(
        f"asks for {'.'.join(name)[:60]!r}, which no network needs; nothing was run, do not load it otherwise"
    )


def _storage(word: Any, kind: Any, key: Any, device: Any, length: Any) -> Storage:
    """Numbers by what TorchScript writes of them; those of another device are read as well."""
    if word != "storage" or _a(Name, kind).module != "torch":
        raise TypeError(f"no storage: {word}")
    return Storage(kind.name, _a(str, key), _counts((length,))[0])


def _stored(storage: Any, offset: Any, size: Any, stride: Any) -> Stored:
    found = Stored(_a(Storage, storage), _counts((offset,))[0], _counts(size), _counts(stride))
    if not len(found.size) == len(found.stride) <= MOST_AXES or 0 in found.size:
        raise ValueError(f"a tensor of size {found.size} and strides {found.stride}")
    return found


def _counts(values: Any) -> tuple[int, ...]:
    if not all(type(value) is int and 0 <= value <= LARGEST for value in _a(tuple, values)):
        raise ValueError(f"{str(values)[:40]} where counts belong")
    return tuple(values)


def _a(kind: type[Kind], value: Any) -> Kind:
    """The value, which is of this kind or the pickle is damaged."""
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value
