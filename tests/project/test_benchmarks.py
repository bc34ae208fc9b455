"""The benchmarks: their clockwork, that what they compare is the same thing, and that every suite runs."""

import json
import time

import numpy as np
import pytest
import torch
from helpers import assert_close, assert_lively, currents

import sdn
from benchmarks import __main__ as command
from benchmarks import gpu, page, record, s5rf, s5rf_peers
from benchmarks.harness import Bench, growth, one_pass, timings
from benchmarks.loops import ScriptedSDN, select_loop, unbind_loop
from benchmarks.memory import peak
from benchmarks.peers import Peer, compare_to_ours
from benchmarks.published_model import NEURONS, PublishedModel, PublishedS4D, published_neuron
from benchmarks.surrogate import shipped
from spikingssm.layers.s4d import S4D


# ---- the clockwork
class Clock:
    """A clock that only runs when a variant says so."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def __call__(self):
        return self.now

    def variant(self, name, seconds):
        def run():
            self.order.append(name)
            self.now += seconds

        return run


def test_variants_take_turns_and_each_round_begins_one_further():
    clock = Clock()
    found = timings({"a": clock.variant("a", 0.5), "b": clock.variant("b", 0.25)}, 3, clock=clock)
    assert found == {"a": [0.5] * 3, "b": [0.25] * 3}
    assert "".join(clock.order) == "ab" + "ab" + "ab" + "ba" + "ab"  # two warm-ups, three rounds


def test_short_runs_are_repeated_and_slow_ones_take_part_less_often():
    clock = Clock()
    found = timings({"short": clock.variant("s", 0.004), "slow": clock.variant("l", 40.0)}, 5, budget=90, clock=clock)
    assert clock.order.count("s") == 2 + 5 * 3
    assert clock.order.count("l") == 1 + 2
    assert found["short"] == pytest.approx([0.004] * 5)


def test_ratios_are_paired_by_round():
    clock, bench = Clock(), Bench("x", "quick", budget=90)

    def variant(*seconds):
        turns = iter((9.0, *seconds))  # the first is the warm-up

        def run():
            clock.now += next(turns)

        return run

    case = {"table": "t", "shape": [2, 5]}
    medians = bench.compare(case, {"a": variant(1, 2, 10), "b": variant(10, 1, 20)}, 10, ("a", "absent"), clock=clock)
    a, b = bench.rows
    assert medians == {"a": 2.0, "b": 10.0}
    assert (a["of"], b["of"]) == ({"a": 1.0}, {"a": 2.0})  # not 10 / 2
    assert (b["ns"], b["lowest"], b["highest"], b["rounds"]) == (1e9, 1.0, 20.0, 3)
    assert b["table"] == "t"


def test_growth_is_the_exponent_of_a_power_law():
    assert growth([1, 2, 4, 8], [3.0, 6.0, 12.0, 24.0]) == pytest.approx(1.0)
    assert growth([10, 1000], [5.0, 5e4]) == pytest.approx(2.0)


def test_one_pass_drops_its_gradient_and_keeps_its_input():
    x, seen = torch.randn(2, 3, 4), []
    one_pass(lambda v: seen.append(v) or v * 2, x, backward=True)()
    assert seen[0].grad is None
    assert seen[0].data_ptr() == x.data_ptr()


def block(mebibytes, tiny=False):
    """A run that needs so much, for the test below."""
    return lambda: torch.ones(8 if tiny else mebibytes * 2**18).sum()


def test_peak_memory_is_what_the_run_allocates(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "tests")
    found = peak("test_benchmarks:block", mebibytes=64)
    if found is None:
        pytest.skip("no /proc here")
    assert found == pytest.approx(64 * 2**20, rel=0.05)


# ---- what is compared is the same neuron, the same layer
@pytest.mark.parametrize("loop", ["unbind", "unbind last", "select", "sltt"])
def test_eager_loops_are_the_reference_neuron(loop):
    x = currents(1.2, length=63).requires_grad_()
    incoming = torch.randn(x.shape, dtype=x.dtype)
    want, _ = sdn.Neuron(sdn.LIF(0.5), x.shape[-1], solver="loop")(x)
    (grad,) = torch.autograd.grad(want, x, incoming)
    functions = {
        "unbind": lambda v: unbind_loop(v, 0.5),
        "unbind last": lambda v: unbind_loop(v.transpose(1, 2), 0.5, axis=-1).transpose(1, 2),
        "select": lambda v: select_loop(v.transpose(1, 2), 0.5).transpose(1, 2),
        "sltt": lambda v: select_loop(v.transpose(1, 2), 0.5, detach_membrane=True).transpose(1, 2),
    }
    got = functions[loop](x)
    assert_lively(want)
    assert torch.equal(got, want)
    (theirs,) = torch.autograd.grad(got, x, incoming)
    assert torch.allclose(theirs, grad, atol=1e-12) == (loop != "sltt")


def test_scripted_network_is_the_shipped_one():
    ours, theirs = shipped(), ScriptedSDN()
    for name, value in zip(("conv1", "conv2", "conv3"), (ours.spatial[0], ours.feature[0], ours.decoder), strict=True):
        getattr(theirs, name).load_state_dict(value.state_dict())
    x = torch.randn(6, 70)
    got = torch.jit.script(theirs)(x)
    assert got.std() > 0.05
    assert_close(got, ours(x))


def test_published_layer_equals_ours():
    ours = S4D(3, 8, algorithm="fft").eval()
    theirs, x = PublishedS4D.sharing(ours), torch.randn(2, 65, 3)
    got, (want, _) = theirs(x), ours(x)
    assert want.std() > 0.1
    assert_close(got, want, factor=5)


@pytest.mark.parametrize("neuron", NEURONS)
def test_published_model_trains(neuron):
    model = PublishedModel(1, 3, 6, 2, 4, neuron=neuron)
    logits = model(torch.randn(2, 20, 1))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    with pytest.raises(ValueError, match="scripted SDN"):
        published_neuron("ours")


def test_peers_are_checked_not_trusted():
    def ours(x):
        return unbind_loop(x, 0.5, axis=0)

    assert compare_to_ours(Peer("same", ours), 64) == {"equal dynamics": "yes", "equal gradient": "yes"}
    found = compare_to_ours(Peer("leaky", lambda x: unbind_loop(x, 0.6, axis=0)), 64)
    assert found["equal dynamics"].startswith("no")
    assert found["equal gradient"] == "no"


# ---- S5-RF: one network, however it is computed
@pytest.fixture(scope="module", params=["smnist 50", "ssc 128"])
def small_s5rf(request):
    return s5rf.case(s5rf.SIZES[request.param].tiny())


def test_s5rf_network_of_the_benchmark_fires_in_every_layer(small_s5rf):
    rates = small_s5rf.rates()
    assert len(rates) == small_s5rf.size.n_layers
    assert all(0.02 < rate < 0.3 for rate in rates)


def test_s5rf_variants_have_the_same_loss_and_gradients(small_s5rf):
    jax = s5rf_peers.jax_module() is not None
    names = [name for name in s5rf.VARIANTS if jax or not name.startswith("jax")]
    for name, found in s5rf.errors(small_s5rf, tuple(names)).items():
        assert found["loss_error"] < 1e-5, name
        assert found["gradient_error"] < 1e-4, name


def test_s5rf_check_sees_another_network(small_s5rf, monkeypatch):
    theirs = s5rf_peers.MultiGaussian
    monkeypatch.setattr(s5rf_peers, "MultiGaussian", lambda: theirs(height=0.2))
    found = s5rf.errors(small_s5rf, ("tree",))["tree"]
    assert found["loss_error"] < 1e-5
    assert found["gradient_error"] > 1e-2


def test_s5rf_step_is_that_of_adamw_with_the_published_groups(small_s5rf):
    before = {name: p.detach().clone() for name, p in small_s5rf.model.named_parameters()}
    _, grads = s5rf.passes("fused", small_s5rf).gradients()
    names = [name for name in ("fused", "jax tree") if name == "fused" or s5rf_peers.jax_module() is not None]
    for name in names:
        after = s5rf.passes(name, small_s5rf, rates=(0.008, 0.002)).step()
        for parameter, start in before.items():
            # The first step of Adam has the size of the learning rate, whatever the gradient's.
            lr, decay = (0.002, 0.0) if ".neuron." in parameter else (0.008, 1e-4)
            want = start - lr * (torch.tensor(grads[parameter]).sign() + decay * start)
            large = torch.tensor(abs(grads[parameter]) > 1e-4)
            got = torch.as_tensor(np.array(after[parameter].detach() if name == "fused" else after[parameter]))
            assert large.any(), parameter
            assert_close(got[large], want[large], factor=10)


def test_s5rf_steps_at_a_rate_of_zero_leave_the_network_as_it_is(small_s5rf):
    runs = s5rf.passes("fused", small_s5rf)
    loss, _ = runs.gradients()
    runs.step()
    assert runs.gradients()[0] == loss


def test_s5rf_rows_for_a_device_run_on_a_cpu_and_are_shown():
    bench = Bench("gpu", "tiny")
    gpu.s5rf(bench, "cpu")
    checks = [row for row in bench.rows if row["table"] == "s5rf check"]
    steps = {(row["size"], row["variant"]): row for row in bench.rows if row["table"] == "s5rf"}
    assert max(row["gradient_error"] for row in checks) < 1e-4
    assert set(steps) == {(size, solver) for size in s5rf.SIZES for solver in ("fused", "parallel")}
    ssc = steps["ssc 128", "fused"]
    assert ssc["hours"] == pytest.approx(80 * 590 * ssc["seconds"] / 3600)  # 75,466 sequences in batches of 128
    for name in ("gpu-s5rf", "gpu-s5rf-epochs"):
        shown = page.render(f"<!-- table {name} -->\nnot yet\n<!-- end -->", {"gpu": _result(bench)})
        assert "not yet" not in shown
        assert "ssc 128" in shown
        assert "fused" in shown


def _result(bench):
    return {"suite": bench.suite, "facts": record.facts(), "rows": bench.rows}


# ---- every suite runs, and what it writes can be shown
@pytest.mark.parametrize("suite", [s for s in command.SUITES if s not in ("buffers", "startup")])
def test_suite_runs_on_tiny_shapes(suite, tmp_path, capsys):
    threads = torch.get_num_threads()
    bench = command.measure(suite, "tiny", tmp_path)
    assert torch.get_num_threads() == threads
    if suite == "gpu" and not torch.cuda.is_available():
        assert "not measured" in capsys.readouterr().out
        return
    found = json.loads((tmp_path / f"{suite}.json").read_text())
    assert found["level"] == "tiny"
    assert found["facts"]["versions"]["torch"] == torch.__version__
    assert len(found["rows"]) == len(bench.rows) >= 4
    for name, (of, _) in page.TABLES.items():
        if of == suite and not name.endswith("memory"):
            shown = page.render(f"<!-- table {name} -->\nnothing yet\n<!-- end -->", {suite: found})
            assert "nothing yet" not in shown, name
            assert shown.count("|") > 6, name


def test_unknown_suites_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["neuron"])
    assert "neurons" in capsys.readouterr().err


def test_page_keeps_what_was_not_measured():
    text = "words\n<!-- table gpu -->\nnot measured\n<!-- end -->\nmore"
    assert page.render(text, {}) == text


def test_committed_page_shows_the_committed_results():
    found = {path.stem: json.loads(path.read_text()) for path in record.RESULTS.glob("*.json")}
    if any("suite" not in result for result in found.values()) or not page.PAGE.exists():
        pytest.skip("results of an older form")
    text = page.PAGE.read_text()
    assert page.render(text, found) == text


def test_facts_name_the_machine():
    facts = record.facts()
    assert facts["threads"] == torch.get_num_threads()
    assert facts["processor"]
    assert time.strptime(facts["date"][:10], "%Y-%m-%d")
