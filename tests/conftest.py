"""One thread (the machines are shared) and one seed before every test."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from scripts import QUICK, ended, files, script

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before any kernel is defined: Triton reads it once
pytest.register_assert_rewrite("helpers")
# What the tests draw at random is nothing for the cache of a user.
os.environ.setdefault("SDN_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"sdn-tests-{os.getuid()}"))
torch.set_num_threads(1)
# A test file may use what another one makes, wherever it stands; their names are all different.
sys.path += sorted({str(path.parent) for path in Path(__file__).parent.rglob("test_*.py")})


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20240828)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with a training and a test file, written by the two generate commands."""
    path = tmp_path_factory.mktemp("work")
    both = [
        script("generate.py", "dataset", "-T", 64, "-t", 0.125, "-N", n, *more, cwd=path)
        for n, more in ((200, []), (50, ["-n", "test"]))
    ]
    for process in both:
        code, _, err = ended(process)
        assert code == 0, err
        assert "100%" in err  # the progress bar
    return path


@pytest.fixture(scope="session")
def trained(folder):
    """A finished run of train.py beside those files."""
    code, _, err = ended(script("train.py", "--save", "exp", *files(folder), *QUICK, cwd=folder))
    assert code == 0, err
    return folder / "exp"
