"""The explainer: its chirp, the two neurons under it, the files that it writes, and its notebook."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close
from matplotlib import rc_context
from notebooks import check_outputs, numberless, printed, ran
from PIL import Image

from sdn import BRF, RF, simulate
from spikingssm.reports.animation import chirp, compare, explain, save, trace

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def found():
    return compare()


def test_the_chirp_is_scipys():
    signal = pytest.importorskip("scipy.signal")
    current, frequency = chirp(500, 0.01, 3.0, 40.0, 2.5)
    t = 0.01 * np.arange(500)
    hertz = [f / (2 * np.pi) for f in (3.0, 40.0)]
    want = 2.5 * signal.chirp(t, hertz[0], 5.0, hertz[1], phi=-90)
    assert_close(current, torch.from_numpy(want), factor=10)
    assert (frequency[0], frequency[250]) == (3.0, pytest.approx(21.5))


@pytest.mark.parametrize(
    "neuron",
    [RF(12.0, 2.0, threshold=0.4), BRF(15.0), BRF(15.0, smooth_reset=False), BRF(15.0, refractory_period=False)],
    ids=str,
)
def test_a_trace_is_what_the_neuron_did(neuron):
    current = chirp(400, 0.01, 5.0, 25.0, 9.0)[0]
    run, out = trace(neuron, current), simulate(neuron, current.reshape(1, -1, 1))
    assert torch.equal(run.spike, out.spike.flatten())
    assert run.spike.sum() > 2
    assert torch.equal(run.spike, (run.u > run.threshold).double()), "the threshold in force decides the spike"
    before_u, before_v = (torch.cat([torch.zeros(1), part[:-1]]) for part in (run.u, run.v))
    b = -run.damping
    assert_close(run.u, before_u + 0.01 * (b * before_u - neuron.omega * before_v + current))
    assert_close(run.v, before_v + 0.01 * (neuron.omega * before_u + b * before_v))


def test_the_brf_spikes_near_resonance_only_and_the_rf_never_stops(found):
    at = found.frequency[found.brf.spike > 0]
    assert 3 <= len(at) <= 30
    assert at.min() > 0.8 * 15
    assert at.max() < 1.4 * 15
    rf = found.rf.spike
    assert rf.sum() > 10 * len(at)
    assert rf[-100:].sum() > 5
    radius = torch.hypot(found.rf.u, found.rf.v)
    assert radius[-1] > 2 * radius[400], "it has more than doubled since the input passed omega"
    assert torch.hypot(found.brf.u, found.brf.v)[-1] < 0.5


def test_the_damping_of_the_brf_rises_with_each_spike_and_falls_back(found):
    rise = found.brf.damping.diff()
    spiked = found.brf.spike[:-1] > 0
    assert (rise[spiked] > 0.7).all()
    assert (rise[~spiked] <= 0).all()
    boundary = -float(found.neuron.boundary)
    assert found.brf.damping.min() == pytest.approx(boundary + 1.0)
    assert found.rf.damping.unique().tolist() == [1.0]
    assert boundary > 1.0, "this RF lies beyond the boundary, which is why it grows"


def test_the_amplitude_is_the_one_that_lets_a_silent_brf_just_reach_far_enough():
    neuron = BRF(15.0, 1.0)
    current = compare(length=600).current
    factor = complex(1 + 0.01 * neuron.rest_damping, 0.01 * 15.0)
    z, most = 0j, 0.0
    for now in current.tolist():
        z = factor * z + 0.01 * now
        most = max(most, abs(z.real))
    assert most == pytest.approx(2.5, rel=1e-6)


def test_a_gif_moves_and_ends_where_the_run_ends(found, tmp_path):
    save(explain(found, frames=3), tmp_path / "a.gif", fps=5)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.format, gif.n_frames, gif.info["duration"], gif.info["loop"]) == ("GIF", 3, 200, 0)
        pictures = []
        for n in range(3):
            gif.seek(n)
            pictures.append(np.array(gif.convert("RGB")))
    blue = [(np.abs(p[400:].astype(int) - (31, 119, 180)).sum(2) < 60).sum() for p in pictures]
    assert blue[0] < blue[1] < blue[2], "more of the rows of the BRF is drawn from picture to picture"
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]


def test_an_html_needs_no_other_file(found, tmp_path):
    with rc_context({"animation.embed_limit": 0.001}):  # megabytes, beyond which matplotlib leaves pictures out
        save(explain(found, frames=1), tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert len(re.findall(r"data:image/png;base64", page)) == 1
    assert not re.findall(r"https?://(?!www\.w3\.org)", page), "it reaches into the network"
    assert "fa-" not in page, "an icon of a font that is not there"
    assert page.count("<button") == 9
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


ERRORS = [
    (lambda path: chirp(100, 0.01, 5.0, 400.0), r"low < high <= pi/dt = 314.159, got 5 and 400; lower them, or lower"),
    (lambda path: chirp(1, 0.01, 5.0, 40.0), r"length >= 2 .*got 1 and 0.01"),
    (lambda path: compare(omega=120.0), r"BRF: omega must be at most 1/dt = 100, got 120"),
    (lambda path: explain(compare(length=20), frames=21), r"frames must be from 1 to the 20 steps, got 21"),
    (lambda path: save(None, path / "a.mp4"), r"cannot write 'a.mp4'; end the name in .gif or .html"),
    (lambda path: save(None, path / "a.gif", fps=0), r"fps must be at least 1, got 0"),
]


@pytest.mark.parametrize(("make", "message"), ERRORS, ids=[m for _, m in ERRORS])
def test_errors_say_what_is_wrong(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_committed_picture_is_small():
    path = ROOT / "docs" / "resonance.gif"
    assert path.stat().st_size < 1.5e6
    with Image.open(path) as gif:
        assert gif.n_frames >= 50


def test_the_page_says_what_the_run_does(found):
    page = " ".join((ROOT / "docs" / "resonance.md").read_text().split())
    at = found.frequency[found.brf.spike > 0]
    edge = -float(found.neuron.boundary)
    growth = np.hypot(1 - 0.01 * 1.0, 0.01 * 15)
    for words in (
        f"{int(found.rf.spike.sum())} times in {len(found.current)} steps",
        f"fires {len(at)} times, while the input is at {at.min():.1f} to {at.max():.1f}",
        f"would have to be {edge:.2f}",
        f"multiplies the state by {growth:.4f}",
        f"from {found.frequency[0]:g} to {2 * 15 - 15 / 4:g}",
    ):
        assert words in page


def test_the_notebook_runs_top_to_bottom(tmp_path):
    text = ran(ROOT / "resonance.ipynb", tmp_path, **{"FRAMES = 40": "FRAMES = 1"})
    assert "RF: 205 spikes" in text
    assert numberless(text) == numberless(printed(ROOT / "resonance.ipynb"))
    assert (tmp_path / "resonance.html").exists()
    check_outputs(ROOT / "resonance.ipynb", most=500_000, figures=3)
