"""Registers and stack of the Triton kernels as compiled for a GPU that need not be there, in the tiles they run in.

``python tests/gpu_code.py [NAME ...]`` prints them as JSON, for sm_90, or for sm_80 after a name with ``on sm_80``;
`make gpu-code` writes the table that the tests compare. Not in Triton's interpreter: start it without TRITON_INTERPRET.
"""

import inspect
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

TABLE = Path(__file__).parents[1] / "benchmarks" / "results" / "gpu_code.json"
SIZES = {
    "batch", "length", "width", "count", "inputs", "channels", "modes", "cells", "blocks", "rows", "steps", "step",
    "x_row", "x_step", "gs_row", "gs_step", "gm_row", "gm_step", "row", "kept", "dilation", "skip_steps",
}  # fmt: skip
DOUBLE = {"sums", "skip_sums"}


def numbers_of(dynamics, gradient=None):
    """Key of a neuron, key of its spike gradient, and the numbers that are compiled in, of the neuron and of both."""
    from sdn.compiler.programs import program_of, slope_of
    from sdn.ops.neuron.sequence import operands

    found, like = program_of(dynamics), torch.zeros(1, 1, 5)
    kernel = operands(dynamics, like, dynamics.initial_state(1, 5), dynamics.default_spike)[0]
    numbers = {f"C_{n}": v for n, v in zip(found.step.numbers, kernel.numbers, strict=True)}
    slope, shape = slope_of(gradient or dynamics.default_spike)
    return found.key, slope, numbers, numbers | {f"N_{i}": v for i, v in enumerate(shape)}


def neuron(name, dynamics, record=False, gradient=None, **tiles):
    """Both kernels of a neuron as they are launched."""
    from sdn.ops.neuron import gpu as t

    key, slope, numbers, all_numbers = numbers_of(dynamics, gradient)
    shared = {"RECORD": record, "STRIDE": t.STRIDE, "BLOCK": t.BLOCK}
    ahead, behind = (
        {**shared, "SAVE": True, "T": t.steps_ahead(record)},
        {**shared, "LEARN": True, "T": t.steps_behind(key, record)},
    )
    yield f"{name} forward", t.forward_kernel(key), {**numbers, **ahead, **tiles}, t.LAUNCH
    back = t.backward_kernel(key, slope, True, record)
    yield f"{name} backward", back, {**all_numbers, **behind, **tiles}, t.LAUNCH


def neurons():
    """The neurons of sdn, each with its own spike gradient."""
    from helpers import BUILT_IN

    for name, dynamics, _ in BUILT_IN:
        if "channels" not in name:
            yield from neuron(name, dynamics)
    yield from neuron("brf with mem", {n: d for n, d, _ in BUILT_IN}["brf"], record=True)


def resonators():
    from sdn import MultiGaussian
    from sdn.compiler.programs import slope_of
    from sdn.ops.resonate import gpu as t

    slope, shape = slope_of(MultiGaussian())
    for fields, magnitude, n in (
        (2, False, 0),
        (3, False, 0),
        (2, True, 0),
        (2, False, 16),
        (3, True, 32),
        (2, False, 64),
        (3, True, 64),
    ):
        _, block, _, launch = t._blocks(torch.zeros(2, n, n))
        name = "resonate" + " refractory" * (fields == 3) + " magnitude" * magnitude + f" rotation {n}" * bool(n)
        shared = {"S": fields, "MAGNITUDE": magnitude, "N": n, "STRIDE": t.STRIDE, "BLOCK": block}
        shared["PER"] = block if not n else block // n * n
        yield (
            f"{name} forward",
            t._forward,
            {**shared, "SAVE": True, "T": t._steps(t.AHEAD, block, torch.empty(0))},
            launch,
        )
        back = {**shared, "THROUGH": True, "T": t._steps(t.BEHIND, block, torch.empty(0))}
        back |= {f"N_{i}": v for i, v in enumerate(shape)}
        capped = {"maxnreg": t.REGISTERS} if fields == 2 and not magnitude and not n else {}
        yield f"{name} backward", t.backward_kernel(slope), back, {**launch, **capped}


