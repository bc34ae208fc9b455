"""Messages of every script look alike; those of a program that uses the library are its own."""

import os
import re
import subprocess
import sys

from loguru import logger
from scripts import ROOT

from sdn.runs import logs


def stderr(*words, cwd):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", *words]
    return subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, timeout=120).stderr


def test_with_a_log_file_and_without_one(tmp_path):
    code = """
from pathlib import Path
from loguru import logger
from sdn.runs.cli import entry_point
from sdn.runs.folder import log_to

def main():
    logger.warning("something")
    log_to(Path("run.log"))
    logger.warning("something")

entry_point(main)()
"""
    lines = stderr("-c", code, cwd=tmp_path).splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d \| WARNING \| something", line) for line in lines), lines


def test_who_has_chosen_another_way_keeps_it(capsys):
    logger.remove()
    said = []
    handler = logger.add(said.append, format="{message}")
    logs.speak()
    logger.warning("something")
    logger.remove(handler)
    assert said == ["something\n"]
    assert capsys.readouterr().err == ""
