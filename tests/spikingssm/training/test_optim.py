"""Parameter groups and the learning rate over the steps."""

import pytest
from test_training import tiny
from torch import nn

from spikingssm.layers import S4D
from spikingssm.models import SpikingSSM
from spikingssm.training.optim import parameter_groups, warmup_cosine


@pytest.mark.parametrize("options", [{}, {"norm": "batch", "learn_b": True, "bidirectional": True}])
def test_every_parameter_is_in_one_group_with_its_options(options) -> None:
    """Guards defects 33 and 41: an lr was clipped without a word, and thresholds decayed."""
    model = tiny(**options)
    groups = {group["name"]: group for group in parameter_groups(model, lr=0.01, weight_decay=0.1)}
    names = {id(p): n for n, p in model.named_parameters()}
    placed = [names[id(p)] for group in groups.values() for p in group["params"]]
    assert sorted(placed) == sorted(names.values())
    found = {names[id(p)].split("0.", 1)[-1]: group for group in groups.values() for p in group["params"]}
    assert found["layer.ssm.log_dt"]["lr"] == 1e-3
    assert found["layer.ssm.A_imag"]["weight_decay"] == 0
    assert found["layer.neuron.learned.threshold"]["weight_decay"] == 0
    assert found["layer.neuron.learned.threshold"]["lr"] == 0.01
    assert found["norm.weight"]["weight_decay"] == found["layer.output.bias"]["weight_decay"] == 0
    assert found["layer.output.weight"]["weight_decay"] == found["encoder.weight"]["weight_decay"] == 0.1
    assert parameter_groups(model, lr=1e-4, weight_decay=0.1)[0]["lr"] == 1e-4


def test_decay_pulls_nothing_that_has_a_meaning_of_its_own() -> None:
    """Guards defect 41: AdamW pulled log thresholds, C and D towards 0."""
    model = tiny(learn_b=True)
    kept = {id(p): g["weight_decay"] for g in parameter_groups(model, lr=0.01, weight_decay=0.1) for p in g["params"]}
    block = model.blocks[1].layer
    for name, parameter in [*block.ssm.named_parameters(), *block.neuron.named_parameters()]:
        assert kept[id(parameter)] == 0, name
    assert kept[id(block.output.weight)] == 0.1


def test_sizes_are_all_that_is_needed() -> None:
    """Guards defect 33: without an lr, or with the default layer, nothing could be built."""
    for model in (S4D(4), SpikingSSM(1, 10)):
        lrs = {g["name"]: g["lr"] for g in parameter_groups(model, lr=0.1, weight_decay=0.0)}
        assert lrs["slow"] == 1e-3
        assert sum(p.numel() for g in parameter_groups(model, 0.1, 0.0) for p in g["params"]) > 4 * 32


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    assert [(g["name"], len(g["params"])) for g in parameter_groups(layer, 0.1, 0.1)] == [("plain", 1)]


@pytest.mark.parametrize(("warm", "total"), [(0, 50), (5, 50), (10, 10), (0, 1)])
def test_the_schedule_rises_once_and_falls_to_zero(warm, total) -> None:
    """Guards defect 37: behind its end the cosine rose again."""
    factors = [warmup_cosine(step, warm, total) for step in range(total + 20)]
    assert factors[:warm] == sorted(factors[:warm])
    assert all(0 < f < 1 for f in factors[:warm])
    assert factors[warm:] == sorted(factors[warm:], reverse=True)
    assert total == warm or factors[warm] == 1
    assert all(f == pytest.approx(0, abs=1e-12) for f in factors[total + (total == warm) :])


def test_thresholds_decay_only_where_that_is_asked_for() -> None:
    """Guards defect 41: AdamW pulled log thresholds towards 0; the published results were made so."""
    model = tiny()
    thresholds = {id(p) for name, p in model.named_parameters() if "threshold" in name}
    assert len(thresholds) == 2
    for asked, expected in ((False, 0.0), (True, 0.1)):
        groups = parameter_groups(model, lr=0.01, weight_decay=0.1, decay_threshold=asked)
        assert {g["weight_decay"] for g in groups for p in g["params"] if id(p) in thresholds} == {expected}
        assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_the_slow_parameters_can_have_a_learning_rate_of_their_own() -> None:
    model = S4D(4, 4)
    rates = [{g["name"]: g["lr"] for g in parameter_groups(model, 0.01, 0.1, slow_lr=rate)} for rate in (None, 0.004)]
    assert [r["slow"] for r in rates] == [0.001, 0.004]
    assert [r["plain"] for r in rates] == [0.01, 0.01]
