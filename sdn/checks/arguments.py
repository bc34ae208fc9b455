"""What a wrong argument is answered with: one sentence that names the right spelling."""

import dataclasses
import difflib
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sdn.checks.libraries import library_of, migrated, named_there
from sdn.checks.words import Words

__all__ = [
    "ArgumentError",
    "FrozenValue",
    "Spelled",
    "check_kind",
    "check_tensor",
    "check_uncompiled",
    "init_fields",
    "not_a_value",
    "plain_number",
    "shown",
    "told",
]


class ArgumentError(TypeError, ValueError):
    """An argument that does not exist, or one of the wrong kind.

    Python raises TypeError for such calls, and everything else here that is wrong with a value is a ValueError, which
    the commands turn into one line. Code that expects either of them is right.
    """


class Spelled:
    """Base of what users construct by keywords: an unknown one is answered with the one that was meant.

    ``spellings`` maps words of other libraries to what is written here. In it ``{value}`` stands for the value given
    and ``{minus}`` for its negative; what begins with "leave" has no counterpart. The words of base classes count too.
    """

    spellings: ClassVar[Words] = {}

    if not TYPE_CHECKING:  # where `__init__` says what there is

        def __new__(cls, *args: Any, **named: Any) -> Any:  # noqa: D102
            if not torch.compiler.is_compiling():
                if named:
                    _refuse_unknown(cls, named)
                if args or named:
                    _refuse_places(cls, args, named)
                _refuse_words(cls, args, named)
            return super().__new__(cls)


class FrozenValue(Spelled):
    """Base of the frozen dataclasses that users write: neurons, spike gradients and solvers.

    Before the ``__post_init__`` of the class, numbers of NumPy and tensors of one number become Python's.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = cls.__dict__.get("__post_init__")
        if own is None:
            return

        @functools.wraps(own)
        def after_init(self: Any, *init: Any) -> None:
            changed = self._convert()
            own(self, *init)
            if changed and not init:
                self._try(changed)

        cls.__post_init__ = after_init  # type: ignore[method-assign]

    def __post_init__(self, *init: Any) -> None:
        if (changed := self._convert()) and not init:
            self._try(changed)

    def _convert(self) -> list[str]:
        """Put what `_converted` makes of each field in its place; the names of those that it changed."""
        changed: list[str] = []
        if torch.compiler.is_compiling():
            return changed
        for name in init_fields(self):
            given = getattr(self, name)
            if type(given) not in (float, int, bool, str):
                value = self._converted(name, given)
                if value is not given:
                    object.__setattr__(self, name, value)
                    changed.append(name)
        return changed

    def _converted(self, name: str, value: Any) -> Any:
        """The value of a field as the class keeps it."""
        if isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad and not value.is_meta:
            return value.item()
        return plain_number(value)

    def _try(self, changed: list[str]) -> None:
        """Look at the values of fields that were changed, once the class has looked at all."""


def init_fields(value: Any) -> list[str]:
    """The fields of a dataclass, or of one of its values, that its constructor takes."""
    if torch.compiler.is_compiling():
        return [f.name for f in dataclasses.fields(value) if f.init]
    return _init_fields(value if isinstance(value, type) else type(value))


@functools.cache
def _init_fields(kind: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if f.init]


def plain_number(value: Any) -> Any:
    """A NumPy number or array of one number without axes as Python's; anything else as it is."""
    return (
        value.item() if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim) else value
    )


