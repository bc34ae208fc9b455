"""docs/neurons/: the tables of each page are those of the code, and each page shows what it must."""

import dataclasses
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sdn
from sdn.dynamics import BUILT_IN

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("neuron_pages", ROOT / "docs" / "neuron_pages.py")
assert spec is not None
assert spec.loader is not None
neuron_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(neuron_pages)

every_word = pytest.mark.parametrize("word", BUILT_IN)


def page(word: str) -> str:
    return (ROOT / "docs" / "neurons" / f"{word}.md").read_text()


@every_word
def test_the_tables_are_made_of_the_code(word):
    assert neuron_pages.written(word, page(word)) == page(word), "old; run python docs/neuron_pages.py"


@every_word
def test_a_page_has_equation_picture_reset_code_and_source(word):
    text = page(word)
    assert re.search(r"^\$\$\n\\begin\{aligned\}$", text, re.M)
    assert re.search(rf"^!\[.+\]\({BUILT_IN[word].__name__}\.png\)$", text, re.M)
    assert "\n## Reset\n" in text
    assert f"sdn.{BUILT_IN[word].__name__}(" in "".join(re.findall(r"```python\n(.*?)```", text, re.S))
    assert re.search(r"^\| source \| .*\d{4}", text, re.M)


@every_word
def test_every_field_has_a_meaning_a_unit_and_a_default(word):
    kind = BUILT_IN[word]
    rows = [line.strip("| ").split(" | ") for line in neuron_pages.fields(kind).splitlines()[2:]]
    assert [row[0] for row in rows] == [f"`{field.name}`" for field in dataclasses.fields(kind)]
    assert all(len(row[1]) > 5 for row in rows)
    numbers = [row for row in rows if row[0].strip("`") in kind.ranges]
    assert len(numbers) >= 2
    assert all(row[2] and row[3][0] in "([" for row in numbers)


def test_a_new_field_or_another_default_makes_a_page_old(monkeypatch):
    monkeypatch.setattr(sdn.LIF, "default_std", 3.5)
    assert "standard deviation of 3.5" in neuron_pages.written("lif", page("lif"))
    with pytest.raises(ValueError, match=r"docs/neurons/lif.md has no part <!-- card -->"):
        neuron_pages.written("lif", page("lif").replace("<!-- end card -->", ""))


def test_the_command_says_which_page_is_old(tmp_path):
    script = (ROOT / "docs" / "neuron_pages.py").read_text()
    for name in ("docs/neurons", "benchmarks/results"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "docs" / "neuron_pages.py").write_text(script)
    (tmp_path / "benchmarks" / "results" / "seams.json").write_text(neuron_pages.SEAMS.read_text())
    for word in BUILT_IN:
        (tmp_path / "docs" / "neurons" / f"{word}.md").write_text(page(word))
    command = [sys.executable, "docs/neuron_pages.py", "--check"]

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert check().returncode == 0
    (tmp_path / "docs" / "neurons" / "rf.md").write_text(page("rf").replace("5 multiplications", "6 multiplications"))
    done = check()
    assert done.returncode == 1
    assert "rf.md: older than the code; run python docs/neuron_pages.py" in done.stderr
