"""What was found by looking at the training rows is part of the run: other data are tested with the same."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from loguru import logger
from omegaconf import OmegaConf

from spikingssm.datasets import imdb, wikitext
from spikingssm.experiments.config import load
from spikingssm.experiments.evaluation import load_run
from spikingssm.experiments.run import run

TINY = [
    "dataset=fsdd", "data.length=40", "data.batch_size=8", "data.val_fraction=0.2", "model.d_model=4",
    "model.d_state=4", "model.n_layers=1", "model.solver=loop", "trainer.max_epochs=1", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "threads=1", "name=clips",
]  # fmt: skip


def write_clips(root: Path, loud: int) -> Path:
    """Ten digits, two speakers, eight indices."""
    (root / "recordings").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for digit in range(10):
        for speaker in ("ann", "bob"):
            for index in range(8):
                clip = (loud * np.sign(draw.normal(size=40))).astype(np.int16)
                soundfile.write(root / "recordings" / f"{digit}_{speaker}_{index}.wav", clip, 8000, subtype="PCM_16")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two data sets of other loudness, and a run on the first."""
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        write_clips(folder / "loud", 2**14)
        write_clips(folder / "quiet", 2**8)
        run(load([*TINY, f"data.root={folder / 'loud'}", f"run_dir={folder / 'run'}"]))
    return folder


@pytest.fixture
def said(place, monkeypatch):
    monkeypatch.chdir(place)
    lines = []
    handler = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(handler)


def test_a_run_keeps_its_scale_and_tests_other_data_with_it(place, said) -> None:
    assert OmegaConf.load(place / "run" / "config.yaml").data.scaling == pytest.approx(0.5)
    for options, scale in (({}, 1.0), ({"root": place / "quiet"}, 2**-6), ({"rate": 2}, None), ({"limit": 5}, 1.0)):
        opened = load_run(place / "run", **options)
        x = opened.data.test_set[int(opened.data.test_rows[0])].x
        assert opened.data.fitted == {"scaling": pytest.approx(0.5)}
        assert scale is None or x.abs().max() == pytest.approx(scale)
    assert not [line for line in said if "keeps no" in line]


def test_an_older_run_is_tested_as_before_and_it_is_said(place, said, tmp_path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    config = OmegaConf.load(path)
    config.data.scaling = None
    path.write_text(OmegaConf.to_yaml(config))
    opened = load_run(tmp_path / "run", root=place / "quiet")
    assert opened.data.test_set[0].x.abs().max() == pytest.approx(1.0)
    assert [line for line in said if "is older and keeps no data.scaling; 0.0078125 is taken" in line]


def test_a_resume_with_the_same_overrides_is_not_a_change(place, said) -> None:
    again = [*TINY, f"data.root={place / 'loud'}", f"resume={place / 'run'}"]
    assert load(again).data.scaling == pytest.approx(0.5)
    with pytest.raises(ValueError, match="a resumed run keeps its configuration"):
        load([*again, "data.scaling=0.25"])


def test_tokens_of_another_vocabulary_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for root, letters in (("one", "abcdefgh"), ("two", "bacdefgh")):
        for part in ("train", "test"):
            for folder, stars in (("pos", 9), ("neg", 2)):
                for number in range(4):
                    path = tmp_path / root / "aclImdb" / part / folder / f"{number}_{stars}.txt"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text("".join(letter * (9 - n) for n, letter in enumerate(letters)))
        for part in ("train", "valid", "test"):
            (tmp_path / root / f"wiki.{part}.tokens").write_text(" ".join(letters + letters[:4] + letters[:1]) + "\n")
    options = {"level": "char", "min_freq": 1, "length": 8, "batch_size": 2}
    for make, more in ((imdb, options), (wikitext, {"length": 4, "batch_size": 1})):
        first, other = make("one", **more), make("two", **more)
        assert first.vocab == other.vocab, "the sizes do not tell them apart"
        assert first.fitted["vocabulary"] != other.fitted["vocabulary"]
        kept = make("one", vocabulary=first.fitted["vocabulary"], **more)
        assert torch.equal(kept.test_set[0].x, first.test_set[0].x)
        with pytest.raises(ValueError, match="gives another vocabulary"):
            make("two", vocabulary=first.fitted["vocabulary"], **more)
    assert imdb("one", length=8, batch_size=2).fitted == {}
