"""Spike rates as counted by hand."""

import pytest
import torch
from torch import nn

import sdn
from sdn import LIF, Neuron
from spikingssm.measures.spikes import record_spikes, spikes_of, watch_neurons
from spikingssm.models import S5RF, SpikingSSM
from spikingssm.models.rsnn import RSNN


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


@pytest.mark.parametrize("layer", [Neuron(LIF(0.0), 4), RSNN(4, 2, 5).layers[0]], ids=["neuron", "recurrent"])
def test_arguments_may_be_named(layer):
    """A neuron calls its first argument current, a recurrent layer x."""
    seen = []
    _, state = layer(two_inputs())
    first = {"current": two_inputs()} if type(layer) is Neuron else {"x": two_inputs()}
    with watch_neurons(layer, seen.append), record_spikes(layer) as record:
        spikes, _ = layer(**first)
        layer(**first, state=state)
        layer(two_inputs(), state)
        layer(two_inputs(), state=state)
    assert all(torch.equal(firing.current, two_inputs()) for firing in seen)
    assert [firing.state is state for firing in seen] == [False, True, True, True]
    assert seen[0].state is None
    assert torch.equal(seen[0].spikes, spikes)
    assert record.rows == {"neuron": 8}


def test_data_may_be_named():
    model = RSNN(4, 2, 5)
    with record_spikes(model) as record:
        model.layers[0](x=two_inputs().round())
    assert record.events == int(two_inputs().round().sum())


def test_refuses_what_cannot_be_counted():
    with pytest.raises(ValueError, match=r"Linear holds no sdn\.SpikingLayer"), record_spikes(nn.Linear(2, 2)):
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


def network(**options):
    torch.manual_seed(3)
    sizes = {"d_model": 8, "n_layers": 2, "d_state": 4, "dynamics": sdn.LIF(0.3, 0.4), "solver": "loop", **options}
    return SpikingSSM(1 if "vocab" in options else 3, 2, **sizes).eval()


def counted_row_by_row(model, rows):
    """Spikes and steps of each layer when every row is run alone, without padding."""
    spikes, steps = {}, {}
    for row in rows:
        for name, fired in spikes_of(model, row.unsqueeze(0)).items():
            spikes[name] = spikes.get(name, 0) + int(fired.sum())
            steps[name] = steps.get(name, 0) + fired.shape[1]
    return spikes, steps


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"patch": 4}, {"prenorm": True, "norm": "batch"}])
def test_padding_is_no_step(options):
    """Guards defect 39: what is behind a row's end was counted."""
    model, lengths = network(**options), torch.tensor([30, 1, 17])
    x = 5 * torch.randn(3, 30, 3)
    with record_spikes(model) as record:
        model(x, lengths=lengths)
    spikes, steps = counted_row_by_row(model, [row[:n] for row, n in zip(x, lengths, strict=True)])
    assert record.spikes == spikes
    assert record.steps == steps
    assert record.elements == {name: 8 * n for name, n in steps.items()}
    assert record.rows == dict.fromkeys(spikes, 3)
    assert min(spikes.values()) > 0
    with record_spikes(model) as padded:
        model(x)
    assert padded.steps != steps


def test_padding_of_pairs_is_no_step():
    model, lengths = network(vocab=11, pairs=True), torch.tensor([[9, 4], [2, 7]])
    x = torch.randint(0, 11, (2, 2, 9))
    with record_spikes(model) as record:
        model(x, None, lengths)
    alone = network(vocab=11)  # the same weights up to the decoder, one sequence at a time
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if "decoder" not in k}, strict=False)
    rows = [row[:n] for row, n in zip(x.flatten(0, 1), lengths.flatten(), strict=True)]
    assert (record.spikes, record.steps) == counted_row_by_row(alone, rows)
    assert record.rows == dict.fromkeys(record.spikes, 4)


def test_padding_is_no_step_where_only_features_are_asked_for():
    model, x = network(vocab=11, pool="each"), torch.randint(0, 11, (2, 12))
    with record_spikes(model) as record:
        model.features(x, None, torch.tensor([12, 5]))
    assert (record.spikes, record.steps) == counted_row_by_row(model, [x[0], x[1, :5]])


class Framed(nn.Module):
    """A model of one's own that is told lengths, and whose neuron sees every second step."""

    patch = 2

    def __init__(self):
        super().__init__()
        self.neuron = Neuron(LIF(0.0), 1)

    def forward(self, x, lengths=None):
        return self.neuron(x[:, ::2])[0]


def test_lengths_of_a_model_of_ones_own_are_counted_in_its_frames():
    model = Framed()
    with record_spikes(model) as record:
        model(torch.ones(3, 7, 1), torch.tensor([7, 4, 1]))  # frames: 4, 2, 1
        model(torch.ones(2, 7, 1))
    assert record.spikes == record.elements == {"neuron": 7 + 8}
    with pytest.raises(ValueError, match=r"lengths of shape \(3,\).*\(2, 4\) rows"), record_spikes(model):
        model(torch.ones(2, 7, 1), lengths=torch.tensor([7, 7, 7]))


def test_a_call_that_fails_leaves_no_mask_behind():
    model, seen = network(), []
    with watch_neurons(model, lambda firing: seen.append(firing.valid)):
        with pytest.raises(ValueError, match="lengths must be"):
            model(torch.randn(2, 5, 3), lengths=torch.tensor([9, 9]))
        with pytest.raises(TypeError):
            model(torch.randn(2, 5, 3), nonsense=1)
        model(torch.randn(2, 5, 3), lengths=torch.tensor([5, 2]))
        model.blocks[0].layer.neuron(torch.randn(2, 5, 8))
        model(torch.randn(2, 5, 3))
    assert [None if valid is None else valid.sum().item() for valid in seen] == [7, 7, None, None, None]


def test_records_of_processes_add_up():
    model = Two().eval()
    with record_spikes(model) as record:
        model(two_inputs())
    both = record.summed(lambda counts: 2 * counts)
    assert both.spikes == {"first": 18, "second": 8}
    assert both.elements == {"first": 80, "second": 40}
    assert both.rows == {"first": 4, "second": 4}
    assert both.rates() == record.rates()


def reader_of_spikes():
    """A network that says what reads its data."""
    return S5RF(3, 2, 8, 2, num_blocks=2, solver="loop").eval()


def test_events_of_the_data_leave_padding_out():
    model, x, lengths = reader_of_spikes(), torch.randint(-2, 3, (3, 20, 3)).float(), torch.tensor([20, 1, 7])
    with record_spikes(model) as record:
        model(x, lengths=lengths)
        model(x[:1])
    kept = [x[0], x[1, :1], x[2, :7], x[0]]
    assert record.events == sum(int(row.abs().sum()) for row in kept)  # -1 takes one accumulation too
    behind = x.clone()
    behind[1, 1:] = 0.5
    with record_spikes(model) as padded:
        model(behind, lengths=lengths)
    assert padded.events == sum(int(row.abs().sum()) for row in kept[:3])


def test_data_of_a_model_that_does_not_say_what_reads_them_are_not_counted():
    model = network()
    with record_spikes(model) as record:
        model(torch.rand(2, 9, 3).round())
    assert record.events is None
    assert record.summed(lambda counts: counts).events is None


def test_events_of_processes_add_up():
    model = reader_of_spikes()
    with record_spikes(model) as record:
        model(torch.rand(2, 9, 3).round())
    assert record.summed(lambda counts: 2 * counts).events == 2 * record.events > 0
    with record_spikes(model) as record:
        model(0.3 * torch.rand(2, 9, 3).round())
    assert record.summed(lambda counts: 2 * counts).events is None