def recurrents():
    from sdn import BRF
    from sdn.ops.recurrent import gpu as t

    key, slope, numbers, all_numbers = numbers_of(BRF())
    for channels in (64, 128, 256, 512):
        for batch in (t.FULL, 2 * t.FULL, 4 * t.FULL, 4 * t.FULL + 1):
            shape = t.shape_of(batch, torch.empty(channels + 1, channels))
            name = f"recurrent {channels} rows {shape.rows}"
            shared = {"STRIDE": t.STRIDE, "ROWS": shape.rows, "BLOCK": shape.block, "TILES": shape.tiles}
            shared["INNER"] = shape.inner
            yield f"{name} forward", t.forward_kernel(key), {**numbers, **shared, "SAVE": True}, shape.options
            back = t.backward_kernel(key, slope, True)
            yield f"{name} backward", back, {**all_numbers, **shared}, shape.options


def linear():
    from sdn.ops.membrane import predict_gpu as predict_triton
    from sdn.ops.modes import gpu as modes_triton
    from sdn.ops.scan import gpu as scan_triton

    for n in (16, 32, 64, 128):
        shared = {"REVERSE": False, "BLOCK": modes_triton.BLOCK, "CELL": modes_triton.CELL, "N": n}
        for kind in ("forward", "backward"):
            yield (
                f"modes {n} {kind}",
                getattr(modes_triton, f"_{kind}"),
                shared,
                modes_triton.launch_of(n, kind == "backward"),
            )
    for parts, varying in ((1, False), (1, True), (2, False), (2, True)):
        name = ("scan real", "scan complex")[parts - 1] + " varying" * varying
        shared = {"REVERSE": False, "PARTS": parts, "VARYING": varying, "BLOCK": scan_triton.BLOCK}
        ahead, behind = scan_triton.AHEAD // (1 + varying), scan_triton.BEHIND // (1 + varying)
        kind = "i64" if parts == 2 else "fp32"
        wide = {"products": "fp64"} if not varying else {}
        yield f"{name} forward", scan_triton._forward, {**shared, "STEPS": ahead}, scan_triton.LAUNCH, kind
        back = {**shared, "STEPS": behind, "LEARN": True}
        yield f"{name} backward", scan_triton._backward, back, scan_triton.LAUNCH, kind, wide
    sizes = {"CHANNELS": 8, "TAPS": 8, "TALL": 8, "DEEP": 8, "LANES": 128}
    yield "predict 8x8", predict_triton._predict, sizes, {"num_warps": 1, "enable_fp_fusion": False}


def cases():
    for family in (neurons, resonators, recurrents, linear):
        yield from family()


def source(kernel, constants, dtype="fp32", others=None):
    """The kernel with its types, as `triton.compile` takes it; the name of one argument changed after Triton 3.2."""
    from triton.compiler import ASTSource

    sizes = SIZES | {"skip"} if kernel.__name__ == "_predict" else SIZES
    kind = lambda name: "i32" if name in sizes else "*fp64" if name in DOUBLE else f"*{dtype}"  # noqa: E731
    types = {name: kind(name) for name in kernel.arg_names if name not in constants}
    types |= {name: f"*{other}" for name, other in (others or {}).items()}
    if "constants" in inspect.signature(ASTSource).parameters:
        return ASTSource(kernel, types, constants=constants)
    return ASTSource(kernel, {n: types.get(n, "constexpr") for n in kernel.arg_names}, constexprs=constants)


def compiled(kernel, constants, launch, dtype="fp32", others=None, target=90):
    """The code of a kernel for a GPU of that generation."""
    import triton
    from triton.backends.compiler import GPUTarget

    return triton.compile(source(kernel, constants, dtype, others), GPUTarget("cuda", target, 32), launch)


def resources(names=()):
    """Name of a case -> registers of a thread and its stack in bytes, of all on sm_90 or of these cases."""
    known = {name: rest for name, *rest in cases()}
    found = {}
    for name in names or known:
        plain, _, target = name.partition(" on sm_")
        code = compiled(*known[plain], target=int(target or 90))
        found[name] = usage(code)
        print(name, found[name], file=sys.stderr, flush=True)
    return found


def usage(code):
    """Registers of a thread and its stack in bytes."""
    import triton

    dump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.asm["cubin"])
        file.flush()
        text = subprocess.run([dump, "--dump-resource-usage", file.name], capture_output=True, text=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text).groups()
    return {"registers": int(registers), "stack": int(stack)}


def main():
    names = sys.argv[1:]
    if names == ["--write"]:
        import triton

        table = {"target": "sm_90, float32", "triton": triton.__version__, "kernels": resources()}
        TABLE.write_text(json.dumps(table, indent=2) + "\n")
        return
    print(json.dumps(resources(names)))


if __name__ == "__main__":
    main()
