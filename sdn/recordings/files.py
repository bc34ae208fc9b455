"""Recordings in files: `load_recording` for .npz, .csv and NWB 2; what is damaged is refused in one line."""

import csv
import json
import math
import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from sdn.checks.arguments import shown
from sdn.recordings.data import FORMAT, Recording
from sdn.recordings.nwb import read_nwb
from sdn.runs.files import check_regular

__all__ = ["load_recording"]

LARGEST = 2**31
"""Bytes of the numbers of one file."""
DAMAGED = zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, NotImplementedError, MemoryError
COLUMN = re.compile(r"(time|current|voltage|spikes?|sweep|family)(?:[ _]*[\[(]?([A-Za-z/0-9]+)[\])]?)?")
MILLISECONDS = {"s": 1e3, "ms": 1.0, "us": 1e-3}


def load_recording(path: str | os.PathLike[str], **overrides: Any) -> Recording:
    """A recording from a file, checked as `Recording.of` checks it.

    ``.npz``: the arrays current and spikes, times or voltage, and dt, or what `Recording.save` wrote. Pickles are never
    read. ``.csv``: the columns time, current and voltage or spike, and sweep and family where there are several; a
    header may name the unit, as in ``current_nA`` or ``time (s)``. ``.nwb``: see `read_nwb`.

    Args:
        path: of the file.
        overrides: arguments of `Recording.of` that the file does not say or says otherwise, such as ``dt``, ``units``,
            ``families``, ``split``, ``spike_at``. For NWB also ``sweeps``, the numbers of those to read, and
            ``length``, the steps to keep of each.

    Raises:
        FileNotFoundError: no such file.
        ImportError: an NWB file, and h5py is missing.
        ValueError: another ending, a damaged file, or what is wrong with the recording, with the first bad sample.
    """
    path = Path(path)
    check_regular(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path.")
    readers = {".npz": _read_npz, ".csv": _read_csv, ".nwb": read_nwb}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: a recording is a file .npz, .csv or .nwb, got {path.suffix or 'no ending'!r}.")
    options = {name: overrides.pop(name) for name in ("sweeps", "length") if name in overrides}
    if options and path.suffix.lower() != ".nwb":
        raise ValueError(f"{path}: {' and '.join(options)} is for .nwb; use recording.rows([...]) of what is loaded.")
    try:
        found = readers[path.suffix.lower()](path, **options)
        if "spikes" in overrides or "times" in overrides:
            found = {name: value for name, value in found.items() if name not in ("spikes", "times")}
        told = overrides.pop("units", None) or {}
        if not isinstance(told, dict):
            raise ValueError(f"units must be such as {{'current': 'nA'}}, got {shown(told)}.")
        units = {**found.pop("units", {}), **told}
        if "dt" not in found and "dt" not in overrides:
            raise ValueError("the file does not say how long a step is; give dt= in ms.")
        return Recording.of(**{**found, **overrides, "units": units})
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(reason if reason.startswith(str(path)) else f"{path}: {reason}") from None


def _read_npz(path: Path) -> dict[str, Any]:
    """The arrays of a file as arguments of `Recording.of`."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(info.file_size for info in archive.infolist())
        if total > LARGEST:
            raise ValueError(f"its arrays have {total} bytes, at most {LARGEST} are read.")
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:80]
        raise ValueError(f"not a readable .npz file ({reason}), truncated or foreign.") from None
    facts = _facts(content.pop("facts", None))
    known = ("current", "spikes", "times", "voltage", "dt", "families", "split")
    if unknown := sorted(set(content) - set(known)):
        way = ", and units={'current': 'nA'} is an argument" if unknown[0] == "units" else ""
        raise ValueError(f"it holds {unknown[0]!r}; a recording has {', '.join(known)}{way}.")
    found: dict[str, Any] = {name: content[name] for name in ("current", "spikes", "voltage") if name in content}
    if "current" not in found:
        raise ValueError("it holds no current.")
    if "times" in content:
        times = np.asarray(content["times"], dtype=np.float64)
        found["times"] = [row[np.isfinite(row)] for row in np.atleast_2d(times)]
    if "families" in content:
        words = content["families"]
        found["families"] = [str(word) for word in words] if words.ndim else str(words)
    if "dt" in content:
        found["dt"] = float(content["dt"])
    if "split" in content:
        found["split"] = str(content["split"])
    return {**found, **facts}


def _facts(stored: Any) -> dict[str, Any]:
    """What `Recording.save` wrote beside the arrays."""
    if stored is None:
        return {}
    try:
        facts = json.loads(str(stored))
        if facts.pop("format") != FORMAT:
            raise ValueError
        found = {"dt": float(facts["dt"]), "units": {str(k): str(v) for k, v in facts["units"].items()}}
        return {**found, "split": str(facts["split"]), "spike_at": None}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"its facts are not those of {FORMAT}; it was written by another version.") from None


def _read_csv(path: Path) -> dict[str, Any]:
    """The columns of a table as arguments of `Recording.of`."""
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size} bytes, at most {LARGEST} are read.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            names, units = _header(next(lines, []))
            rows = [(lines.line_num, line) for line in lines if any(cell.strip() for cell in line)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"not a readable table ({' '.join(str(error).split())[:80]}).") from None
    if not rows:
        raise ValueError("the table has no rows.")
    columns: dict[str, Any] = {name: _column(name, place, rows, len(names)) for place, name in enumerate(names)}
    sweeps: dict[str, list[int]] = {}
    for at, name in enumerate(columns.get("sweep", ["1"] * len(rows))):
        sweeps.setdefault(name, []).append(at)
    lengths = {len(places) for places in sweeps.values()}
    if len(lengths) > 1:
        few, many = min(sweeps, key=lambda s: len(sweeps[s])), max(sweeps, key=lambda s: len(sweeps[s]))
        raise ValueError(
            f"sweep {few} has {len(sweeps[few])} rows, sweep {many} has {len(sweeps[many])}; cut them to one length."
        )
    places = np.array([*sweeps.values()])
    found: dict[str, Any] = {"units": {k: v for k, v in units.items() if k in ("current", "voltage")}}
    for name, key in (("current", "current"), ("voltage", "voltage"), ("spike", "spikes")):
        if name in columns:
            found[key] = columns[name][places]
    if "time" in columns:
        found["dt"] = _step(columns["time"][places], MILLISECONDS[units.get("time", "ms")], rows, places)
    if "family" in columns:
        found["families"] = [columns["family"][each[0]] for each in places]
    return found


def _header(cells: list[str]) -> tuple[list[str], dict[str, str]]:
    """Names of the columns, and units by name."""
    names, units = [], {}
    for cell in cells:
        match = COLUMN.fullmatch(cell.strip())
        if match is None or (match[1] == "time" and match[2] not in (None, *MILLISECONDS)):
            raise ValueError(
                f"the first line has the column {cell.strip()[:40]!r}; it must name time, current, voltage, spike, "
                "sweep or family, with a unit if need be, as current_pA or time (ms)."
            )
        names.append("spike" if match[1] == "spikes" else match[1])
        if match[2]:
            units[names[-1]] = match[2]
    if "current" not in names or len(set(names)) < len(names):
        raise ValueError(f"the first line names the columns {', '.join(names)}; it needs current, and each once.")
    return names, units


def _column(name: str, place: int, rows: list[tuple[int, list[str]]], width: int) -> Any:
    """One column: words of sweep and family, else numbers float64."""
    for line, cells in rows:
        if len(cells) != width:
            raise ValueError(f"line {line} has {len(cells)} cells, the first line {width}.")
    if name in ("sweep", "family"):
        return [cells[place].strip() for _, cells in rows]
    out = np.empty(len(rows))
    for at, (line, cells) in enumerate(rows):
        try:
            out[at] = float(cells[place])
        except ValueError:
            raise ValueError(f"line {line}: {name} is {cells[place][:20]!r}, which is no number.") from None
    return out


def _step(times: Any, factor: float, rows: list[tuple[int, list[str]]], places: Any) -> float:
    """The step in ms of times (N, T) that must be regular."""
    gaps = np.diff(times, axis=1) * factor
    if not gaps.size:
        raise ValueError("a sweep has one row; its time step is unknown.")
    step = float(np.median(gaps))
    bad = ~(np.abs(gaps - step) <= 1e-2 * abs(step))
    if not math.isfinite(step) or step <= 0 or bad.any():
        row, at = np.argwhere(bad)[0] if bad.any() else (0, 0)
        raise ValueError(
            f"line {rows[places[row][at + 1]][0]}: time goes on by {gaps[row, at]:g} ms, elsewhere by {step:g} ms; a "
            "recording has one regular step, so interpolate it first."
        )
    return step
