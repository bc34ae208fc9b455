"""Five hundred damaged, edited and hostile inputs, and that each kind of misbehaviour would be seen."""

import os
import random
import subprocess
from pathlib import Path

import pytest
from fuzz.__main__ import KINDS, fuzz, jobs, summary, table
from fuzz.engine import Format, run_cases, template

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc/self/statm").exists(), reason="needs Linux")
SEED = 13
WHOLE = b"a whole file"


def test_no_input_runs_code_dies_hangs_or_takes_memory(tmp_path):
    found = fuzz(jobs(500), SEED, tmp_path)
    assert len(found) >= 480
    assert {outcome.format for outcome in found} == KINDS.keys()
    bad = [outcome for outcome in found if outcome.bad]
    assert not bad, "\n".join(f"{o.kind}: {o.format} {o.number} ({o.change}) {o.says}" for o in bad)
    kinds = summary(found, SEED, 1.0)["all"]
    assert kinds["refused"] > 300
    assert kinds["right"] > 10


def endless():
    while True:
        pass


def escape():
    Path("../escaped").write_text("x")


MISBEHAVIOUR = {
    "code": [lambda: subprocess.run(["true"], check=False), escape],
    "memory": [lambda: len(bytearray(3 * 2**29))],
    "traceback": [lambda: {}["x"]],
    "lines": [lambda: (_ for _ in ()).throw(ValueError("one\ntwo"))],
    "crash": [lambda: os._exit(3)],
    "other": [lambda: Path("a").read_bytes()],
}


@pytest.mark.parametrize("kind", MISBEHAVIOUR)
def test_each_misbehaviour_is_seen(kind, tmp_path):
    for misbehave in MISBEHAVIOUR[kind]:
        home = tmp_path / str(random.random())
        home.mkdir()

        def read(misbehave=misbehave):
            return WHOLE if Path("a").read_bytes() == WHOLE else misbehave()

        made = Format("made", lambda folder: (folder / "a").write_bytes(WHOLE) and None, read, ["a"], redundant=True)
        template(made, home)
        (outcome,) = run_cases({"made": made}, [("made", 0)], SEED, home)
        assert (outcome.kind, outcome.bad) == (kind, True)
        assert f"{outcome.kind}" in table_of(outcome)


def table_of(outcome):
    KINDS.setdefault("made", KINDS["arrays.npz"])
    try:
        return table([outcome])
    finally:
        KINDS.pop("made")


def test_an_input_is_made_again_from_its_seed_and_number(tmp_path):
    from fuzz.engine import case

    kind = KINDS["s5rf.npz"]
    whole = template(kind, tmp_path)
    words = [case(kind, 7, 3, whole, tmp_path / name) for name in ("a", "b")]
    assert words[0] == words[1]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
