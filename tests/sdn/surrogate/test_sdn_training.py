"""Training an SDN: the batched population against single networks, the schedule, the crops, and exact resume."""

import math
import shutil

import lightning
import pytest
import torch

import sdn
from sdn.runs import folder as runs
from sdn.surrogate import running
from sdn.surrogate.crops import Blocks, Crops
from sdn.surrogate.population import Population
from sdn.surrogate.training import fit, load_sdn
from sdn.surrogate.trajectory_files import TrajectoryFile

DYNAMICS = sdn.LIF(0.125)
QUICK = {"epochs": 5, "steps_per_epoch": 40, "batch_size": 8, "crop": 24, "members": 4}


@pytest.fixture(scope="module")
def data():
    out = sdn.generate(DYNAMICS, 300, 100, seed=8)
    return TrajectoryFile(*out[:3], {"dynamics": DYNAMICS.facts()})


def train(data, run_dir, resume=False, num_workers=0, **changes):
    network = sdn.SDN()
    history = fit(
        network, data.rows(0, 250), data.rows(250, 300), run_dir=run_dir, recipe=sdn.Recipe(**{**QUICK, **changes}),
        resume=resume, num_workers=num_workers,
    )  # fmt: skip
    return network, history


# ---- the population


@pytest.mark.parametrize(("kernel", "layers"), [(8, 1), (5, 2), (3, 3)])
def test_every_member_is_the_sdn_it_says(kernel, layers):
    population = Population(3, 6, kernel, layers).initialise(0, 0.3, 2.0)
    for name, buffer in population.statistics.named_buffers():
        buffer.copy_(torch.rand_like(buffer) + 0.5 if "var" in name else torch.randn_like(buffer))
    population.double()
    segments = torch.randn(4, 40, dtype=torch.float64)
    predicted = population(segments)
    reach = population.receptive_field
    assert predicted.shape == (3, 4, 40 - reach)
    for i in range(3):
        member = population.member(i).double()
        torch.testing.assert_close(predicted[i], member(segments)[:, reach:], rtol=1e-10, atol=1e-12)
    assert (predicted[0] - predicted[1]).abs().max() > 1e-3


def test_live_norms_are_those_of_the_sdn_in_train_mode():
    population = Population(2, 6, 5, 1, live_norms=True).initialise(1, 0.3, 1.0)
    segments = torch.randn(16, 30)
    predicted = population.train()(segments)
    for i in range(2):
        member = Population(2, 6, 5, 1, live_norms=True).initialise(1, 0.3, 1.0).member(i).train()
        h = member.encoder(segments.unsqueeze(1))
        spatial, feature = member.spatial_layers[0], member.feature_layers[0]
        a = torch.relu(spatial(h[..., :-1]))  # the same windows, no padding: the statistics are those of the crop
        expected = member.decoder(torch.relu(feature(a) + a)).squeeze(1)
        torch.testing.assert_close(predicted[i], expected, rtol=1e-4, atol=1e-5)
        key = "spatial_layers-0-1-running_var"
        torch.testing.assert_close(
            population.statistics.get_buffer(key)[i], spatial[1].running_var, rtol=1e-4, atol=1e-5
        )


def test_members_learn_independently(data):
    """Gradients of the summed loss of a population are those of each member alone."""
    population = Population(3, 8, 8, 1).initialise(3, 0.125, 1.0)
    segments, target = data.input[:8, :32], data.mem[:8, 8:32]
    (population(segments) - target).abs().mean((1, 2)).sum().backward()
    together = {k: w.grad.clone() for k, w in population.weights.items()}
    alone = Population(3, 8, 8, 1).initialise(3, 0.125, 1.0)
    alone.keep(torch.tensor([1]))
    (alone(segments) - target).abs().mean((1, 2)).sum().backward()
    for key, weight in alone.weights.items():
        torch.testing.assert_close(weight.grad[0], together[key][1], rtol=1e-5, atol=1e-8)
    assert together["decoder-weight"].abs().sum() > 0


