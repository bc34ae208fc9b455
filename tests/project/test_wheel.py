"""What pip installs is the whole program: built here, unpacked, and run outside of the checkout."""

import json
import os
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from sdn.dynamics import LIF
from sdn.surrogate.trajectory_files import trajectory_file_name
from spikingssm.commands.configs import copy_configs
from spikingssm.experiments.config import load_config

SPLITS = {"training": 200, "test": 50}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of an unpacked wheel, with nothing of the checkout in its way."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


RUN = """
import contextlib, io, json, runpy, sys
found = []
sys.modules |= dict.fromkeys(sys.argv[2].split())  # None: as if not installed
for module, *words in json.loads(sys.argv[1]):
    sys.argv = [module, *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code
    found.append([code or 0, out.getvalue(), err.getvalue()])
import sdn
print(json.dumps([sdn.__file__, found]))
"""
"""Commands one after another in one process, since torch takes seconds to import."""


def ran(installed, *commands, cwd, without="", **more):
    """(exit code, output, errors) of each command; the words of one are parted by blanks."""
    env = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-c", RUN, json.dumps([words.split() for words in commands]), without]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    where, found = json.loads(done.stdout.splitlines()[-1])
    assert where.startswith(str(installed))
    return found


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_holds_configurations_notebooks_and_the_network(installed):
    inside = names(installed)
    for path in names(ROOT / "configs"):
        assert (installed / "spikingssm" / "configs" / path).read_text() == (ROOT / "configs" / path).read_text()
    assert {"sdn/notebooks/convert.ipynb", "sdn/notebooks/own_neuron.ipynb", "sdn/py.typed"} <= inside
    assert any(name.startswith("spikingssm/networks/spoken-digits/") for name in inside)
    assert not [name for name in inside if name.startswith(("tests/", "benchmarks/", "configs/"))]
    assert sum((installed / name).stat().st_size for name in inside) < 6 * 2**20


def test_the_commands_of_the_wheel_are_those_of_the_project(installed):
    (written,) = installed.glob("*.dist-info/entry_points.txt")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"sdn", "spikingssm"}
    for name, target in scripts.items():
        assert f"{name} = {target}" in written.read_text()


def test_the_program_is_whole_outside_of_a_checkout(installed, tmp_path):
    """Configurations, notebooks, and what a network's command says to words of the other one."""
    shown, wrong, taken, again, written, held = ran(
        installed, "spikingssm train experiment=spikingssm/cifar --cfg job", "spikingssm train --save exp",
        "spikingssm configs mine", "spikingssm configs mine", "sdn notebooks here", "sdn notebooks here", cwd=tmp_path,
    )  # fmt: skip
    assert "d_model: " in shown[1], shown
    assert wrong[:2] == [2, ""]
    assert "sdn train --save exp" in wrong[2]
    assert taken[:2] == [0, f"mine: set SPIKINGSSM_CONFIGS={shlex.quote(str(tmp_path / 'mine'))} to use it\n"]
    assert names(tmp_path / "mine") == names(ROOT / "configs")
    assert "mine exists; choose another folder" in again[2]
    notebooks = [path for folder in (ROOT, ROOT / "docs" / "tutorials") for path in folder.glob("*.ipynb")]
    expected = {path.name for path in notebooks}
    assert len(expected) == len(notebooks), "two notebooks of one name"
    assert written[0] == 0
    assert names(tmp_path / "here") == expected
    assert len(expected) >= 7
    assert held[0] == 2
    assert "exists; choose another folder, or --force" in held[2]


def test_a_plain_install_has_its_commands(installed, tmp_path):
    """pip install without extras: trajectories, warming up, the doctor; and what the others ask for."""
    extras = "lightning hydra omegaconf torchmetrics matplotlib rich tensorboard sklearn scipy soundfile"
    made, warm, doctor, network, surrogate = ran(
        installed, "sdn generate d -N 20 -T 20", "sdn warmup scan", "sdn doctor --seconds 0",
        "spikingssm train experiment=spikingssm/digits", "sdn train --save exp", cwd=tmp_path, without=extras,
    )  # fmt: skip
    assert made[0] == 0, made
    assert len(list((tmp_path / "d").glob("*.pt"))) == 1
    assert warm[0] == 0, warm
    assert "scan, complex" in warm[1]
    assert "fused" in doctor[1], doctor
    for asked in (network, surrogate):
        assert asked[0] == 2, asked
        assert "is missing; install the extras: pip install 'sdn-spikingssm[train,data]'" in asked[2]


def test_configurations_can_be_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    copy_configs("mine")
    says = copy_configs("my own")
    assert says == f"my own: set SPIKINGSSM_CONFIGS='{tmp_path}/my own' to use it"
    own = tmp_path / "mine" / "experiment" / "spikingssm" / "own.yaml"
    own.write_text((own.parent / "digits.yaml").read_text() + "\nseed: 4321\n")
    for folder in (str(tmp_path / "mine"), "~/mine"):
        monkeypatch.setenv("SPIKINGSSM_CONFIGS", folder)
        assert load_config(["experiment=spikingssm/own"]).seed == 4321
    monkeypatch.setenv("SPIKINGSSM_CONFIGS", "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"SPIKINGSSM_CONFIGS=nowhere: no config\.yaml there; `spikingssm configs"
    ):
        load_config(["experiment=spikingssm/digits"])


def test_a_surrogate_is_trained_and_reduced_by_the_command(installed, tmp_path):
    files = [trajectory_file_name(LIF(0.125), rows, 64, 0.0, 1.0, split) for split, rows in SPLITS.items()]
    made = [f"sdn generate dataset -n {split} -N {rows} -T 64 -t 0.125" for split, rows in SPLITS.items()]
    quick = "--epochs 2 --steps_per_epoch 20 --batch_size 8 --members 2"
    *_, trained, reduced, again, nothing = ran(
        installed, *made, f"sdn train --training dataset/{files[0]} --test dataset/{files[1]} --save exp {quick}",
        "sdn reduce exp", "sdn reduce exp", "sdn reduce elsewhere", cwd=tmp_path,
    )  # fmt: skip
    assert trained[0] == 0, trained
    assert "LIF(decay=0.125" in reduced[1], reduced
    assert "193 parameters become 153" in reduced[1]
    assert (tmp_path / "exp" / "converted.safetensors").is_file()
    assert "converted.safetensors exists; choose another --out, or --force" in again[2]
    assert "best.ckpt: no such file; RUN is a folder that `sdn train --save RUN` has written" in nothing[2]
