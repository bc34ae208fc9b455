"""``python -m spikingssm export RUN --to onnx``: a trained network in the formats of other programs."""

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_parser", "run"]

FORMATS = ("onnx", "pt2", "c", "nir", "hub")
READERS = ("snntorch", "norse", "sinabs")


def add_parser(commands: Any) -> None:
    """Add ``export``.

    Args:
        commands: what `argparse.ArgumentParser.add_subparsers` gave.
    """
    parser = commands.add_parser(
        "export",
        help="write a trained network as ONNX, torch.export, NIR, C99, or a folder for a model hub",
        usage="%(prog)s RUN --to FORMAT [FORMAT ...] [--out FOLDER] [options]",
    )
    parser.add_argument("run", help="the run folder, or the name of a network that ships")
    parser.add_argument("--to", nargs="+", required=True, choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--out", metavar="FOLDER", help="write there (default: export/ in the run folder)")
    parser.add_argument("--name", help="of the files (default: that of the run)")
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="of the test vectors (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the test vectors (default 0)")
    parser.add_argument("--reader", choices=READERS, help="of a NIR graph: the library that will read it")
    parser.add_argument("--no-check", action="store_true", help="do not run the written file")
    small = parser.add_argument_group("weights of 8 bits, for onnx, pt2 and c")
    small.add_argument(
        "--int8", action="store_true", help="write linear maps in 8 bits, and test both on the test data"
    )
    small.add_argument(
        "--reach", type=float, default=1.0, metavar="R", help="largest weight that is kept, of the largest (default 1)"
    )
    small.add_argument("--data", metavar="FILE", help="test on these: an .npz with x and y, or a folder of folders")
    small.add_argument("--root", metavar="FOLDER", help="folder of the data, where it is not that of the training")
    small.add_argument("--limit", type=int, metavar="N", help="test on N rows only, a fixed draw")
    hub = parser.add_argument_group("a folder for a model hub")
    hub.add_argument("--licence", metavar="WORD", help="of the weights, as the hub names it, such as mit")
    hub.add_argument("--push", metavar="USER/NAME", help="upload it to the Hugging Face Hub")


def run(given: argparse.Namespace) -> None:
    """Write what is asked for, and print what became of it."""
    from spikingssm.experiments.shipped import folder_of, shipped
    from spikingssm.experiments.trained import load_model
    from spikingssm.export import export
    from spikingssm.export.hub import push

    _check(given)
    trained = load_model(given.run)
    if given.out is None and str(given.run) in shipped() and folder_of(given.run) != Path(given.run):
        raise ValueError(f"{given.run} is part of the program, so say where to write: --out FOLDER.")
    out = Path(given.out) if given.out is not None else folder_of(given.run) / "export"
    test = {"data": given.data, "root": given.root, "limit": given.limit}
    if given.out is None and given.to == ["hub"]:
        out = out / "hub"
    made = export(
        trained, given.to, out, name=given.name, int8=given.int8, reach=given.reach, steps=given.steps,
        seed=given.seed, check=not given.no_check, licence=given.licence, test=test, reader=given.reader,
    )  # fmt: skip
    for to, path in zip(given.to, made, strict=True):
        for line in _said(path):
            print(line)
        if to == "hub" and given.push is not None:
            print(push(path, given.push))


def _check(given: argparse.Namespace) -> None:
    """Refuse options that do nothing for what is asked for."""
    if not given.int8:
        for name in ("data", "root", "limit"):
            if getattr(given, name) is not None:
                raise ValueError(f"--{name} {getattr(given, name)} is for --int8, which is tested; leave it out.")
        if given.reach != 1:
            raise ValueError(f"--reach {given.reach:g} is for --int8; add that, or leave it out.")
    if given.reader is not None and "nir" not in given.to:
        raise ValueError(f"--reader {given.reader} is for --to nir; add that, or leave it out.")
    for name in ("licence", "push"):
        if getattr(given, name) is not None and "hub" not in given.to:
            raise ValueError(f"--{name} {getattr(given, name)} is for --to hub; add that, or leave it out.")


def _said(made: Path) -> list[str]:
    """Lines on a file from its contract."""
    from sdn.runs.files import read_json

    beside = made.with_name(f"{made.name}.json")
    if made.is_dir() or not beside.is_file():
        return [f"{made}: written"]
    told = read_json(beside)
    lines = [f"{made}: {told['file']['bytes']:,} bytes; {_agreed(told['agreement'])}"]
    found = told["agreement"]
    if "microseconds_a_step" in found:
        lines.append(
            f"  {found['microseconds_a_step']:.3g} us a step here, {found['object_bytes']:,} bytes compiled "
            f"({found['compiler']})"
        )
    lines += _rounded(told.get("int8"))
    return [*lines, f"  described in {beside.name}, test vectors in {told['vectors']['file']}"]


def _agreed(found: dict[str, Any]) -> str:
    if not found["checked"]:
        return f"not run: {found['why']}"
    by = found.get("by", "compiled")
    return (
        f"{by}: {found['spikes_that_differ']} of {found['spikes']} spikes differ over {found['steps']} steps, "
        f"logits by up to {found['logits_difference']:.2g} of {found['logits_largest']:.3g}"
    )


def _rounded(told: dict[str, Any] | None) -> list[str]:
    """What 8 bits did."""
    if told is None:
        return []
    lines = []
    for each in told["maps"]:
        lines.append(
            f"  map {each['inputs']} -> {each['outputs']}: {100 * each['error']:.2g} % away, "
            f"{100 * each['saturated']:.2g} % saturated, {100 * each['zeros']:.2g} % became 0"
        )
    if not told["tested"]:
        return [*lines, f"  not tested: {told['why']}"]
    for name in [name for name, value in told["float32"].items() if isinstance(value, float)]:
        lines.append(f"  test {name}: {told['float32'][name]:.4f} in float32, {told['int8'][name]:.4f} in 8 bits")
    rates = [
        " ".join(f"{100 * rate:.2f}" for rate in told[kind]["spike_rates"].values()) for kind in ("float32", "int8")
    ]
    return [*lines, f"  spikes by layer, %: {rates[0]} in float32, {rates[1]} in 8 bits"]