def test_keep_takes_members_in_order():
    population = Population(4, 3, 2, 1).initialise(0, 0.5, 1.0)
    before = population.named()["decoder.weight"].detach().clone()
    population.keep(torch.tensor([2, 0]))
    assert population.members == 2
    assert torch.equal(population.named()["decoder.weight"], before[[2, 0]])
    assert torch.equal(population.named(average=True)["decoder.weight"], before[[2, 0]])


# ---- the recipe


def test_the_schedule_warms_up_once_and_never_rises_again():
    """Guards defects 21 and 37: the cosine belongs to the run's own number of steps."""
    recipe = sdn.Recipe(epochs=7, steps_per_epoch=143)
    rates = [recipe.lr_at(i) for i in range(7 * 143)]
    peak = max(range(len(rates)), key=rates.__getitem__)
    assert peak <= math.ceil(0.01 * len(rates))
    assert all(a >= b for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))
    assert rates[-1] < 2e-3 * recipe.lr


def test_members_are_halved_late_and_one_is_left():
    recipe = sdn.Recipe(epochs=100, members=8)
    members, left = 8, []
    for epoch in range(100):
        members = recipe.survivors(epoch, members)
        left.append(members)
    assert [left[i] for i in (38, 39, 58, 59, 73, 74, 99)] == [8, 4, 4, 2, 2, 1, 1]
    assert sdn.Recipe(epochs=1).survivors(0, 8) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be > 0"),
        ({"loss": "huber"}, r"loss must be one of .* got 'huber'"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
        ({"weight_decay": 0.1}, "needs optimizer 'adamw'"),
        ({"ema": 1.0}, "ema in"),
    ],
)
def test_impossible_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        sdn.Recipe(**changes)


# ---- the crops


@pytest.mark.parametrize("from_start", [True, False], ids=["silence-before", "inside"])
def test_a_crop_is_a_piece_of_a_row_with_its_history(data, from_start):
    """Every crop is found in the file, and its targets are the mem that follows each history."""
    recipe = sdn.Recipe(batch_size=16, crop=20, seed=3)
    inputs, targets = Crops(data, recipe, reach=8, from_start=from_start).block(5, 3)
    assert inputs.shape == (3, 16, 28)
    assert targets.shape == (3, 16, 20)
    found = 0
    padded = torch.nn.functional.pad(data.input, (8, 0))
    for crop, mem in zip(inputs.reshape(-1, 28), targets.reshape(-1, 20), strict=True):
        places = (padded.unfold(1, 28, 1) == crop).all(-1).nonzero()
        assert len(places) == 1
        row, start = places[0].tolist()
        assert torch.equal(data.mem[row, start : start + 20], mem)
        found += start < 8
    assert (found > 0) == from_start


def test_crops_depend_on_seed_and_index_only(data):
    """Guards defect 20: the order was not seeded."""
    one, again, other = (Crops(data, sdn.Recipe(seed=s), 8, True).block(2, 4)[0] for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, Crops(data, sdn.Recipe(), 8, True).block(3, 4)[0])


def test_blocks_cover_an_epoch_and_follow_its_number():
    blocks = Blocks(250)
    assert list(blocks) == [(0, 100), (1, 100), (2, 50)]
    blocks.set_epoch(2)
    assert list(blocks) == [(6, 100), (7, 100), (8, 50)]


def test_rows_too_short_for_the_receptive_field_are_refused(data):
    short = TrajectoryFile(*(t[:, :10].contiguous() for t in data[:3]), data.facts)
    with pytest.raises(ValueError, match="10 steps are too short for a receptive field of 15"):
        Crops(short, sdn.Recipe(), 15, from_start=False)


# ---- fit


def test_training_beats_the_trivial_predictor_and_leaves_a_run_folder(data, tmp_path):
    network, history = train(data, tmp_path, epochs=8, steps_per_epoch=120)
    scores = sdn.evaluate(network, data.rows(250, 300), DYNAMICS)
    assert scores.agreement > 0.995 > scores.trivial_agreement
    assert len(history.rows) == 8
    assert history.best_loss == min(row["val/loss"] for row in history.rows)
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.csv", "tensorboard"):
        assert (tmp_path / name).exists(), name
    loaded, dynamics = load_sdn(tmp_path / "checkpoints" / "best.ckpt")
    assert dynamics == DYNAMICS
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True)
    )


