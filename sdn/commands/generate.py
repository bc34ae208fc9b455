"""Write a dataset of neuron trajectories: `python generate.py dataset`, `python generate.py dataset -n test`."""

import argparse
import dataclasses
import os
import time
import typing
import warnings
from collections.abc import Sequence
from pathlib import Path

from sdn.dynamics import BUILT_IN, Dynamics
from sdn.runs.signals import explained, held
from sdn.surrogate.own_neurons import FLAG, known, without_neurons

__all__ = ["main", "parser"]

ROWS, FEW = 50_000, 1_024


def count(text: str) -> int:
    """A whole number, also as 1e6."""
    return int(float(text)) if "e" in text.lower() and float(text).is_integer() else int(text)


def parser(program: str) -> argparse.ArgumentParser:
    """The command line; the short flags are the published ones."""
    parser = argparse.ArgumentParser(program, description=__doc__)
    parser.add_argument("root", type=Path, help="folder to write to, made where missing")
    parser.add_argument("-n", "--name", default="training", help="name of the split (default training)")
    parser.add_argument("-N", "--number", type=count, help=f"rows (default {ROWS}, of other families {FEW})")
    parser.add_argument("-T", "--timestep", type=count, default=1024, help="steps per row (default 1024)")
    parser.add_argument("-m", "--mean", type=float, default=0.0, help="mean of the normal currents (default 0)")
    parser.add_argument("-s", "--std", type=float, help=f"standard deviation; default: {_defaults()}")
    parser.add_argument("--family", help=f"of the currents: {_families()}; default normal for lif up to a decay of 0.2 "
                        "or with a mean, else mixture")  # fmt: skip
    parser.add_argument("--over", action="append", default=[], metavar="FIELD=LOW:HIGH",
                        help="a field that is another number in every row; may be repeated")  # fmt: skip
    parser.add_argument("-t", "--tau", type=float, help="lif: decay, the factor kept per step, in [0, 1); default 0.2")
    parser.add_argument("--seed", type=int, help="default: crc32 of the split's name, so that splits differ")
    parser.add_argument("--device", default="cpu", help="where to simulate, e.g. cuda (default cpu)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--dynamics", choices=sorted(known()), default="lif", help="the neuron (default lif)")
    parser.add_argument(FLAG, metavar="FILE.py", help="a file that defines neurons of your own, for --dynamics")
    parser.add_argument("--threshold", type=float, help="where it fires; default: the neuron's")
    for field, kind in _every_field().items():
        _add_flag(parser, field, kind)
    return parser


def bounds(texts: list[str]) -> dict[str, tuple[float, float]]:
    """``["decay=0.05:0.95"]`` as fields with their bounds."""
    found: dict[str, tuple[float, float]] = {}
    for text in texts:
        field, _, numbers = text.partition("=")
        try:
            low, high = map(float, numbers.split(":"))
        except ValueError:
            raise ValueError(f"--over takes FIELD=LOW:HIGH, such as decay=0.05:0.95, got {text!r}.") from None
        name = field.replace("-", "_")
        if name in found:
            raise ValueError(f"--over gives {name} twice, {found[name]} and {(low, high)}; once for each field.")
        found[name] = low, high
    return found


def _families() -> str:
    from sdn.surrogate.currents import FAMILIES

    return ", ".join([*FAMILIES, "mixture"])


def _family(args: argparse.Namespace, dynamics: Dynamics) -> str:
    """What is asked for, or what suits the network that will be trained."""
    if args.family:
        return str(args.family)
    short = args.dynamics == "lif" and dynamics.facts()["decay"] <= 0.2 and not args.over
    return "normal" if short or args.mean else "mixture"


