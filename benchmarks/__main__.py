"""`python -m benchmarks [--quick]`: every neuron solver, forward and forward + backward, against the eager loop."""

import argparse
import gc
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import sdn
from sdn.files import versions, write_json

SHAPES = [(4, 1024, 64), (16, 1024, 64), (16, 4096, 64), (64, 1024, 64)]


def main() -> None:
    """Measure, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two shapes, three rounds; writes nothing")
    parser.add_argument("--out", type=Path, help="the JSON to write (default benchmarks/results/neurons.json)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    print(f"{'B, L, H':>16} {'pass':>9} {'variant':>12} {'ms':>9} {'ns/step':>9} {'loop =':>8}")
    for shape in SHAPES[:2] if args.quick else SHAPES:
        for backward in (False, True):
            results += measure(shape, backward, rounds=3 if args.quick else 7)
    facts = {"processor": platform.processor() or platform.machine(), "threads": 1, "clock": "process CPU time"}
    if args.quick and args.out is None:
        return
    out = args.out or Path(__file__).parent / "results" / "neurons.json"
    write_json(out, {"facts": {**facts, **versions()}, "dynamics": str(sdn.LIF(0.125)), "results": results})
    print(f"wrote {out}")


def measure(shape: tuple[int, int, int], backward: bool, rounds: int) -> list[dict[str, object]]:
    """Medians over rounds in which the variants take turns on the same input."""
    current = torch.randn(shape)
    variants: dict[str, Callable[[], object]] = {
        word: _pass(sdn.Neuron(sdn.LIF(0.125), shape[-1], solver=word), current, backward)
        for word in ("loop", "surrogate")
    }
    variants["relu"] = _pass(lambda x: (torch.relu(x), None), current, backward)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            gc.collect()
            start = time.process_time()
            run()
            if turn:  # the first turn warms up
                times[name].append(time.process_time() - start)
    label, rows = "fwd+bwd" if backward else "fwd", []
    for name, found in times.items():
        median = statistics.median(found)
        ratio = statistics.median(b / a for a, b in zip(times["loop"], found, strict=True))
        elements = current.numel()
        print(f"{shape!s:>16} {label:>9} {name:>12} {1e3 * median:9.2f} {1e9 * median / elements:9.2f} {ratio:8.3f}")
        row = {
            "shape": shape,
            "pass": label,
            "variant": name,
            "seconds": median,
            "of_loop": ratio,
            "rounds": len(found),
        }
        rows.append(row)
    return rows


def _pass(
    neuron: Callable[[torch.Tensor], tuple[torch.Tensor, object]], x: torch.Tensor, backward: bool
) -> Callable[[], object]:
    def forward() -> object:
        with torch.no_grad():
            return neuron(x)[0]

    def both() -> object:
        leaf = x.clone().requires_grad_()
        neuron(leaf)[0].sum().backward()
        return leaf.grad

    return both if backward else forward


if __name__ == "__main__":
    main()
