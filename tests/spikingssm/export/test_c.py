"""A C file is the network: compiled without a warning, it answers the same; and what C cannot say is refused."""

import subprocess

import numpy as np
import pytest
import torch
from streams import NETWORKS, made, steps_of

from sdn.ops.common.single_cpu import single_step
from spikingssm.export.c_check import STRICT, compiler, run_c
from spikingssm.export.c_file import FLAGS, c_source, word_of
from spikingssm.export.c_language import HELPERS, number, translated
from spikingssm.export.subject import Vectors, by_steps
from spikingssm.measures.spikes import spikes_of
from spikingssm.streaming.int8 import in_int8
from spikingssm.streaming.tensors import TensorStep

needs_a_compiler = pytest.mark.skipif(compiler() is None, reason="no C compiler is here")


def ran(plan, x, path):
    path.write_text(c_source(plan, path.stem))
    return run_c(path, Vectors(x, None, 0, {}), [*plan.layers], plan.d_output)


@needs_a_compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_network_over_the_whole_sequence(name, tmp_path):
    model, x = made(name)
    exact = model if name.startswith(("rsnn", "s5rf")) else model.with_solver("fused")
    found, facts = ran(model.plan(), steps_of(model, x)[0], tmp_path / "net 1.c")
    with torch.no_grad():
        whole = exact(x[:1])[0][0].reshape(-1, 4 if "language" not in name else 9).numpy()
    np.testing.assert_allclose(found.logits[-len(whole) :], whole, atol=1e-5, rtol=1e-5)
    wanted = {layer: int(each.sum()) for layer, each in spikes_of(exact, x[:1]).items()}
    assert {layer: int(each[0]) for layer, each in found.spikes.items()} == wanted
    assert sum(wanted.values()) > 20
    assert facts["object_bytes"] > 1000


@needs_a_compiler
@pytest.mark.parametrize("name", ["ssm", "s5rf turned, all skips", "rsnn"])
def test_with_8_bits_every_step_is_that_of_the_same_network_in_torch(name, tmp_path):
    model, x = made(name)
    plan, _ = in_int8(model.plan())
    steps = steps_of(model, x)[0]
    found, facts = ran(plan, steps, tmp_path / "small.c")
    wanted = by_steps(TensorStep(plan), steps)
    np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-5, rtol=1e-5)
    for layer, each in wanted.spikes.items():
        assert int(found.spikes[layer][0]) == int(each.sum())
    large, _ = ran(model.plan(), steps, tmp_path / "large.c")
    assert np.abs(large.logits - found.logits).max() > 1e-6
    assert facts["microseconds_a_step"] < 1000


MATHS = """
def every(x, X, y, Y):
    for j in range(2000):
        z = x[X + j]
        y[Y + j] = exp(z) + exp_of_negative(-abs(z)) + sigmoid(z) + tanh(z) + minimum(z, F(0.5)) * maximum(z, F(-0.5))
        y[Y + j] += sign(z) + np.floor(z) + np.rint(z) + math.log1p(abs(z)) + (F(1.0) if z > 0 and z < 2 else F(-1.0))
        y[Y + j] += (F(0.0)) if not z >= F(1.0) else (abs(z) ** F(1.5)) - F(float("-inf") if False else 2.0)
"""


@needs_a_compiler
def test_its_functions_are_those_of_the_compiled_step(tmp_path):
    """The same polynomials to the last bit, in both languages."""
    text = MATHS.replace(' - F(float("-inf") if False else 2.0)', " - F(2.0)")
    function = translated(text)
    path = tmp_path / "maths.c"
    path.write_text(
        f"#include <math.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\n{HELPERS}\n{function}\n"
        "int main(void) { static float x[2000], y[2000]; if (fread(x, 4, 2000, stdin) != 2000) return 1;\n"
        "every(x, 0, y, 0); return fwrite(y, 4, 2000, stdout) != 2000; }\n"
    )
    subprocess.run([compiler(), *FLAGS, *STRICT, path, "-o", tmp_path / "maths", "-lm"], check=True)
    x = np.float32(np.random.default_rng(0).normal(size=2000) * 30)
    x[:4] = 0, 100, -100, 88.5
    told = subprocess.run([tmp_path / "maths"], input=x.tobytes(), capture_output=True, check=True)
    found = np.frombuffer(told.stdout, np.float32)
    head = (
        "import math\nimport numpy as np\nfrom numpy import float32 as F\nfrom sdn.ops.common.cpu import jit\n"
        "from sdn.ops.common.functions_cpu import exp, exp_of_negative, maximum, minimum, sigmoid, sign, tanh\n"
    )
    room = {}  # without a name, as a function of nowhere has none
    exec(head, room)
    source = tmp_path / "maths.py"
    source.write_text(f"{head}\n\n@jit{text}")
    exec(compile(source.read_text(), str(source), "exec"), room)
    y = np.zeros(2000, np.float32)
    room["every"](x, 0, y, 0)
    finite = np.isfinite(y)
    assert finite.sum() > 1900
    np.testing.assert_allclose(found[finite], y[finite], rtol=3e-7)
    np.testing.assert_array_equal(found[~finite], y[~finite])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def f(x, X):\n    while True:\n        x[X] = 1", "while True"),
        ("def f(x, X):\n    a, b = x[X], x[X]\n    a, b = b, a\n    x[X] = a", r"a, b = \(b, a\)"),
        ("def f(x, X):\n    x[X] = sorted(x)", r"sorted\(x\)"),
        ("def f(x, X):\n    x[X] = math.gamma(x[X])", r"math\.gamma"),
        ("def f(x, X):\n    j = 0\n    j = x[X]\n    x[j] = 1", r"j = x\[X\]"),
        ("def f(x, X):\n    x[X] = 1 / 2", "1 / 2"),
        ("def f(x, X):\n    if X > 0:\n        x[X] = 1\n    else:\n        x[X] = 2", "if X > 0"),
        ("def f(x, X):\n    x[X] = x[X] < x[X] < 3", "<"),
        ("x = 1", "no function"),
    ],
)
def test_what_c_cannot_say_is_refused_and_named(text, says):
    with pytest.raises(NotImplementedError, match=says):
        translated(text)


def test_names_and_numbers():
    assert word_of("runs/My net-0") == "runs_my_net_0"
    assert word_of("3 layers") == "n_3_layers"
    assert word_of("ß") == "network"
    assert [number(v) for v in (1.0, 0.1, 1e-40, -3e38)] == ["1.0f", "0.1f", "1e-40f", "-3e+38f"]
    for value in np.float32(np.random.default_rng(0).normal(size=1000)):
        assert np.float32(number(float(value))[:-1]) == value


def test_a_name_cannot_end_a_comment():
    model, _ = made("rsnn")
    text = c_source(model.plan(), "evil */ int x;", "more */ int y;")
    head = text.split("#include")[0]
    assert head.count("*/") == 1


def test_every_known_neuron_can_be_said():
    import sdn

    for neuron in (sdn.LIF(0.5), sdn.ALIF(), sdn.RF(), sdn.BRF(), sdn.HRF(), sdn.IzhikevichRF()):
        text = translated(single_step(neuron, torch.zeros(1, 1, 3)).text)
        assert "static inline int neuron_" in text


def test_states_may_have_the_names_of_words_of_c():
    text = translated(
        "def f(state, S, W):\n    for j in range(W):\n        int = state[S + j]\n        short = int * F(2.0)\n"
        "        state[S + j] = short"
    )
    assert "float int_own, short_own;" in text
    assert "int_own * 2.0f" in text
