"""Spikes, synaptic operations and arithmetic of S5RF against counts by brute force and by hand."""

import pytest
import torch
from torch import nn

from spikingssm.datasets import Rows, SequenceData
from spikingssm.measures.energy import account, joule, published
from spikingssm.measures.operations import Operations, driven, not_counted, operations
from spikingssm.measures.spikes import record_spikes, spikes_of
from spikingssm.models import S5RF
from spikingssm.tasks import Classification
from spikingssm.training.fit import SequenceModule, make_trainer, score

SILENT = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
SILENT |= {"enable_progress_bar": False, "enable_model_summary": False}
WIDTH, CLASSES = 8, 4


def lively(n_layers=3, d_input=3, factor=20.0, **options):
    """A model whose layers all fire."""
    options = {"num_blocks": 2, "eta_min": 0.05, "eta_max": 0.4, "solver": "loop", **options}
    model = S5RF(d_input, CLASSES, WIDTH, n_layers, start="published", **options)
    with torch.no_grad():
        for layer in model.layers:
            layer.dense.weight.mul_(factor)
    return model.eval()


def binary(*shape):
    return (torch.rand(*shape) < 0.3).float()


def walked(model, x, lengths):
    """Accumulations at every map: each whole number that enters it, as often as it says, times the map's outputs."""
    found, handles = {}, []

    def enter(name, outputs):
        def count(_, args):
            total = 0
            for row, steps in zip(args[0].int().tolist(), lengths.tolist(), strict=True):
                total += sum(sum(step) for step in row[:steps])
            found[name] = found.get(name, 0) + total * outputs

        return count

    for i, layer in enumerate(model.layers):
        handles.append(layer.dense.register_forward_pre_hook(enter(i, 2 * WIDTH)))
    handles.append(model.readout.register_forward_pre_hook(enter("readout", CLASSES)))
    model(x, lengths=lengths)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("skip", ["published", "all", "none"])
@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_operations_are_all_that_arrives_at_all_maps(n_layers, skip):
    model, x, lengths = lively(n_layers, skip=skip), binary(5, 30, 3), torch.tensor([30, 1, 17, 8, 30])
    with record_spikes(model) as record:
        model(x[:3], lengths=lengths[:3])
        model(x[3:], lengths=lengths[3:])
    found, want = account(model, record), walked(model, x, lengths)
    assert len(want) == n_layers + 1
    assert min(want.values()) > 0
    assert found["sops"] == pytest.approx(sum(want.values()) / 5, rel=1e-12)
    assert found["sops_by_layer"]["input"] == pytest.approx(want[0] / 5, rel=1e-12)
    assert found["sops"] == pytest.approx(sum(found["sops_by_layer"].values()), rel=1e-12)
    total = sum(count for name, count in want.items() if name != 0) / 5
    assert found["energy"]["published"]["acs"] == pytest.approx(total, rel=1e-12)
    for form in ("recurrence", "fft"):  # the same maps in the count of all arithmetic
        parts = {name: 1e12 * count for name, count in found["energy"][form]["parts"].items()}
        assert parts["encoder"] == pytest.approx(0.9 * want[0] / 5, rel=1e-9)
        assert parts["mix"] == pytest.approx(0.9 * total, rel=1e-9)


def test_spikes_arrive_at_every_map_behind_skips():
    def maps(n_layers, skip):
        return [len(maps) for name, maps in driven(lively(n_layers, skip=skip)).items() if name != "input"]

    assert maps(1, "all") == [1]
    assert maps(2, "published") == [1, 1]
    assert maps(2, "all") == [2, 1]
    assert maps(5, "published") == [4, 3, 2, 1, 1]  # layers 1, 2 and 3 hand on, the last one's spikes are read out
    assert maps(5, "all") == [5, 4, 3, 2, 1]
    assert maps(5, "none") == [1] * 5
    assert driven(lively(4))["layers.1.neuron"] == ("layers.2.dense", "layers.3.dense")
    assert driven(lively(1)) == {"input": ("layers.0.dense",), "layers.0.neuron": ("readout",)}


def test_skips_move_where_spikes_go_and_not_what_is_published():
    """The counted spikes are those of the neuron, before the skip adds those of the layers below."""
    model, x = lively(4, skip="all"), binary(3, 40, 3)
    with record_spikes(model) as record:
        model(x)
    outputs = {name: int(spikes.sum()) for name, spikes in spikes_of(model, x).items()}
    found = account(model, record)
    assert found["spikes_by_layer"] == pytest.approx({name: count / 3 for name, count in outputs.items()})
    entered = walked(model, x, torch.tensor([40, 40, 40]))["readout"] / CLASSES
    assert entered == sum(outputs.values()) > outputs["layers.3.neuron"]


