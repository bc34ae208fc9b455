"""``weights=``: a new run that starts from the weights of another one, to train longer or on other data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from loguru import logger
from omegaconf import OmegaConf
from small_runs import CLASSES, recurrent_run

from sdn.runs.folder import load_checkpoint
from spikingssm.datasets.interface import Interface
from spikingssm.experiments.config import load
from spikingssm.experiments.run import _say_other_classes, run


class Begun(ValueError):
    """The training would begin now."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return recurrent_run(tmp_path_factory.mktemp("weights") / "one")


@pytest.fixture
def begin(monkeypatch, trained):
    """A run with these overrides up to its training: its configuration and the weights that it begins with."""

    def until_fit(*words, folder):
        seen = {}

        def fit(module, data, run_dir, **options):
            seen.update({name: value.clone() for name, value in module.state_dict().items()})
            raise Begun

        kept = [f"run_dir={folder}", "weights=null", *words]
        config = OmegaConf.merge(OmegaConf.load(trained / "config.yaml"), OmegaConf.from_dotlist(kept))
        monkeypatch.setattr("spikingssm.experiments.run.fit", fit)
        with pytest.raises(Begun):
            run(config)
        return OmegaConf.load(folder / "config.yaml"), seen

    return until_fit


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("named", ["", "checkpoints/last.ckpt"], ids=["a run", "a checkpoint"])
def test_a_run_starts_from_given_weights(tmp_path, trained, begin, named):
    path = trained / named
    best = load_checkpoint(trained / "checkpoints" / "best.ckpt")["state_dict"]
    config, weights = begin(f"weights={path}", folder=tmp_path / "two")
    assert config.weights == str(path)
    assert equal(weights, best)
    assert not equal(begin(folder=tmp_path / "three")[1], best)
    assert f"starting from the weights in {trained}" in (tmp_path / "two" / "run.log").read_text()


def test_what_a_run_found_in_its_data_goes_with_its_weights(tmp_path, trained, begin):
    """Rows of two classes alone would give a network of two outputs, into which the weights do not fit."""
    rows = dict(np.load(trained.parent / "rows.npz"))
    np.savez(tmp_path / "fewer.npz", **{**rows, "y": rows["y"] % 2, "y_test": rows["y_test"] % 2})
    words = [f"data.path={tmp_path / 'fewer.npz'}", "data.classes=null"]
    config, _ = begin(*words, f"weights={trained}", folder=tmp_path / "two")
    assert config.data.classes == CLASSES
    assert begin(*words, folder=tmp_path / "three")[0].data.classes == 2


def test_another_run_is_a_new_one_from_the_weights(trained):
    assert load([f"resume={trained}", "trainer.max_epochs=3"]).trainer.max_epochs == 3  # the same run, longer
    with pytest.raises(ValueError, match=rf"lr=.*, not 3; .* with the new values and weights={trained} in place"):
        load([f"resume={trained}", "optim.lr=3"])


def test_weights_that_are_not_there_are_named(tmp_path, trained):
    config = OmegaConf.merge(OmegaConf.load(trained / "config.yaml"), {"run_dir": str(tmp_path / "two")})
    for weights in (str(tmp_path / "none"), 5):
        with pytest.raises(FileNotFoundError, match=f"weights={weights}: no .*; give the folder of a trained run"):
            run(OmegaConf.merge(config, {"weights": weights}))


def test_a_start_from_weights_for_other_classes_is_said(tmp_path, trained, loud):
    """The last layer answers for the classes of the run before."""
    before = Interface.read(trained)
    names = tuple(f"class {number}" for number in range(before.d_output))
    _say_other_classes(trained, before)
    assert loud == []
    _say_other_classes(trained, replace(before, classes=names))
    assert "answers for the classes 0, 1" in loud[0]
    assert "and these data have class 0, class 1" in loud[0]
    _say_other_classes(tmp_path, before)  # a folder that says nothing
    assert len(loud) == 1


@pytest.fixture
def loud():
    lines = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)
