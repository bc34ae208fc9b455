"""Spike rates as counted by hand."""

import pytest
import torch
from torch import nn

import sdn
from sdn import LIF, Neuron
from spikingssm.metrics import record_spikes
from spikingssm.models import SpikingSSM


class Two(nn.Module):
    """Two layers of different size; the second sees half of the first's channels, doubled."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Neuron(LIF(0.0), 4), Neuron(LIF(0.0), 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        spikes, _ = self.first(x)
        return self.second(2 * self.dropout(spikes)[..., :2])[0]


def two_inputs():
    """(2, 5, 4) currents with 9 at or above the threshold, 4 of them in the first two channels."""
    x = torch.zeros(2, 5, 4)
    x[0, :3, 0], x[1, 4, 1] = 1.0, 7.0
    x[:, 1, 2], x[1, 1:4, 3] = 1.5, 2.0
    return x


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_rates_are_counts_over_elements():
    model = Two().eval()
    with record_spikes(model) as record:
        model(two_inputs())
    assert record.spikes == {"first": 9, "second": 4}
    assert record.elements == {"first": 40, "second": 20}
    assert record.rates() == {"first": 9 / 40, "second": 4 / 20}
    assert record.total_rate == 13 / 60  # per element, not the mean of the rates


def test_training_dropout_does_not_touch_the_count():
    """Guards defect 38: spikes were read behind the dropout."""
    model = Two().train()
    seen = []
    model.second.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with record_spikes(model) as record:
        model(two_inputs())
    assert seen[0].max() == 4  # 2 / (1 - p): scaled, not binary
    assert record.spikes["first"] == 9


def test_runs_and_steps_add_up():
    model = Two().eval()
    with record_spikes(model) as record:
        model(two_inputs())
        model(two_inputs()[:1])
        model.first.step(torch.full((1, 4), 5.0))
    assert record.spikes["first"] == 9 + 4 + 4
    assert record.elements["first"] == 40 + 20 + 4


def test_nothing_is_left_on_the_model():
    model = Two().eval()
    before, keys = hooks(model), list(model.__dict__)
    with record_spikes(model) as record:
        assert hooks(model) == before + 2
        model(two_inputs())
    assert hooks(model) == before
    assert list(model.__dict__) == keys
    model(two_inputs())
    assert record.spikes["first"] == 9
    with pytest.raises(ValueError, match="9 channels"), record_spikes(model):
        model(torch.zeros(1, 1, 9))
    assert hooks(model) == before


def test_a_neuron_alone_is_a_model():
    with record_spikes(Neuron(LIF(0.0), 3)) as record:
        pass
    assert list(record.elements) == ["neuron"]


def test_refuses_what_cannot_be_counted():
    with pytest.raises(ValueError, match=r"Linear holds no sdn\.Neuron"), record_spikes(nn.Linear(2, 2)):
        pass
    with record_spikes(Two()) as record:
        pass
    with pytest.raises(ValueError, match=r"'first', 'second'.*not run"):
        record.rates()
    with pytest.raises(ValueError, match="not run"):
        _ = record.total_rate


def test_names_the_layers_of_spikingssm():
    model = SpikingSSM(3, 2, 8, 2, 4, dynamics=sdn.LIF(0.3, 0.4), solver="loop", dropout=0.0)
    outputs = []
    for block in model.blocks:
        block.layer.neuron.register_forward_hook(lambda m, i, out: outputs.append(out[0].mean().item()))
    with record_spikes(model) as record:
        model(5 * torch.randn(2, 30, 3))
    assert record.rates() == pytest.approx(
        {"blocks.0.layer.neuron": outputs[0], "blocks.1.layer.neuron": outputs[1]}, rel=1e-6
    )
    assert 0.02 < record.total_rate < 0.8
