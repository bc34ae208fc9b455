"""The metrics under NeuroBench's names, against loops over every row, step, input and weight."""

import itertools

import pytest
import torch
from torch import nn

import sdn
from sdn import BRF, LIF, Neuron
from spikingssm.layers import Recurrent
from spikingssm.measures.card import (
    connection_sparsity,
    footprint,
    map_counts,
    metrics_of,
    neurobench,
    outside_maps,
    state_bytes,
    stream_state,
)
from spikingssm.measures.latency import NOT_MEASURED, frames, step_times
from spikingssm.measures.maps import record_maps
from spikingssm.measures.operations import Operations, operations
from spikingssm.measures.spikes import neurons_of, record_spikes, spikes_of
from spikingssm.models import RSNN, S5RF, SpikingSSM

ROWS, STEPS = 3, 11
LENGTHS = torch.tensor([11, 4, 7])


def pruned(model, every=3):
    """A model with each third weight of its maps at 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "ssm" not in name:
                parameter.view(-1)[::every] = 0
    return model.eval()


def looped(x, weight):
    """Pairs of an input and a weight that are both not 0: x (L, inputs), weight (outputs, inputs)."""
    return sum(
        x[t][i] != 0 and weight[j][i] != 0
        for t, i, j in itertools.product(range(len(x)), range(len(weight[0])), range(len(weight)))
    )


def spikingssm():
    return pruned(SpikingSSM(2, 3, 6, 2, 4, patch=4, solver="fused", dropout=0.0))


def s5rf():
    model = S5RF(2, 3, 8, 4, num_blocks=2, eta_max=1.0)
    with torch.no_grad():
        for layer in model.layers[1:]:
            layer.dense.weight.mul_(6)
    return pruned(model)


def rsnn():
    model = RSNN(2, 3, [5, 4], dynamics=LIF(0.8), mask=0.4, tau_mean=3.0, tau_std=0.5)
    return pruned(model)


def inputs_of(model, x):
    """What each map of a model reads of one row without padding, x (L, C), found without its hooks."""
    spikes = {name: found[0] for name, found in spikes_of(model, x[None]).items()}
    if isinstance(model, SpikingSSM):
        padded = nn.functional.pad(x, (0, 0, 0, -len(x) % 4))
        frame = torch.stack([padded[at : at + 4].flatten() for at in range(0, len(x), 4)])
        pooled = model.features(x[None])[0]
        blocks = {f"blocks.{i}.layer.output": spikes[f"blocks.{i}.layer.neuron"] for i in range(2)}
        return {"encoder": frame, **blocks, "decoder": pooled}
    if isinstance(model, S5RF):
        first, second, third, last = spikes.values()
        reads = [x, first, first + second, first + second + third, last]
        return dict(zip([*(f"layers.{i}.dense" for i in range(4)), "readout"], reads, strict=True))
    first, second = spikes.values()
    maps = {"layers.0.input": x, "layers.0.recurrent": first, "layers.1.input": first, "layers.1.recurrent": second}
    return {**maps, "readout": second}


def matrices(model):
    """The weights of each map, without connections that are cut."""
    found = {name: part.weight for name, part in model.named_modules() if getattr(part, "weight", None) is not None}
    found = {name: weight for name, weight in found.items() if weight.ndim == 2}
    found = {name: weight for name, weight in found.items() if not isinstance(model.get_submodule(name), Recurrent)}
    for name, part in model.named_modules():
        if isinstance(part, Recurrent):
            found[f"{name}.recurrent"] = part.recurrent.weight * part.mask
    return {name: weight.tolist() for name, weight in found.items()}


@pytest.mark.parametrize("make", [spikingssm, s5rf, rsnn])
@torch.no_grad()
def test_every_metric_is_that_of_loops_over_rows_without_padding(make):
    torch.manual_seed(1)
    model = make()
    x = 3 * torch.randn(ROWS, STEPS, 2)
    x[:, ::3, 0] = 0
    with record_spikes(model) as spikes, record_maps(model) as maps:
        model(x, lengths=LENGTHS)
    found, by_map = neurobench(model, spikes, maps), map_counts(spikes, maps)
    weights, rows = matrices(model), [x[i, :n] for i, n in enumerate(LENGTHS.tolist())]
    assert list(by_map) == [name for name, _ in model.named_modules() if name in weights]
    reads = [inputs_of(model, row) for row in rows]
    totals = {"MAC": 0.0, "AC": 0.0, "dense": 0.0}
    for name, weight in weights.items():
        given = [row[name] for row in reads]
        effective = sum(looped(one.tolist(), weight) for one in given) / ROWS
        dense = sum(len(one) for one in given) * len(weight) * len(weight[0]) / ROWS
        kind = "AC" if all(v in (-1, 0, 1) for one in given for v in one.flatten().tolist()) else "MAC"
        assert by_map[name]["effective"] == pytest.approx(effective), name
        assert by_map[name]["dense"] == pytest.approx(dense), name
        assert by_map[name]["kind"] == kind, name
        totals[kind] += effective
        totals["dense"] += dense
    assert found["SynapticOperations"] == pytest.approx(
        {"Effective_MACs": totals["MAC"], "Effective_ACs": totals["AC"], "Dense": totals["dense"]}
    )
    flat = [weight for matrix in weights.values() for line in matrix for weight in line]
    assert found["ConnectionSparsity"] == flat.count(0) / len(flat) > 0.3
    trains = [spikes_of(model, row[None]) for row in rows]
    layers = {name: torch.cat([train[name].flatten() for train in trains]).tolist() for name in neurons_of(model)}
    for name, train in layers.items():
        assert found["ActivationSparsityByLayer"][name] == pytest.approx(train.count(0) / len(train))
        assert train.count(1) > 0
    every = [spike for train in layers.values() for spike in train]
    assert found["ActivationSparsity"] == pytest.approx(every.count(0) / len(every))
    assert found["MembraneUpdates"] == pytest.approx(len(every) / ROWS)
    assert found["ParameterCount"] == sum(len(p.flatten().tolist()) for p in model.parameters())


def test_a_skip_reads_numbers_and_is_counted_as_macs():
    """Where two spikes meet a 2 arrives: one pair, and no longer -1, 0 or 1. SOPs count both."""
    torch.manual_seed(1)
    with torch.no_grad():
        found = metrics_of(s5rf(), [3 * torch.randn(ROWS, STEPS, 2)])["maps"]
    assert [found[f"layers.{i}.dense"]["kind"] for i in (1, 2)] == ["AC", "MAC"]
    assert (found["layers.1.dense"]["source"], found["layers.2.dense"]["source"]) == ("spikes", "watched")


@pytest.mark.parametrize(
    ("value", "behind", "kind"), [(1.0, 0.0, "AC"), (-1.0, 0.0, "AC"), (2.0, 0.0, "MAC"), (1.0, 7.0, "AC")]
)
def test_what_the_first_map_reads_decides_between_ac_and_mac(value, behind, kind):
    model = RSNN(2, 3, 4)
    x = torch.zeros(1, 6, 2)
    x[0, 2, 1], x[0, 5, 0] = value, behind
    found = metrics_of(model, [(x, torch.tensor([5]))])["maps"]["layers.0.input"]
    assert (found["kind"], found["effective"], found["dense"]) == (kind, 4, 5 * 8)


def test_batches_add_up_and_pairs_are_one_sample():
    torch.manual_seed(0)
    model = s5rf()
    x = 3 * torch.randn(4, STEPS, 2)
    whole, parts = metrics_of(model, [x]), metrics_of(model, [x[:3], x[3:]])
    assert whole == parts
    pairs = SpikingSSM(1, 2, 4, 1, 2, vocab=5, pairs=True, solver="fused", dropout=0.0).eval()
    tokens = torch.randint(5, (3, 2, 6))
    with record_spikes(pairs) as spikes, record_maps(pairs) as maps, torch.no_grad():
        pairs(tokens, lengths=torch.tensor([[6, 2], [4, 5], [3, 3]]))
    counts = map_counts(spikes, maps, sequences=2)
    assert counts["blocks.0.layer.output"]["dense"] == pytest.approx(23 * 4 * 8 / 3)
    assert counts["decoder.inner"]["dense"] == 16 * 4  # once for two sequences
    assert neurobench(pairs, spikes, maps, 2)["MembraneUpdates"] == pytest.approx(23 * 4 / 3)
    assert outside_maps(pairs, spikes, 2)["recurrence"]["residual"]["additions"] == pytest.approx(23 * 4 / 3)


def test_a_network_of_ones_own():
    torch.manual_seed(0)
    net = sdn.Sequential(nn.Linear(2, 4), Neuron(LIF(0.5), 4), nn.Linear(4, 3, bias=False), Neuron(LIF(0.5), 3))
    with torch.no_grad():
        net[0].weight.mul_(5)
    x = torch.randn(2, 7, 2)
    found = metrics_of(net.train(), [x])
    assert net.training
    spikes = spikes_of(net, x)["1"]
    assert found["maps"]["2"] == {
        "kind": "AC", "effective": 3 * spikes.sum().item() / 2, "dense": 7 * 12, "times": 7, "source": "watched",
    }  # fmt: skip
    assert (found["ParameterCount"], found["Footprint"]) == (8 + 4 + 12, 4 * (8 + 4 + 12))
    recurrent = sdn.Sequential(Recurrent(2, BRF(), 4, mask=torch.eye(4)), nn.Linear(4, 1))
    x = 300 * torch.randn(2, 50, 2)
    fired = spikes_of(recurrent, x)["0"].sum().item()
    assert fired > 5
    assert metrics_of(recurrent, [x])["maps"]["0.recurrent"]["effective"] == fired / 2  # each reaches itself alone


@pytest.mark.parametrize("make", [spikingssm, s5rf, rsnn])
def test_maps_and_what_is_outside_of_them_is_all_arithmetic(make):
    model = make()
    with record_spikes(model) as spikes, torch.no_grad():
        model(3 * torch.randn(ROWS, STEPS, 2), lengths=LENGTHS)
    steps, rates = spikes.steps[next(iter(spikes.steps))] / ROWS, spikes.rates()
    for form in ("recurrence", "fft"):
        whole = operations(model, steps, rates, form)
        outside = {part: Operations(**count) for part, count in outside_maps(model, spikes)[form].items()}
        assert {"ssm", "neuron"} & set(outside)
        for part, count in whole.items():
            left = vars(outside.get(part, Operations()))
            if part in ("ssm", "neuron", "gate", "norm", "residual", "pool"):
                assert left == pytest.approx(vars(count))
            else:
                assert left["multiplications"] == 0
                assert left["additions"] < count.additions


def test_bytes():
    net = nn.Module()
    net.a, net.b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, dtype=torch.float64))
    net.register_buffer("c", torch.zeros(5, dtype=torch.int8))
    assert footprint(net) == 12 + 16 + 5
    assert connection_sparsity(nn.ReLU()) == 0
    assert state_bytes((torch.zeros(2), [None, {"x": torch.zeros(1, dtype=torch.int64)}], 3)) == 16


def test_the_state_of_a_stream_is_that_behind_its_steps():
    """A pointwise surrogate keeps the inputs that it looks back on; at rest there are none."""
    x = torch.randn(300, 2)
    exact = SpikingSSM(2, 3, 6, 1, 4, solver="fused")
    assert stream_state(exact, x) == 6 * 2 * 8 + 6 * 4 + 6 * 4 + 8  # modes, membranes, sum, count
    network = exact.with_solver("surrogate")
    assert stream_state(network, x) > state_bytes(network.initial_state(1))
    with pytest.raises(NotImplementedError, match="gives no state"):
        stream_state(SpikingSSM(2, 3, 6, 1, 4, solver="fused", bidirectional=True), x)


def test_steps_are_timed_where_there_are_any():
    row = torch.randn(10, 2)
    found = step_times(spikingssm(), row, steps=12, compiled_steps=15)
    assert found["reads"] == "4 steps of the data"
    for name, steps in (("step", 12), ("compiled_step", 15)):
        assert found[name]["steps"] == steps
        assert 0 < found[name]["p10_us"] <= found[name]["median_us"] <= found[name]["p90_us"]
        assert found[name]["device"] == "cpu"
    both = step_times(SpikingSSM(2, 3, 6, 1, 4, solver="fused", bidirectional=True), row, steps=12)
    assert "bidirectional network needs the steps to come" in both["compiled_step"][NOT_MEASURED]
    assert NOT_MEASURED in both["step"]
    assert (
        "Sequential has no compile_step"
        in step_times(sdn.Sequential(Neuron(LIF(), 2)), row)["compiled_step"][NOT_MEASURED]
    )
    assert torch.equal(torch.cat(frames(row, 4)).reshape(12, 2), nn.functional.pad(row, (0, 0, 0, 2)))
    assert [step.shape for step in frames(torch.arange(3), 1)] == [(1,)] * 3