def _every_field() -> dict[str, type[Dynamics]]:
    """The fields of all neurons that have no flag above, with a neuron that has them."""
    found = {f.name: kind for kind in known().values() for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return {name: kind for name, kind in found.items() if name not in ("decay", "threshold")}


def _add_flag(parser: argparse.ArgumentParser, field: str, kind: type[Dynamics]) -> None:
    hint, default = typing.get_type_hints(kind)[field], getattr(kind, field)
    who, words = _who_has(field), typing.get_args(hint)
    if isinstance(default, bool):
        yes_or_no = argparse.BooleanOptionalAction
        parser.add_argument(f"--{_flag(field)}", action=yes_or_no, help=f"{who}; default {'yes' if default else 'no'}")
    elif isinstance(default, str):
        parser.add_argument(f"--{_flag(field)}", choices=words, help=f"{who}; default {default}")
    else:
        unit = kind.ranges[field].unit if field in kind.ranges else "a number"
        parser.add_argument(f"--{_flag(field)}", type=float, help=f"{who}, {unit}; default: the neuron's")


def neuron(args: argparse.Namespace) -> Dynamics:
    """The dynamics that the flags describe; a flag of another neuron is an error."""
    kind = known()[args.dynamics]
    own = _fields(kind)
    given = {name: value for name, value in vars(args).items() if value is not None}
    if "tau" in given:
        given["decay"] = given.pop("tau")
    every = {name for other in known().values() for name in _fields(other)}
    if foreign := sorted((every & set(given)) - own):
        flags = ", ".join("--tau" if name == "decay" else f"--{_flag(name)}" for name in foreign)
        raise ValueError(f"--dynamics {args.dynamics} has no {flags}; it has {', '.join(sorted(own))}.")
    return kind(**{name: given[name] for name in own & set(given)})


def _fields(kind: type[Dynamics]) -> set[str]:
    return {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]


def _flag(field: str) -> str:
    return field.replace("_", "-")


def _who_has(field: str) -> str:
    return ", ".join(word for word, kind in known().items() if field in _fields(kind))


def _defaults() -> str:
    return ", ".join(f"{word} {kind.default_std:g}" for word, kind in BUILT_IN.items())


def main(argv: Sequence[str], program: str = "generate.py") -> None:
    """Simulate and write one file."""
    argv = without_neurons(argv)
    args = parser(program).parse_args(argv)
    dynamics = neuron(args)
    from sdn.surrogate import trajectories as tr
    from sdn.surrogate import trajectory_files as files

    if not args.name or Path(args.name).name != args.name:
        raise ValueError(f"--name is part of a file name, got {args.name!r}; choose the folder by the first argument.")
    std = dynamics.default_std if args.std is None else args.std
    family, over = _family(args, dynamics), bounds(args.over)
    if args.number is None:
        args.number = ROWS if family == "normal" else FEW
    more: dict[str, typing.Any] = {"family": family, "over": over}
    seed = tr.default_seed(args.name) if args.seed is None else args.seed
    law = args.number, args.timestep, args.mean, std
    path = args.root / files.trajectory_file_name(dynamics, *law, args.name, **more)
    files.refuse_existing(path, args.force)
    tr.check_request(dynamics, *law, args.device, seed, **more)
    args.root.mkdir(parents=True, exist_ok=True)
    if not os.access(args.root, os.W_OK):
        raise PermissionError(f"{args.root}: this folder cannot be written to; choose another one.")
    with explained(lambda: _written(path, args.force)):
        _write(args, dynamics, path, std, seed, more)


def _write(
    args: argparse.Namespace, dynamics: Dynamics, path: Path, std: float, seed: int, more: dict[str, typing.Any]
) -> None:
    from loguru import logger
    from tqdm import tqdm

    from sdn.surrogate import trajectories as tr
    from sdn.surrogate import trajectory_files as files

    started = time.perf_counter()
    with held():  # a bar that is made by half cannot be removed
        bar = tqdm(total=args.number, unit="row", desc=str(dynamics))
    with warnings.catch_warnings(record=True) as caught, bar:
        warnings.simplefilter("always")
        out = tr.generate(
            dynamics,
            args.number,
            args.timestep,
            args.mean,
            std,
            seed,
            device=args.device,
            progress=bar.update,
            **more,
        )
    for warning in caught:
        logger.warning(str(warning.message))
    law = {"mean": args.mean, "std": std, "seed": seed, **more}
    files.save_trajectories(path, out, dynamics, name=args.name, force=args.force, **law)
    logger.info(f"spike rate {int(out.spike.count_nonzero()) / out.spike.numel():.4f}, seed {seed}")
    logger.info(f"input, mem, spike: {tuple(out.input.shape)}, {path.stat().st_size / 2**20:.0f} MiB")
    logger.info(f"wrote {path} in {time.perf_counter() - started:.1f} s")


def _written(path: Path, force: bool) -> str:
    """What to say of a signal; with --force the same command always works again."""
    return f"{path} is written, there is nothing left to do" if path.is_file() and not force else ""