def data_of(x):
    rows = Rows(x, torch.arange(len(x)) % CLASSES)
    return SequenceData("drawn", rows, rows, rows, d_output=CLASSES, batch_size=4)


def test_published_counts_are_means_over_samples_and_not_over_batches():
    """Guards defect 6 of the published code: a mean of batch means favours the rows of a small last batch."""
    model, x = lively(3), torch.cat([binary(8, 30, 3), 3 * binary(2, 30, 3)])  # the last batch of two is livelier
    found = score(SequenceModule(model, Classification(), classes=CLASSES), data_of(x), make_trainer(**SILENT))
    alone = [{name: int(spikes.sum()) for name, spikes in spikes_of(model, row[None]).items()} for row in x]
    want = {name: sum(row[name] for row in alone) / 10 for name in alone[0]}
    assert found["spikes_by_layer"] == pytest.approx(want, rel=1e-12)
    assert found["spikes"] == pytest.approx(sum(want.values()), rel=1e-12)
    assert found["spike_rate"] == pytest.approx(found["spikes"] / (30 * WIDTH * 3), rel=1e-6)  # the published activity
    assert found["input_events"] == x.sum().item() / 10
    totals = [sum(row.values()) for row in alone]
    means = sum(sum(totals[i : i + 4]) / len(totals[i : i + 4]) for i in (0, 4, 8)) / 3
    assert abs(means - found["spikes"]) > 1


@pytest.mark.parametrize(("value", "spikes"), [(0.0, True), (100.0, True), (101.0, False), (0.5, False)])
def test_data_are_spikes_only_if_all_are_small_whole_numbers(value, spikes):
    model, x = lively(2), binary(4, 10, 3)
    x[3, 4, 1] = value
    with record_spikes(model) as record:
        model(x[:2])
        assert record.events is not None
        model(x[2:])
    found = account(model, record)
    assert (record.events is not None) is ("input_events" in found) is ("input" in found["sops_by_layer"]) is spikes
    parts = found["energy"]["recurrence"]["parts"]
    dense = 4.6 * 10 * 3 * 2 * WIDTH
    assert 1e12 * parts["encoder"] == pytest.approx(0.9 * x.sum().item() / 4 * 2 * WIDTH if spikes else dense)


RATES = {"layers.0.neuron": 0.5, "layers.1.neuron": 0.25, "layers.2.neuron": 0.125, "input": 0.1}
STATE, MAP = Operations(4, 4) * WIDTH, 2 * WIDTH * WIDTH


def test_all_parts_by_hand():
    model = lively(3)
    want = {
        "encoder": Operations(additions=0.1 * 3 * 16),
        "ssm": STATE * 3,
        "neuron": Operations(additions=3 * WIDTH),
        "mix": Operations(additions=0.5 * MAP + (0.5 + 0.25) * MAP + 0.125 * WIDTH * CLASSES),
        "pool": Operations(CLASSES, 2 * CLASSES),
    }
    for form in ("recurrence", "fft"):
        assert operations(model, 5, RATES, form) == {name: count * 5 for name, count in want.items()}
    maps = 2 * MAP + WIDTH * CLASSES
    twin = {**want, "mix": Operations(maps, maps), "residual": Operations(additions=WIDTH)}
    del twin["neuron"]
    assert operations(model, 1, RATES, dense=True) == pytest.approx(twin)
    assert not_counted(model) == []
    real = {name: rate for name, rate in RATES.items() if name != "input"}
    for dense in (False, True):
        assert operations(model, 1, real, dense=dense)["encoder"] == Operations(3 * 16, 3 * 16)


