"""The notebooks run from top to bottom, on the run that they say."""

import os
from pathlib import Path

import pytest
from notebooks import check_outputs, numberless, printed, ran

import sdn
from sdn.surrogate.found import newest_run
from sdn.surrogate.training import fit
from sdn.surrogate.trajectory_files import TrajectoryFile

ROOT = Path(__file__).parents[2]


def finished(folder: Path, second: int, summary: str = '{"dynamics": {}, "metrics": {}}') -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").touch()
    (folder / "summary.json").write_text(summary)
    os.utime(folder / "summary.json", (second, second))
    return folder


def test_the_newest_finished_run_is_found_and_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDN_RUN", raising=False)
    with pytest.raises(FileNotFoundError, match=r"no finished run of an SDN in .*sdn train --save exp"):
        newest_run()
    finished(Path("exp"), 100)
    assert newest_run() == Path("exp")
    finished(Path("demo/sdn"), 300)
    finished(Path("runs/two"), 200)
    finished(Path("runs/network-0"), 400, '{"name": "a network"}')
    finished(Path("runs/damaged"), 500, "{")
    finished(Path("runs/unfinished"), 600).joinpath("summary.json").unlink()
    finished(Path("runs/cleared"), 700).joinpath("checkpoints", "best.ckpt").unlink()
    capsys.readouterr()
    assert newest_run() == Path("demo/sdn")
    assert capsys.readouterr().out.startswith("run: demo/sdn, finished last of those here; set SDN_RUN=FOLDER")
    monkeypatch.setenv("SDN_RUN", "runs/two")
    assert newest_run() == Path("runs/two")
    assert capsys.readouterr().out == "run: runs/two, named by SDN_RUN\n"
    monkeypatch.setenv("SDN_RUN", "nowhere")
    with pytest.raises(FileNotFoundError, match=r"SDN_RUN=nowhere: no nowhere/checkpoints/best.ckpt"):
        newest_run()


def test_the_notebook_runs_top_to_bottom(tmp_path):
    dynamics = sdn.LIF(0.125)
    data = TrajectoryFile(*sdn.generate(dynamics, 200, 100, seed=1)[:3], {"dynamics": dynamics.facts()})
    recipe = sdn.Recipe(epochs=3, steps_per_epoch=60, batch_size=8, members=2)
    fit(sdn.SDN(), data.rows(0, 180), data.rows(180, 200), run_dir=tmp_path / "exp", recipe=recipe)
    (tmp_path / "exp" / "summary.json").write_text('{"dynamics": {}, "metrics": {}}')
    text = ran(ROOT / "convert.ipynb", tmp_path)
    assert "run: exp, finished last of those here; set SDN_RUN=FOLDER" in text
    assert "refused: artifact was made for LIF(decay=0.125" in text
    assert (tmp_path / "exp" / "converted.safetensors").exists()
    check_outputs(ROOT / "convert.ipynb", most=500_000, figures=4)
    kept = numberless(printed(ROOT / "convert.ipynb"))
    assert [line for line in numberless(text) if line not in kept and "notworthhaving" not in line] == []
