"""Registers and stack of the Triton kernels as compiled for a GPU that need not be there, in the tiles they run in.

``python tests/gpu_code.py [NAME ...]`` prints them as JSON; `make gpu-code` writes the table that the tests compare.
Not in Triton's interpreter: start it without TRITON_INTERPRET.
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
NUMBERS = {"N0": 1.1, "N1": 0.5, "N2": 0.3, "N3": 0.2, "N4": 0.4}
GRADIENTS = {"lif": "triangle", "alif": "gaussians", "rf": "gaussians", "brf": "gaussians"}
CONSTANTS = {"lif": (1.0, 0.0), "alif": (0.0, 0.0), "rf": (0.01, 0.0), "brf": (0.01, 3.0)}
SIZES = {
    "batch", "length", "width", "count", "inputs", "channels", "modes", "cells", "blocks", "rows", "steps", "step",
    "x_row", "x_step", "g_row", "g_step", "row", "kept", "dilation", "skip_steps",
}  # fmt: skip
DOUBLE = {"sums", "skip_sums"}


def neurons():
    from sdn.ops.neuron import gpu as t
    from sdn.ops.neuron.layout import MODELS

    for name, (s, p) in MODELS.items():
        c0, c1 = CONSTANTS[name]
        shared = {"MODEL": name, "C0": c0, "C1": c1, "S": s, "P": p, "STRIDE": t.STRIDE, "BLOCK": t.BLOCK}
        yield f"{name} forward", t._forward, {**shared, "SAVE": True, "T": t.AHEAD}, t.LAUNCH
        back = {"GRADIENT": GRADIENTS[name], "THROUGH": True, "LEARN": True, "T": t.BEHIND}
        yield f"{name} backward", t._backward, {**shared, **NUMBERS, **back}, t.LAUNCH


def resonators():
    from sdn.ops.resonate import gpu as t

    for fields, magnitude, n in (
        (2, False, 0),
        (3, False, 0),
        (2, True, 0),
        (2, False, 16),
        (2, False, 64),
        (3, True, 64),
    ):
        _, block, _, launch = t._blocks(torch.zeros(2, n, n))
        name = "resonate" + " refractory" * (fields == 3) + " magnitude" * magnitude + f" rotation {n}" * bool(n)
        shared = {"S": fields, "MAGNITUDE": magnitude, "ROTATE": n > 0, "STRIDE": t.STRIDE, "BLOCK": block}
        shared["PER"] = block if not n else block // n * n
        yield f"{name} forward", t._forward, {**shared, "SAVE": True, "T": t.TURNED if n else t.AHEAD}, launch
        back = {**shared, **NUMBERS, "GRADIENT": "multi_gaussians", "THROUGH": True, "T": t.TURNED if n else t.BEHIND}
        capped = {"maxnreg": t.REGISTERS} if fields == 2 and not magnitude and not n else {}
        yield f"{name} backward", t._backward, back, {**launch, **capped}


def recurrents():
    from sdn.ops.neuron.layout import MODELS
    from sdn.ops.recurrent import gpu as t

    for channels in (64, 128, 256, 512):
        block, tiles, launch = t._tiles(torch.empty(channels + 1, channels))
        s, p = MODELS["brf"]
        shared = {"MODEL": "brf", "C0": 0.01, "C1": 3.0, "S": s, "P": p, "STRIDE": t.STRIDE, "ROWS": t.ROWS}
        shared |= {"BLOCK": block, "TILES": tiles, "INNER": t.INNER}
        yield f"recurrent {channels} forward", t._forward, {**shared, "SAVE": True}, launch
        back = {**shared, **NUMBERS, "GRADIENT": "gaussians", "THROUGH": True}
        yield f"recurrent {channels} backward", t._backward, back, launch


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
    shared = {"REVERSE": False, "PARTS": 2, "STEPS": scan_triton.STEPS, "BLOCK": scan_triton.BLOCK}
    yield "scan complex forward", scan_triton._forward, shared, {"enable_fp_fusion": False}
    yield "scan complex backward", scan_triton._backward, {**shared, "LEARN": True}, {"enable_fp_fusion": False}
    sizes = {"CHANNELS": 8, "TAPS": 8, "TALL": 8, "DEEP": 8, "LANES": 128}
    yield "predict 8x8", predict_triton._predict, sizes, {"num_warps": 1, "enable_fp_fusion": False}


def cases():
    for family in (neurons, resonators, recurrents, linear):
        yield from family()


def source(kernel, constants):
    """The kernel with its types, as `triton.compile` takes it; the name of one argument changed after Triton 3.2."""
    from triton.compiler import ASTSource

    sizes = SIZES | {"skip"} if kernel.__name__ == "_predict" else SIZES
    kind = lambda name: "i32" if name in sizes else "*fp64" if name in DOUBLE else "*fp32"  # noqa: E731
    types = {name: kind(name) for name in kernel.arg_names if name not in constants}
    if "constants" in inspect.signature(ASTSource).parameters:
        return ASTSource(kernel, types, constants=constants)
    return ASTSource(kernel, {n: types.get(n, "constexpr") for n in kernel.arg_names}, constexprs=constants)


def resources(names=()):
    """Name of a case -> registers of a thread and its stack in bytes, on sm_90, of all or of these cases."""
    import triton
    from triton.backends.compiler import GPUTarget

    dump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    found = {}
    for name, kernel, constants, launch in cases():
        if names and name not in names:
            continue
        code = triton.compile(source(kernel, constants), GPUTarget("cuda", 90, 32), launch)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(code.asm["cubin"])
            file.flush()
            text = subprocess.run([dump, "--dump-resource-usage", file.name], capture_output=True, text=True).stdout
        registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text).groups()
        found[name] = {"registers": int(registers), "stack": int(stack)}
        print(name, found[name], file=sys.stderr, flush=True)
    return found


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