class Kill(lightning.Callback):
    """Ends the process's training as a kill would: in the middle of an epoch, nothing saved since the last one."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == 3:
            raise KeyboardInterrupt


RESUMED = {"frozen": {}, "live": {"norms": "live", "members": 1, "loss": "smooth_l1"}, "worker": {"num_workers": 1}}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED)
def test_resume_is_bit_equal_to_never_stopping(data, tmp_path, monkeypatch, changes):
    """Guards defects 15, 16 and 21. The kill comes after members were dropped (epochs 2 and 3 of 5)."""
    whole, _ = train(data, tmp_path / "whole", **changes)
    build = running._trainer
    with monkeypatch.context() as patch:

        def with_kill(*args):
            trainer = build(*args)
            trainer.callbacks.append(Kill())
            return trainer

        patch.setattr(running, "_trainer", with_kill)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(data, tmp_path / "cut", **changes)
    assert runs.load_checkpoint(tmp_path / "cut/checkpoints/last.ckpt")["epoch"] == 2
    shutil.move(tmp_path / "cut", tmp_path / "moved")  # a run folder may move
    again, _ = train(data, tmp_path / "moved", resume=True, **changes)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    drop = lambda rows: [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]  # noqa: E731
    assert drop(runs.read_metrics(tmp_path / "whole/metrics.csv")) == drop(
        runs.read_metrics(tmp_path / "moved/metrics.csv")
    )


def test_resume_of_a_finished_run_changes_nothing(data, tmp_path):
    first, _ = train(data, tmp_path, epochs=2)
    before = (tmp_path / "checkpoints/last.ckpt").read_bytes()
    again, _ = train(data, tmp_path, epochs=2, resume=True)
    assert (tmp_path / "checkpoints/last.ckpt").read_bytes() == before
    assert torch.equal(first.decoder.weight, again.decoder.weight)


def test_a_folder_that_holds_a_run_is_not_overwritten(data, tmp_path):
    train(data, tmp_path, epochs=1)
    with pytest.raises(FileExistsError, match="--resume"):
        train(data, tmp_path, epochs=1)


def test_resume_with_other_settings_is_refused_with_both_values(data, tmp_path):
    """Guards defect 21: another --epochs silently kept the old cosine."""
    train(data, tmp_path, epochs=1)
    with pytest.raises(ValueError, match="epochs was 1, is 9"):
        train(data, tmp_path, epochs=9, resume=True)


def test_checkpoints_hold_tensors_and_plain_values_only(data, tmp_path):
    """Guards defect 16: what weights_only accepts can execute nothing."""
    train(data, tmp_path, epochs=1)
    for name in ("best", "last"):
        content = torch.load(tmp_path / f"checkpoints/{name}.ckpt", weights_only=True)
        assert content["sdn"]["dynamics"] == DYNAMICS.facts()


def test_a_diverging_run_stops_and_keeps_its_checkpoints(data, tmp_path):
    """Guards defect 17: NaN never beat infinity, and the end of the run crashed."""
    bad = TrajectoryFile(data.input, torch.full_like(data.mem, 1e38), data.spike, data.facts)
    with pytest.raises(ValueError, match="train/loss became"):
        train(bad, tmp_path, lr=1e30, loss="mse")


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"not a checkpoint"], ids=["truncated", "foreign"]
)
def test_damaged_checkpoints_are_refused_in_one_line(data, tmp_path, damage):
    train(data, tmp_path, epochs=1)
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="not a readable checkpoint") as caught:
        train(data, tmp_path, epochs=1, resume=True)
    assert "\n" not in str(caught.value)


def test_splits_of_different_neurons_are_refused(data, tmp_path):
    """Guards defect 8: a mismatch of decay was silent."""
    other = TrajectoryFile(*data[:3], {"dynamics": sdn.LIF(0.9).facts()})
    with pytest.raises(ValueError, match=r"decay=0\.125.*decay=0\.9"):
        fit(sdn.SDN(), data, other, run_dir=tmp_path)