def not_a_value(who: str, name: str, value: Any, kind: str, such_as: str, fits: bool, words: Mapping[str, str]) -> str:
    """The sentence about an argument that is no value of the kind asked for, above all a class or a word.

    Args:
        who: what was called.
        name: of the argument.
        value: what was given.
        kind: what is asked for.
        such_as: an example of it, as it is written.
        fits: whether ``value`` is a class whose values would do.
        words: small letters -> what such a word means, as it is written.
    """
    asked = f"{who}: {name} must be {kind}, such as {such_as}"
    if library := library_of(value):
        return f"{asked}, got {named_there(value)} of {library}; write {migrated(library, name)}."
    if isinstance(value, type):
        ours = "sdn." if value.__module__.split(".")[0] == "sdn" else ""
        write = f"{ours}{value.__name__}()" if fits else such_as
        return f"{asked}, got the class {value.__name__}; write {write}."
    if isinstance(value, str):
        write = words.get(re.sub(r"[^a-z]", "", value.lower()), such_as)
        return f"{asked}, got the word {value!r}; write {write}."
    what = _kind(value) if callable(value) else told(value)
    return f"{asked}, got {what}."


def check_tensor(who: str, name: str, value: Any) -> None:
    """Refuse what is no tensor: arrays, lists, and what a layer returned with its state.

    Raises:
        ArgumentError: no tensor; the sentence says how to make one.
    """
    if isinstance(value, Tensor):
        return
    kind = type(value).__name__
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        raise ArgumentError(
            f"{who}: {name} must be a tensor, got a {kind} that starts with one; layers return (output, state), pass "
            "the first of it."
        )
    raise ArgumentError(
        f"{who}: {name} must be a tensor, got {kind}; make one with torch.as_tensor({name}, dtype=torch.float32)."
    )


def check_count(who: str, name: str, value: Any, least: int | None = 1) -> None:
    """Refuse what is no whole number >= ``least``.

    Raises:
        ArgumentError: no whole number.
        ValueError: a number below ``least``.
    """
    if isinstance(value, (bool, Tensor)) or not hasattr(type(value), "__index__"):
        raise ArgumentError(f"{who}: {name} must be a whole number, got {shown(value)}.")
    if least is not None and value < least:
        raise ValueError(f"{who}: {name} must be at least {least}, got {value}.")


def check_learn(who: str, learn: Any) -> None:
    """Refuse what does not map the fields to learn to where they start.

    Raises:
        ArgumentError: another kind of thing; the sentence says what to write.
    """
    if learn is None or isinstance(learn, Mapping):
        return
    names = [learn] if isinstance(learn, str) else learn if isinstance(learn, (list, tuple, set)) else []
    write = "{" + ", ".join(f"{name!r}: None" for name in names) + "}" if names else '{"threshold": None}'
    raise ArgumentError(f"{who}: learn must map fields to where they start, got {shown(learn)}; write learn={write}.")


def check_kind(who: str, state: Any, kind: type) -> None:
    """Refuse a state of another layer.

    Raises:
        ArgumentError: it is neither None nor of this kind.
    """
    if state is not None and not isinstance(state, kind):
        raise ArgumentError(
            f"{who}: the state must be the {kind.__name__} that this layer returned, or None for rest, got "
            f"{type(state).__name__}."
        )


def check_uncompiled(who: str, model: Any) -> None:
    """Refuse what `torch.compile` returns, whose calls run past the hooks of its parts.

    Raises:
        ArgumentError: it says which module to watch.
    """
    if hasattr(model, "_orig_mod"):
        raise ArgumentError(
            f"{who}: what torch.compile gives cannot be watched; give and call the module that was compiled."
        )


