"""The networks that ship: small, whole, of no machine, and as good as their card says on clips that are at hand."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

import spikingssm
from spikingssm.datasets.audio import PEAK, tones
from spikingssm.experiments.shipped import FOLDER, folder_of, shipped


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_network_is_small_and_of_no_machine(name):
    files = [path for path in folder_of(name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 200_000
    for path in files:
        if path.suffix != ".ckpt":
            assert not any(part in path.read_text() for part in ("/home", "/tmp", "/work", "/root")), path
    model = spikingssm.load_model(name)
    assert f"`{name}`" in (FOLDER / "README.md").read_text()
    assert f"{100 * model.facts['test']['accuracy']:.2f} %" in (FOLDER / "README.md").read_text()
    assert f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} parameters" in (
        (FOLDER / "README.md").read_text()
    )


def test_spoken_digits_hears_files_of_any_rate(tmp_path):
    model = spikingssm.load_model("spoken-digits")
    clips, _ = tones(10, [4000] * 6, 8000, 4000)
    found = model.predict(clips)
    assert found.probabilities.shape == (6, 10)
    assert found.probabilities.std() > 0.01
    assert found.spikes.min() > 100
    for number, clip in enumerate(clips):
        soundfile.write(tmp_path / f"{number}.wav", clip, 8000)
    again = model.predict([soundfile.read(tmp_path / f"{n}.wav", dtype="int16")[0] for n in range(6)])
    np.testing.assert_allclose(again.logits, found.logits, atol=1e-5)
    whole = model.predict(clips / PEAK)
    np.testing.assert_allclose(whole.logits, found.logits, atol=1e-5)


def test_an_unknown_name_lists_what_ships(tmp_path):
    with pytest.raises(FileNotFoundError, match="the networks that ship are spoken-digits"):
        spikingssm.load_model("spoken-letters")
    assert folder_of(tmp_path) == Path(tmp_path)
