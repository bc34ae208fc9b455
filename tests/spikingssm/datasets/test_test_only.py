"""A run is tested where only the test files of its data lie."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import test_aan
import test_cifar
import test_datasets
import test_ecg
import test_shd
from loguru import logger

from spikingssm.datasets import aan, cifar, fsdd_spikes, listops, mnist, shd, ssc
from spikingssm.datasets.ecg import ecg
from spikingssm.datasets.heidelberg import write_recordings
from spikingssm.experiments.config import load
from spikingssm.experiments.evaluation import evaluate, load_run
from spikingssm.experiments.run import run

ROOT = Path(__file__).parents[3]
TINY = [
    "model.d_model=8", "model.d_state=4", "model.n_layers=1", "model.solver=fused", "threads=1", "data.batch_size=8",
    "trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "trainer.max_epochs=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _at_root(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)


def trained(folder: Path, *words: str) -> tuple[Path, dict[str, float]]:
    found = run(load([*TINY, *words, f"run_dir={folder / 'run'}"]))
    return found, json.loads((found / "summary.json").read_text())["test"]


def arrays_files(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for name, classes, rows in (("train", 5, 40), ("test", 3, 9)):  # the test rows do not show every class
        np.savez(folder / f"{name}.npz", x=draw.normal(size=(rows, 12, 2)), y=np.arange(rows) % classes)


def test_arrays_need_the_test_file_only_and_know_their_classes(tmp_path) -> None:
    arrays_files(tmp_path)
    words = ["dataset=arrays", f"data.path={tmp_path / 'train.npz'}", f"data.test_path={tmp_path / 'test.npz'}"]
    folder, said = trained(tmp_path, *words)
    (tmp_path / "train.npz").unlink()
    told: list[str] = []
    handler = logger.add(told.append, format="{message}")
    found = evaluate(folder)
    logger.remove(handler)
    assert {key: found[key] for key in said} == said
    assert any("train.npz: no such file" in line and "test files are there" in line for line in told)
    (tmp_path / "test.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.npz: no such file"):
        evaluate(folder)


def test_another_root_may_hold_the_test_files_only(tmp_path) -> None:
    test_datasets.write_mnist(tmp_path)
    folder, said = trained(tmp_path, "dataset=mnist", f"data.root={tmp_path}", "model.patch=28")
    (tmp_path / "other").mkdir()
    for path in tmp_path.glob("t10k*"):
        shutil.copy(path, tmp_path / "other")
    found = evaluate(folder, root=tmp_path / "other")
    assert {key: found[key] for key in said} == said
    data = load_run(folder, root=tmp_path / "other").data
    assert (len(data.train_rows), len(data.val_rows)) == (0, 0)
    with pytest.raises(FileNotFoundError, match="no train-images"):
        evaluate(folder, root=tmp_path / "run")


def both(make, folder: Path, *names: str):
    whole = make(folder)
    for name in names:
        (folder / name).unlink()
    with pytest.raises(FileNotFoundError):
        make(folder)
    return whole, make(folder, test_only=True)


def same(whole, part) -> None:
    one, two = (data.test_set.__getitems__(data.test_rows.tolist()) for data in (whole, part))
    assert one.x.equal(two.x)
    assert one.y.equal(two.y)
    assert part.published == whole.published
    assert (part.length, part.d_input, part.d_output) == (whole.length, whole.d_input, whole.d_output)


def test_the_test_rows_are_the_same(tmp_path) -> None:
    test_ecg.write(tmp_path)
    same(*both(lambda root, **more: ecg(root, batch_size=2, val_fraction=0.3, **more), tmp_path, "QTDB_train.mat"))
    test_cifar.write_batches(tmp_path / "batches", batches=2)
    names = ["data_batch_1", "data_batch_2"]
    for name in names:
        (tmp_path / "batches" / name).unlink()
    part = cifar(tmp_path / "batches", test_only=True)
    assert len(part.test_rows) == 6
    with pytest.raises(FileNotFoundError, match="no data_batch_1"):
        cifar(tmp_path / "batches")


def test_the_test_recordings_are_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, make in (("shd", shd), ("ssc", ssc)):
        test_shd.write(tmp_path / name, name, 20)
        rest = [f"{name}_{part}.h5" for part in ("train", "valid") if (tmp_path / name / f"{name}_{part}.h5").is_file()]
        options = {"jitter_us": 100.0, "batch_size": 4}
        pair = both(
            lambda root, make=make, options=options, **more: make(root, **options, **more), tmp_path / name, *rest
        )
        same(*pair)
        assert "as in" in pair[1].facts()["split"]
        assert pair[1].facts()["events"]["test"] == pair[0].facts()["events"]["test"] > 0


def test_the_test_clips_are_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for part, seed in (("train", 0), ("test", 1)):
        found = test_shd.recordings(40, 10, seed, [0, 1])
        write_recordings(tmp_path / "spikes" / f"fsdd_{part}.h5", found, [str(n) for n in range(10)])
    same(*both(lambda root, **more: fsdd_spikes(root, batch_size=4, **more), tmp_path / "spikes", "fsdd_train.h5"))


def test_the_test_texts_are_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    test_aan.written(tmp_path / "aan")
    names = [f"new_aan_pairs.{part}.tsv" for part in ("train", "eval")]
    same(*both(lambda root, **more: aan(root, length=20, batch_size=1, **more), tmp_path / "aan", *names))
    (tmp_path / "lists").mkdir()
    for number, part in enumerate(("train", "val", "test")):
        lines = [f"( ( ( [MAX 2 ) {digit} ) ] )\t{max(2, digit)}" for digit in range(number, 10)]
        (tmp_path / "lists" / f"basic_{part}.tsv").write_text("\n".join(["Source\tTarget", *lines, ""]))
    names = ["basic_train.tsv", "basic_val.tsv"]
    same(*both(lambda root, **more: listops(root, length=2048, batch_size=2, **more), tmp_path / "lists", *names))


def test_nothing_is_trained_on_test_files(tmp_path) -> None:
    test_datasets.write_mnist(tmp_path)
    with pytest.raises(ValueError, match="0"):
        mnist(tmp_path, test_only=True).train_dataloader()
