"""The command line of a stream: ``spikingssm stream RUN FILE``."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add ``stream``.

    Args:
        commands: what `argparse.ArgumentParser.add_subparsers` gave.
    """
    stream = commands.add_parser(
        "stream",
        help="run a trained network over a stream, in constant memory",
        usage="%(prog)s RUN FILE [options]\n       arecord -t raw -f S16_LE -r 16000 | %(prog)s RUN - --rate 16000",
        description="Run a trained network over a stream, and print what it says while it runs.",
    )
    stream.add_argument("run", help="the run folder, or the name of a network that ships")
    stream.add_argument(
        "file", metavar="FILE", help=".wav, .flac, .ogg, .npz, .npy, .csv, .txt, - for standard input, or mic"
    )
    stream.add_argument(
        "--every",
        type=float,
        metavar="N",
        help="an answer every N seconds, or every N steps where no rate is known (default 1 s, 100 steps, or --reset)",
    )
    stream.add_argument("--reset", type=float, metavar="N", help="begin anew every N seconds, or steps")
    stream.add_argument("--json", action="store_true", help="a line of JSON an answer, with spikes by layer")
    stream.add_argument(
        "--format",
        choices=["s16le", "f32le", "lines", "text"],
        help="of standard input (default: what the network reads, s16le for sound)",
    )
    stream.add_argument("--rate", type=float, metavar="HZ", help="of raw samples, of a microphone, or of steps")
    stream.add_argument("--channels", type=int, metavar="N", help="of raw samples (default 1); their mean is read")
    stream.add_argument("--device", metavar="NAME", help="of the microphone: its number, or a part of its name")
    stream.add_argument("--skip-bad", action="store_true", help="leave lines out that cannot be read, with a warning")


def run(given: argparse.Namespace) -> None:
    """Print answers on standard output while they come, and a summary on standard error.

    Raises:
        FileNotFoundError, ValueError, NotImplementedError, ImportError: what the run and the stream refuse. What was
            answered before stays, and so does the summary.
    """
    from sdn.runs.signals import explained
    from spikingssm.datasets.sources import Asked, open_source
    from spikingssm.experiments.listening import listener_of
    from spikingssm.experiments.trained import load_model

    model = load_model(given.run)
    if given.rate is not None and not 0 < given.rate < float("inf"):
        raise ValueError(f"--rate must be above 0 and finite, got {given.rate:g}.")
    asked = Asked(given.format, given.rate, given.channels, given.device, given.skip_bad)
    stdin = getattr(sys.stdin, "buffer", None)
    source = open_source(given.file, model.interface, stdin, asked)
    listener = listener_of(model, source.rate, given.every, given.reset, source.loud)
    with explained(lambda: "the answers so far stand above"):
        _listen(listener, source, model.interface, given.json)


def _listen(listener: Any, source: Any, interface: Any, json: bool) -> None:
    """All answers, and the summary; a reader of the output that has left ends it quietly."""
    import time

    from spikingssm.experiments.heard import summary

    start, busy, read = time.perf_counter(), [0.0], True
    try:
        for line in _lines(listener, source, interface, json, busy):
            print(line, flush=True)
    except BrokenPipeError:
        read = False
        with contextlib.suppress(OSError, ValueError):  # or Python writes what is left, and says that it cannot
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        if read and listener.steps:
            seconds = time.perf_counter() - start
            _sum_up(summary(listener, interface, seconds, busy[0] if source.live else None), source)
    if read and not listener.steps:
        raise ValueError("nothing came: the stream ended before its first step.")


def _lines(listener: Any, source: Any, interface: Any, json: bool, busy: list[float]) -> Iterator[str]:
    """The lines of the output; ``busy`` grows by the seconds in which something is computed."""
    import time
    from json import dumps

    from spikingssm.experiments.heard import as_json, columns, row

    if not json:
        yield "\t".join(_cell(name) for name in columns(listener, interface))
    for block in source.blocks:
        start = time.perf_counter()
        said = list(listener.hear(block))
        busy[0] += time.perf_counter() - start
        for each in said:
            yield dumps(as_json(each, listener, interface)) if json else _tabs(row(each, listener, interface))
    for each in listener.end():
        yield dumps(as_json(each, listener, interface)) if json else _tabs(row(each, listener, interface))


def _tabs(cells: list[str]) -> str:
    return "\t".join(map(_cell, cells))


def _cell(text: str) -> str:
    """A name on one line, without tabs."""
    return " ".join(text.split()) if set(text) & set("\t\n\r") else text


def _sum_up(lines: Iterator[str], source: Any) -> None:
    with contextlib.suppress(OSError):  # the terminal may be closed
        for line in lines:
            print(line, file=sys.stderr)
        if source.lines is not None and source.lines.bad:
            bad = source.lines.bad
            print(f"{bad} lines were left out" if bad > 1 else "1 line was left out", file=sys.stderr)
