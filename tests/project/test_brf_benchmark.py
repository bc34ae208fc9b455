"""Suite ``brf``: what it compares is one network, as published and ours, and it sees when it is not; peers likewise."""

import pytest
import torch

from benchmarks import brf_case, brf_reference, gpu, page, record, recurrent_peers
from benchmarks.harness import Bench
from sdn.gradients import Triangle, spike


@pytest.fixture(scope="module", params=["smnist 64", "ecg 16", "shd 32"])
def small(request):
    return brf_case.case(brf_case.SIZES[request.param].tiny(), 0.1, torch.float64)


def test_network_of_the_benchmark_fires_as_asked_all_the_time(small):
    spikes = brf_case.build("loop", small).spikes()
    assert spikes.mean().item() == pytest.approx(0.1, rel=0.2)
    assert all(0.03 < part.mean() < 0.25 for part in spikes.chunk(4, 1))


@pytest.mark.parametrize("variant", ["fused", "loop", "published, scripted"])
def test_variants_are_the_published_network(small, variant):
    found = brf_case.errors(small, variant)
    assert found["spikes"] > 50
    assert (found["flips"], found["first_flip"]) == (0, None)
    assert found["loss_error"] < 1e-12
    assert found["gradient_error"] < 1e-10


def test_check_sees_another_network(small, monkeypatch):
    published = brf_case.PublishedBRF.sharing(small.model)
    with torch.no_grad():
        published.weight[:, small.size.d_input :] = 0
    monkeypatch.setattr(brf_case.PublishedBRF, "sharing", lambda model, scripted=False: published)
    found = brf_case.errors(small, "loop")
    assert found["flips"] > 0
    assert found["first_flip"] > 0


def test_check_sees_another_spike_gradient(small, monkeypatch):
    slope = brf_reference.slope
    monkeypatch.setattr(brf_reference, "slope", lambda v: 0.9 * slope(v))
    found = brf_case.errors(small, "loop")
    assert found["flips"] == 0
    assert found["gradient_error"] > 1e-2


def test_gradients_are_compared_on_the_steps_before_the_first_flip(small, monkeypatch):
    build = brf_case.build

    def flipping(name, given):
        made = build(name, given)
        if name == "published, eager":
            return made

        def spikes():
            found = made.spikes().clone()
            found[0, 30:33, 1] = 1 - found[0, 30:33, 1]
            return found

        def gradients():
            assert given.x.shape[1] == 30
            return {name: 1.5 * grad for name, grad in made.gradients().items()}

        return made._replace(spikes=spikes, gradients=gradients)

    monkeypatch.setattr(brf_case, "build", flipping)
    found = brf_case.errors(small, "fused")
    assert (found["flips"], found["first_flip"]) == (3, 30)
    assert found["gradient_error"] == pytest.approx(0.5)


def test_steps_leave_the_network_as_it_is(small):
    before = {name: p.detach().clone() for name, p in small.model.named_parameters()}
    for name in brf_case.VARIANTS:
        brf_case.training_step(name, small)()
        brf_case.forward(name, small)()
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in small.model.named_parameters())


def test_rows_for_a_device_run_on_a_cpu_and_are_shown():
    bench = Bench("gpu", "tiny")
    gpu.brf(bench, "cpu")
    checks = [row for row in bench.rows if row["table"] == "brf check"]
    assert all(row["spikes"] > 0 and row["gradient_error"] < 1e-4 for row in checks)
    result = {"suite": bench.suite, "facts": record.facts(), "rows": bench.rows}
    shown = page.render("<!-- table gpu-brf -->\nnot yet\n<!-- end -->", {"gpu": result})
    assert "not yet" not in shown
    assert "smnist 256" in shown
    assert "published, eager" in shown


def test_recurrent_peers_are_checked_not_trusted():
    generator = torch.Generator().manual_seed(0)
    x, incoming = torch.rand(2, 60, 3, generator=generator), torch.randn(2, 60, 16, generator=generator)
    weight = torch.randn(16, 19, generator=generator)
    weight[:, 3:] /= 4

    def neuron(decay):
        def step(current, membrane):
            h = current if membrane is None else decay * membrane + current
            fired = spike(h - 1, Triangle(), True)
            return fired, h * (1 - fired)

        return lambda x, w: recurrent_peers.stepwise(step, x.transpose(0, 1), w).transpose(0, 1)

    same = recurrent_peers.errors(neuron(0.5), x, weight, incoming)
    assert 0.05 < same["rate"] < 0.7
    assert (same["flips"], same["first_flip"]) == (0, None)
    assert same["gradient_error"] < 1e-5
    assert recurrent_peers.errors(neuron(0.5), x, weight, incoming, detach_reset=True)["gradient_error"] > 1e-3
    assert recurrent_peers.errors(neuron(0.6), x, weight, incoming)["flips"] > 0
    for peer in recurrent_peers.installed():
        found = recurrent_peers.errors(
            lambda x, w, run=peer.run: run(x.transpose(0, 1), w).transpose(0, 1), x, weight, incoming, peer.detach_reset
        )
        assert found["flips"] == 0, peer.name
        assert found["gradient_error"] < 1e-5, peer.name
