"""Stored weights are those of a module by name, shape and kind, and are numbers."""

import pytest
import torch
from torch import nn

from sdn.runs.weights import misfit, with_fixed
from spikingssm.training.fit import check_weights


class Neuron(nn.Module):
    """Stands in for one that keeps what is given and not learned in buffers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.fixed = nn.Module()
        self.fixed.register_buffer("threshold", torch.full((4,), 0.7))
        self.register_buffer("count", torch.tensor(3))


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(3, 4), Neuron())


def test_weights_of_another_precision_fit(model):
    for cast in (nn.Module.double, nn.Module.half, nn.Module.bfloat16):
        own = {k: v.clone() for k, v in model.state_dict().items()}
        assert misfit(cast(model).state_dict(), own) is None
        assert misfit(own, model.state_dict()) is None
    with torch.device("meta"):
        assert misfit(own, nn.Sequential(nn.Linear(3, 4), Neuron()).state_dict()) is None


CHANGES = {
    "int": (lambda v: v.int(), "holds torch.int32, this model has torch.float32"),
    "bool": (lambda v: v > 0, "holds torch.bool"),
    "complex": (lambda v: v * 1j, "holds torch.complex64"),
    "sparse": (lambda v: v.to_sparse(), "is a torch.sparse_coo tensor"),
    "quantised": (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), "is a quantised tensor"),
    "meta": (lambda v: v.to("meta"), "is a meta tensor"),
    "nan": (lambda v: v * torch.nan, "is NaN or infinite in 12 of 12 places"),
    "infinite": (lambda v: v / 0, "is NaN or infinite"),
    "list": (lambda v: v.tolist(), r"is \(\) there and \(4, 3\) here"),
    "shape": (lambda v: v.T, r"is \(3, 4\) there and \(4, 3\) here"),
    "numbers": (lambda v: 1.0, r"is \(\) there"),
}


@pytest.mark.parametrize(("change", "says"), CHANGES.values(), ids=CHANGES)
@pytest.mark.filterwarnings("ignore:.*(quantiz|TypedStorage)")
def test_other_kinds_of_numbers_are_refused_in_one_line(model, tmp_path, change, says):
    path = tmp_path / "best.ckpt"
    state = {k: change(v) if k == "0.weight" else v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state}, path)
    with pytest.raises(ValueError, match=says) as caught:
        check_weights(path, model)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_count_stays_a_count(model):
    state = dict(model.state_dict())
    assert "1.count holds torch.float32" in misfit({**state, "1.count": torch.tensor(3.0)}, state)


def test_fixed_values_that_an_older_file_lacks_are_those_of_the_module(model, tmp_path):
    path, state = tmp_path / "best.ckpt", dict(model.state_dict())
    assert "1.fixed.threshold" in state
    older = {name: value for name, value in state.items() if "fixed" not in name}
    torch.save({"state_dict": older}, path)
    found = check_weights(path, model)
    assert found.keys() == state.keys()
    assert torch.equal(found["1.fixed.threshold"], torch.full((4,), 0.7))
    model.load_state_dict(found)
    stored = {**state, "1.fixed.threshold": torch.zeros(4)}
    assert torch.equal(with_fixed(stored, state)["1.fixed.threshold"], torch.zeros(4)), "what is stored counts"
    torch.save({"state_dict": {k: v for k, v in older.items() if k != "1.weight"}}, path)
    with pytest.raises(ValueError, match=r"1\.weight is nothing there"):
        check_weights(path, model)