class Number:
    """A number that counts what is done with it."""

    counts = [0, 0, 0]

    def __init__(self, value):
        self.value = value

    def __mul__(self, other):
        Number.counts[0] += 1
        return Number(self.value * other.value)

    def __add__(self, other):
        Number.counts[1] += 1
        return Number(self.value + other.value)

    def __sub__(self, other):
        return self + Number(-other.value)

    def root(self):
        Number.counts[2] += 1
        return Number(self.value**0.5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"discretisation": "zoh"},
        {"first_discretisation": "zoh"},
        {"magnitude": True},
        {"first_discretisation": "zoh", "magnitude": True, "refractory": 0.7},
        {"refractory": 0.7},
    ],
    ids=lambda options: "-".join(options) or "published",
)
def test_a_step_of_a_neuron_takes_that_many_operations(options):
    """The step written out on counting numbers gives the layer's spikes; the gain is in the map's output."""
    layer = lively(1, **options).double().layers[0]
    neuron, drive = layer.neuron, layer.dense(torch.randn(1, 50, 3, dtype=torch.float64)).detach()
    factor, gain = (t.detach() for t in neuron.system(torch.float64))
    u = gain * torch.complex(*drive[0].chunk(2, -1))
    V = torch.complex(*neuron.rotation) if neuron.rotate else None
    numbers = lambda z: (Number(z.real.item()), Number(z.imag.item()))  # noqa: E731
    x, q, spikes = [numbers(torch.tensor(0j))] * WIDTH, [Number(0.0)] * WIDTH, []
    for now in u:
        Number.counts, fired = [0, 0, 0], []
        for k in range(WIDTH):
            (a, b), (re, im), (ur, ui) = numbers(factor[k]), x[k], numbers(now[k])
            x[k] = a * re - b * im + ur, a * im + b * re + ui
        for k in range(WIDTH):
            re, im = x[k]
            if V is not None:
                n = len(V)
                row, states = [numbers(v) for v in V[k % n]], x[k - k % n : k - k % n + n]
                re = row[0][0] * states[0][0] - row[0][1] * states[0][1]
                for v, s in zip(row[1:], states[1:], strict=True):
                    re = re + v[0] * s[0] - v[1] * s[1]
                if neuron.magnitude:
                    im = row[0][0] * states[0][1] + row[0][1] * states[0][0]
                    for v, s in zip(row[1:], states[1:], strict=True):
                        im = im + v[0] * s[1] + v[1] * s[0]
            p = (re * re + im * im).root() if neuron.magnitude else re
            level = Number(neuron.threshold)
            if neuron.refractory is not None:
                level = level + q[k]
            fired.append(float((p - level).value > 0))
            if neuron.refractory is not None:
                q[k] = Number(neuron.refractory) * q[k] + Number(fired[-1])
        spikes.append(fired)
        found = operations(neuron, 1, {})
        assert found["ssm"] + found["neuron"] == Operations(*Number.counts)
    want = neuron(drive)[0][0]
    assert torch.equal(torch.tensor(spikes, dtype=torch.float64), want)
    assert 10 < want.sum() < 390


def test_the_readout_keeps_a_leaky_sum():
    """y = alpha y + o and sum = sum + y, on counting numbers, is the closed form of the layer."""
    model = lively(1)
    outputs = torch.randn(20, dtype=torch.float64)
    readout = model.readout.double()
    alpha, y, total = readout.tau.sigmoid()[0].item(), Number(0.0), Number(0.0)
    for o in outputs.tolist():
        Number.counts = [0, 0, 0]
        y = Number(alpha) * y + Number(o)
        total = total + y
        assert operations(model, 1, RATES)["pool"] == Operations(*(CLASSES * n for n in Number.counts))
    with torch.no_grad():
        readout.weight.fill_(0)[:, 0] = 1
        x = torch.zeros(1, 20, WIDTH, dtype=torch.float64)
        x[0, :, 0] = outputs
        assert total.value / 20 == pytest.approx(readout(x)[0][0, 0].item(), rel=1e-12)


def test_the_published_sizes_by_hand():
    """SHD, 250 steps of 140 channels, 128 x 2 neurons, 20 classes, on spikes and against dense maps."""
    with torch.device("meta"):
        model = S5RF(140, 20, 128, 2, num_blocks=32)
    rates = {"layers.0.neuron": 0.1, "layers.1.neuron": 0.05}
    found = published(model, 250, rates)
    assert found["macs"] == 250 * (128 * 256 + 128 * 20) == 8_832_000
    assert found["acs"] == pytest.approx(250 * (0.1 * 128 * 256 + 0.05 * 128 * 20))
    own, twin = (operations(model, 250, {**rates, "input": 0.02}, dense=dense) for dense in (False, True))
    assert own["encoder"] == twin["encoder"] == Operations(additions=pytest.approx(250 * 0.02 * 140 * 256))
    assert joule(own["ssm"]) * 1e12 == pytest.approx(250 * 256 * (4 * 3.7 + 4 * 0.9))


class Wrapped(nn.Module):
    """A model of one's own around S5RF: what its input map reads is no data."""

    def __init__(self):
        super().__init__()
        self.before, self.inner = nn.Linear(3, 3, bias=False), lively(2)

    def forward(self, x, lengths=None):
        return self.inner(self.before(x), None, lengths)


def test_a_model_inside_another_is_counted_by_its_names_there():
    model, x, lengths = Wrapped().eval(), binary(3, 20, 3), torch.tensor([20, 4, 9])
    with record_spikes(model) as record:
        model(x, lengths)
    assert set(driven(model)) == {"inner.layers.0.neuron", "inner.layers.1.neuron"}
    want = walked(model.inner, model.before(x).detach(), lengths)
    found = account(model, record)
    assert found["sops"] == pytest.approx((want[1] + want["readout"]) / 3)
    assert found["energy"]["recurrence"]["parts"]["other"] > 0
    assert found["not_counted"] == []
