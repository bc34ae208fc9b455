"""Whether a result that was read from a file holds the kinds of values that a report shows."""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["wrong_value"]

NO_NUMBERS = {"spike_rates", "spikes_by_layer", "sops_by_layer", "energy", "not_counted", "by_class"}
"""What of a test is a mapping or a list."""


def wrong_value(result: Mapping[str, Any], kind: str) -> str | None:
    """The first value of another kind than `spikingssm.reports.tables` shows, in words; None if there is none.

    Args:
        result: as it was read, with all keys of its kind.
        kind: "run", "study" or "SDN".
    """
    if kind == "run":
        optional = {name: is_right for name, is_right in _OPTIONAL.items() if name in result}
        return _first(result, _RUN | optional) or _first(
            result["test"], dict.fromkeys(set(result["test"]) - NO_NUMBERS, _number)
        )
    if kind != "study" or result["study"] != "solver-swap":
        return None
    rows = result["rows"]
    if wrong := _first(result, {"name": _text, "seed": _count, "dataset": _mapping}):
        return wrong
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return "rows are no list of mappings"
    for row in rows:
        wrong = _first(row, {"rows": _count, "neuron": _text, "metrics": _mapping, "spike_rate": _number})
        wrong = wrong or _first(row["metrics"], dict.fromkeys(row["metrics"], _number))
        for part in ("network", "layer") if "agreement" in row else ():
            layers = row["agreement"].get(part) if isinstance(row["agreement"], dict) else None
            scores = {"agreement": _part, "f1": _part} if part == "network" else {"agreement": _part}
            if not isinstance(layers, dict) or not all(isinstance(layer, dict) for layer in layers.values()):
                return f"agreement of the {part} is no mapping of mappings"
            wrong = wrong or next(filter(None, (_first(layer, scores) for layer in layers.values())), None)
        if wrong:
            return wrong
    return _first(result["dataset"], {"size": _text})


def _first(values: Mapping[str, Any], kinds: Mapping[str, Callable[[Any], bool]]) -> str | None:
    for name, is_right in kinds.items():
        if not is_right(values.get(name)):
            return f"{name} is {str(values.get(name))[:40]!r}"
    return None


def _number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64)


def _part(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 1000 and value.isprintable()


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _dataset(value: Any) -> bool:
    parts = {"name": _text, "size": _text, **dict.fromkeys(("train", "val", "test"), _count)}
    return isinstance(value, dict) and _first(value, parts) is None


def _chosen(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_number, value.values()))


def _test(value: Any) -> bool:
    return isinstance(value, dict) and _number(value.get("spike_rate"))


_RUN: dict[str, Callable[[Any], bool]] = {
    "name": _text, "seed": _count, "parameters": _count, "epochs": _count, "solver": _text, "seconds": _number,
    "device": _text, "dataset": _dataset, "test": _test,
}  # fmt: skip
_OPTIONAL: dict[str, Callable[[Any], bool]] = {"variant": _text, "cpu_minutes": _number, "val": _chosen}
