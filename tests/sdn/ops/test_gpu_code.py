"""What the GPU kernels need of a multiprocessor, as compiled ahead of time in the tiles in which they run."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import gpu_code
import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("no triton: it comes with extra 'dev' on Linux, and with torch for CUDA", allow_module_level=True)

KNOWN = json.loads(gpu_code.TABLE.read_text())
KERNELS = KNOWN["kernels"]
SOME = [
    "lif-hard forward", "izhikevich backward", "rf backward on sm_80", "resonate backward",
    "resonate rotation 64 backward", "modes 32 backward",
    "scan complex forward", "recurrent 256 rows 1 forward", "recurrent 256 rows 16 forward",
]  # fmt: skip


def test_the_table_has_every_kernel():
    assert set(KERNELS) == {name for name, *_ in gpu_code.cases()}


def test_registers_and_stack_are_those_of_the_table():
    """Of some kernels, two seconds each; `make gpu-code` writes all. Another Triton may need a little more."""
    import triton

    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, gpu_code.__file__, *SOME]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout)
    assert set(found) == set(SOME)
    here = {name: facts for name, facts in found.items() if "on sm_80" not in name}
    if triton.__version__ == KNOWN["triton"]:
        assert here == {name: KERNELS[name] for name in here}
    for name, facts in found.items():
        assert facts["registers"] <= 255
        assert facts["stack"] <= (KERNELS[name]["stack"] if name in here else 0) + 64, name
        assert triton.__version__ != KNOWN["triton"] or name in here or facts["stack"] == 0


def stacks(pattern):
    """The stack of every kernel of the table whose name fits."""
    return {name: facts["stack"] for name, facts in KERNELS.items() if re.fullmatch(pattern, name)}


def test_what_the_docstrings_say_of_spills_is_so():
    """The statements of the modules of neurons, resonators, recurrent layers and modes, number by number."""
    neurons = stacks(r"(lif|alif|rf|brf|hrf|izhikevich).*")
    assert len(neurons) == 26
    assert set(neurons.values()) == {0}
    resonators = stacks(r"resonate.*")
    assert len(resonators) == 14
    assert {name: stack for name, stack in resonators.items() if stack} == {"resonate backward": 8}
    scans = stacks("scan.*")
    assert len(scans) == 8
    assert set(scans.values()) == {0}
    recurrent = stacks(r"recurrent \d+ rows (1|2|4|16) (forward|backward)")
    assert len(recurrent) == 32
    assert {name: stack for name, stack in recurrent.items() if stack} == {"recurrent 64 rows 16 backward": 8}
    assert {n: max(stacks(rf"modes {n} .*").values()) for n in (16, 32, 64, 128)} == {16: 8, 32: 0, 64: 0, 128: 216}
