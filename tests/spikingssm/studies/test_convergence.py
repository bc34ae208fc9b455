"""The epoch that a curve says, and what a step does to the membrane of every neuron, against closed forms."""

import argparse
import json
import shutil

import pytest
import torch
from helpers import BUILT_IN, CHANNELS
from small_runs import recurrent_run

from sdn import ALIF, BRF, LIF, RF
from sdn.dynamics import HRF
from sdn.runs.folder import read_metrics
from spikingssm.commands import studies as command
from spikingssm.studies.convergence import convergence, csv_rows, figure, membrane_jacobian, spectral_radius, table

OMEGA = torch.tensor([3.0, 17.0, 42.0, 85.0, 99.0], dtype=torch.float64)
OFFSET = torch.tensor([0.0, 0.3, 4.0, 9.0, 25.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of one network, and another that was changed."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        recurrent_run(folder / "a", epochs=4),
        recurrent_run(folder / "b", "seed=1", epochs=2),
        recurrent_run(folder / "c", "task.select=loss", model="alif", epochs=2),
    ]


def test_the_membrane_of_brf_is_the_published_matrix():
    dt = 0.01
    b = (-1 + (1 - (dt * OMEGA) ** 2).sqrt()) / dt - OFFSET
    want = torch.stack([torch.stack([1 + dt * b, -dt * OMEGA], -1), torch.stack([dt * OMEGA, 1 + dt * b], -1)], -2)
    found = membrane_jacobian(BRF(OMEGA, OFFSET), 5)
    assert torch.allclose(found, want, atol=1e-14)
    radius = ((1 + dt * b) ** 2 + (dt * OMEGA) ** 2).sqrt()
    assert torch.allclose(spectral_radius(BRF(OMEGA, OFFSET), 5), radius, atol=1e-12)


def test_on_its_boundary_an_oscillator_neither_grows_nor_fades():
    assert torch.allclose(spectral_radius(BRF(OMEGA, 0 * OFFSET), 5), torch.ones(5).double(), atol=1e-12)
    damped = spectral_radius(BRF(OMEGA[:4], 1.0), 4)
    assert (damped < 1).all()
    assert (spectral_radius(BRF(OMEGA, 0 * OFFSET, divergence_boundary=False), 5) > 1).all()


def test_rf_grows_beyond_its_boundary_and_integrators_leak_by_their_factor():
    damping = torch.tensor([0.5, 2.0, 4.0, 20.0, 60.0], dtype=torch.float64)
    radius = ((1 - 0.01 * damping) ** 2 + (0.01 * OMEGA) ** 2).sqrt()
    assert torch.allclose(spectral_radius(RF(OMEGA, damping), 5), radius, atol=1e-12)
    assert radius.max() > 1 > radius.min()
    tau = torch.tensor([5.0, 20.0], dtype=torch.float64)
    assert torch.allclose(spectral_radius(ALIF(tau, 300.0), 2), torch.exp(-1 / tau), atol=1e-12)
    for reset in ("hard", "soft", "none"):
        assert torch.allclose(spectral_radius(LIF(0.37, reset=reset), 3), torch.full((3,), 0.37).double())


def test_the_harmonic_neuron_has_its_determinant():
    """Of a complex pair the modulus is the root of the determinant: 1 - 2 dt b for the semi-implicit step."""
    dynamics = HRF(20.0, 3.0)
    jacobian = membrane_jacobian(dynamics, 1)
    assert jacobian.shape == (1, 2, 2)
    b = 0.01 * 20.0**2 / 2 + 3.0
    assert torch.linalg.det(jacobian).item() == pytest.approx(1 - 2 * 0.01 * b)
    assert spectral_radius(dynamics, 1).item() == pytest.approx((1 - 2 * 0.01 * b) ** 0.5)


@pytest.mark.parametrize("dynamics", [pytest.param(d, id=name) for name, d, _ in BUILT_IN])
def test_a_small_membrane_moves_as_its_matrix_says(dynamics):
    """Against the step itself: a change too small to fire goes through `advance` as through the matrix."""
    fields = dynamics.State._fields
    membrane = [f for f in fields if f in ("u", "v")]
    matrix = membrane_jacobian(dynamics, CHANNELS)
    assert matrix.shape == (CHANNELS, len(membrane), len(membrane))
    dynamics, state = dynamics.to("cpu", torch.float64), dynamics.initial_state(1, CHANNELS, dtype=torch.float64)
    small = {f: 1e-7 * torch.randn(1, CHANNELS, dtype=torch.float64) for f in membrane}
    after = dynamics.advance(state._replace(**small), torch.zeros_like(state[0]), torch.zeros_like(state[0]))
    got = torch.stack([getattr(after, f)[0] for f in membrane], -1)
    want = (matrix @ torch.stack([small[f][0] for f in membrane], -1).unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(got, want, rtol=1e-5, atol=1e-15)


def test_the_epoch_is_the_first_that_reaches_the_part(runs):
    for run, monitor in ((runs[0], "val/accuracy"), (runs[2], "val/loss")):
        rows = read_metrics(run / "metrics.csv")
        ordered = sorted(rows, key=lambda row: row[monitor], reverse=monitor == "val/accuracy")
        summary = json.loads((run / "summary.json").read_text())
        for part in (0.5, 0.97, 1.0):
            found = convergence(run, part=part)["curve"]
            assert found["best_epoch"] == summary["val"]["epoch"] == 1 + ordered[0]["epoch"]
            want = next(1 + r["epoch"] for r in rows if r["val/accuracy"] >= part * ordered[0]["val/accuracy"])
            assert found["epoch"] == want <= found["best_epoch"]
            assert found["values"] == [row["val/accuracy"] for row in rows]


def test_another_accuracy_can_be_asked_for(runs):
    rows = read_metrics(runs[0] / "metrics.csv")
    found = convergence(runs[0], metric="accuracy_all")["curve"]
    assert found["values"] == [row["val/accuracy_all"] for row in rows]
    with pytest.raises(ValueError, match="--metric is one of accuracy, accuracy_all"):
        convergence(runs[0], metric="recall")
    with pytest.raises(ValueError, match="--part must be in"):
        convergence(runs[0], part=0)


def test_a_run_without_a_curve_has_its_radii(runs, tmp_path):

    copy = shutil.copytree(runs[0], tmp_path / "copy")
    (copy / "metrics.csv").unlink()
    found = convergence(copy)
    assert found["curve"] is None
    assert len(found["rows"][0]["radii"]) == 7
    assert "no curve" in table([found])


def test_several_seeds_are_one_line_and_the_radii_are_of_the_best_weights(runs, tmp_path):
    found = [convergence(run) for run in runs]
    lines = table(found).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == ["2", "1"]
    mean = sum(one["curve"]["epoch"] for one in found[:2]) / 2
    assert f"| {mean:.1f} ± " in lines[0]
    assert "±" not in lines[1].split(" | ")[2]
    state = torch.load(runs[0] / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    omega, offset = (state[f"model.layers.0.learned.{name}"].abs() for name in ("omega", "b_offset"))
    radii = torch.tensor([row["radius"] for row in csv_rows(found[0])])
    assert torch.allclose(radii, spectral_radius(BRF(omega, offset), 7).float(), atol=1e-6)
    row = found[0]["rows"][0]
    assert (row["min"], row["max"]) == (pytest.approx(radii.min().item()), pytest.approx(radii.max().item()))
    figure(found, tmp_path / "all.png")
    assert (tmp_path / "all.png").stat().st_size > 10_000


def parsed(*words):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return parser.parse_args(["study", *map(str, words)])


@pytest.mark.parametrize("study", command.OPTIONS)
def test_every_study_takes_the_options_of_all(study):
    given = parsed(study, "a", "b", "--root", "there", "--limit", 3, "--out", "here")
    assert (given.runs, given.root, given.limit, given.out) == (["a", "b"], "there", 3, "here")


def test_a_limit_changes_nothing_where_nothing_is_tested(runs, tmp_path, capsys):
    command.run(parsed("convergence", runs[0], "--limit", 3, "--out", tmp_path))
    assert capsys.readouterr().out == table([convergence(runs[0])]) + "\n"
    found = json.loads((tmp_path / "convergence-brf-small-0.json").read_text())
    assert found["rows"] == convergence(runs[0])["rows"]
