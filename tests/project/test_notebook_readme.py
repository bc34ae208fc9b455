"""The notebooks run from top to bottom, on the run that they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    with pytest.raises(FileNotFoundError, match=r"no finished run of an SDN in .*train.py --save exp"):
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
    code = ["import matplotlib; matplotlib.use('Agg')"]
    cells = json.loads((ROOT / "convert.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells), "commit the notebook without outputs"
    code += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (tmp_path / "notebook.py").write_text("\n\n".join(code))
    done = subprocess.run(
        [sys.executable, "notebook.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "run: exp, finished last of those here; set SDN_RUN=FOLDER" in done.stdout
    assert "refused: artifact was made for LIF(decay=0.125" in done.stdout
    assert (tmp_path / "exp" / "converted.safetensors").exists()


def test_the_notebook_of_an_own_neuron_runs_and_keeps_its_outputs(tmp_path):
    cells = json.loads((ROOT / "own_neuron.ipynb").read_text())["cells"]
    shown = [cell for cell in cells if cell.get("outputs")]
    assert len(shown) >= 6
    assert not any(out["output_type"] == "error" for cell in shown for out in cell["outputs"])
    code = ["import matplotlib; matplotlib.use('Agg')"]
    code += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (tmp_path / "notebook.py").write_text("\n\n".join(code))
    command = [sys.executable, "notebook.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    agree = [float(found) for found in re.findall(r"rounds: ([\d.]+) % of the spikes agree", done.stdout)]
    assert agree == sorted(agree)
    assert agree[2] > 98.5