def shown(value: Any) -> str:
    """A value for a call: its repr where that is short, else three dots."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else "..."


def told(value: Any) -> str:
    """A value for a sentence: its repr where that is short, else its kind."""
    text = shown(value)
    return _kind(value) if text == "..." else text


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _refuse_unknown(cls: type, named: Mapping[str, Any]) -> None:
    accepted = _accepted(cls.__init__)  # type: ignore[misc]
    if accepted is None or named.keys() <= accepted.keys():
        return
    unknown = [name for name in named if name not in accepted]
    meant = [text for name in unknown if (text := _meant(cls, name, named[name], list(accepted))) is not None]
    write, leave = ([text for text in meant if text.startswith("leave") is out] for out in (False, True))
    ways = [f"write {' and '.join(dict.fromkeys(write))}"] if write else []
    ways += leave
    ways += [f"it takes {', '.join(accepted)}"] if len(meant) < len(unknown) else []
    words = f"unexpected keyword argument{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}"
    raise ArgumentError(f"{cls.__name__}: {words}; {'; '.join(ways)}.")


def _refuse_places(cls: type, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Raise where there are too many arguments without a name, or where one is missing."""
    by_place, by_name, needed = _places(cls.__init__)  # type: ignore[misc]
    if by_place is None:
        return
    name = cls.__name__
    if len(args) > len(by_place):
        rest = f"; write the others by name: {', '.join(f'{n}=...' for n in by_name)}" if by_name else ""
        first = f"{name}: takes {', '.join(by_place)} without their names, got {len(args)} values"
        raise ArgumentError(f"{first}{rest}.")
    given = {*by_place[: len(args)], *named}
    if missing := [n for n in needed if n not in given]:
        example = ", ".join(f"{n}=..." if n in by_name else n for n in needed)
        raise ArgumentError(f"{name}: {' and '.join(missing)} missing; write {name}({example}).")


@functools.cache
def _places(init: Callable[..., Any]) -> tuple[list[str] | None, list[str], list[str]]:
    """Arguments of a constructor that go by place, those that go by name only, and those that must be given."""
    parameters = list(inspect.signature(init).parameters.values())[1:]
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return None, [], []
    by_name = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
    by_place = [p.name for p in parameters if p.kind != p.KEYWORD_ONLY]
    return by_place, by_name, [p.name for p in parameters if p.default is p.empty]


def _refuse_words(cls: type, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Raise where a switch is no bool: every word but "" would switch it on."""
    for place, name in _switches(cls.__init__):  # type: ignore[misc]
        value = named[name] if name in named else args[place] if place < len(args) else False
        if not isinstance(value, (bool, np.bool_)) and not (isinstance(value, int) and value in (0, 1)):
            raise ArgumentError(f"{cls.__name__}: {name} must be True or False, got {shown(value)}.")


@functools.cache
def _switches(init: Callable[..., Any]) -> tuple[tuple[int, str], ...]:
    """Place and name of the arguments of a constructor that are bools."""
    parameters = list(inspect.signature(init).parameters.values())[1:]
    return tuple((place, p.name) for place, p in enumerate(parameters) if p.annotation in (bool, "bool"))


@functools.cache
def _accepted(init: Callable[..., Any]) -> dict[str, None] | None:
    """The keywords of a constructor in their order, or None where it takes any."""
    parameters = list(inspect.signature(init).parameters.values())[1:]
    if any(p.kind == p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name: None for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def field_meant(cls: type, name: str) -> str | None:
    """The field or keyword of a class that a word of another library stands for, None if it stands for none."""
    known = _known(cls)
    text: Any = known.get(name, known.get(name.lower(), ""))
    found = re.match(r"(\w+)=", text) if isinstance(text, str) else None
    return str(found[1]) if found else None


def _known(cls: type) -> dict[str, Any]:
    """Its spellings and those of its bases."""
    known: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        known |= base.__dict__.get("spellings", {})
    return known


def _meant(cls: type, name: str, value: Any, accepted: list[str]) -> str | None:
    """What an unknown keyword stands for, as it is written here."""
    known, field = _known(cls), field_meant(cls, name)
    found = known.get(name, known.get(name.lower()))
    text: str | None = found(value) if callable(found) else found
    if text is not None and (field is None or field in accepted):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return text.replace("{value}", shown(value)).replace("{minus}", shown(-value) if number else f"-{shown(value)}")
    close = difflib.get_close_matches(name.lower(), accepted, 1, 0.7)
    return f"{close[0]}={shown(value)}" if close else None
