"""The documents are right: their Python runs, their commands and links exist, and their sentences are short."""

import argparse
import contextlib
import importlib.util
import io
import json
import linecache
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import documents
import pytest
from documents import ROOT, blocks, commands, links, ninetieth, pages, sentences

import sdn.__main__
import spikingssm.__main__
from benchmarks import page as speeds
from benchmarks.record import RESULTS
from sdn.commands import generate
from sdn.surrogate import settings
from spikingssm.commands import train

PAGES = pages()
RUN = [page for page in PAGES if any(block.info == "python" for block in blocks(page.read_text()))]
README = (ROOT / "README.md").read_text()
WORDS = {"README.md": 25}
"""Words that nine of ten sentences of a page have at most; 28 where it is not named."""


def of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.filterwarnings("ignore:.*non-interactive.*:UserWarning")
@pytest.mark.parametrize("page", RUN, ids=of)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """Block after block in one namespace, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    module = ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(page.read_text()):
        if block.info == "python":
            name = f"<{of(page)}:{block.line}>"
            linecache.cache[name] = (len(block.text), None, block.text.splitlines(keepends=True), name)
            exec(compile(block.text, name, "exec"), module.__dict__)


@pytest.mark.parametrize("page", PAGES, ids=of)
def test_sentences_and_lines_are_short(page):
    text = page.read_text()
    found = sentences(text)
    longest = sorted(found, key=lambda sentence: len(sentence.split()))[-3:]
    limit = WORDS.get(of(page), 28)
    assert ninetieth([len(sentence.split()) for sentence in found]) <= limit, longest
    assert not [sentence for sentence in found if ";" in re.sub(r"`[^`]*`", "", sentence)]
    for number, line in enumerate(documents.without_code(text).splitlines(), 1):
        free = re.match(r"\s*\||#|!\[", line) or not re.search(r"\S\s+\S", line.strip(" -*"))
        assert free or len(line) <= 100, f"{of(page)}:{number}: {len(line)} characters"


def test_the_readme_begins_with_what_a_reader_does():
    lines = README.splitlines()
    assert len(lines) <= 130
    first = next(block for block in blocks(README) if block.info == "python")
    assert first.line < 25
    assert len(first.text.splitlines()) <= 20
    named = ("make demo", "make test", "python generate.py dataset", "python train.py --save exp", "convert.ipynb",
             "python train.py experiment=spikingssm/cifar")  # fmt: skip
    assert not [name for name in named if name not in README]
    assert re.search(r"!\[[^]]+\]\(docs/\w+\.gif\)", README[: README.index("\n## ")])


@pytest.mark.parametrize("page", PAGES, ids=of)
def test_links_lead_somewhere(page):
    text = page.read_text()
    for link in links(text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{of(page)}: {link}"
        if anchor and target.suffix == ".md" and "." not in anchor:
            assert anchor in documents.anchors(target.read_text()), f"{of(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=of)
def test_what_a_page_names_exists(page):
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`|&& )make ([a-z]+(?:-[a-z]+)*)", text, re.M)) <= targets
    for name in set(re.findall(r"experiment=([a-z0-9_]+/[a-z0-9_]+)\b", text)) - {"spikingssm/minst"}:
        assert (ROOT / "configs" / "experiment" / f"{name}.yaml").is_file(), name
    for block in blocks(text):
        assert block.info or not re.search(r"^(\$ )?(python|pip|make|sdn|spikingssm) ", block.text, re.M), (
            f"{of(page)}:{block.line}: a block with commands begins with ```bash"
        )


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page.read_text())], ids=of)
def test_the_commands_of_a_page_are_taken(page):
    for words in commands(page.read_text()):
        try:
            taken(tuple(words))
        except (SystemExit, ValueError, OSError) as error:
            pytest.fail(f"{of(page)}: {' '.join(words)}: {error}")


@cache
def taken(words: tuple[str, ...]) -> None:
    """Parse a command, and compose what it would train; nothing is run."""
    at = 3 if words[1:2] == ("-m",) else 1
    program, rest = words[at - 1], list(words[at:])
    if program.startswith("python") or program not in ("sdn", "spikingssm"):
        program, rest = ("generate" if words[1] == "generate.py" else "train"), list(words[2:])
    elif rest and rest[0] in ("generate", "train"):
        program, rest = rest[0], rest[1:]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            _parse(program, rest)
        except SystemExit as error:
            if error.code not in (0, None):
                raise SystemExit(said.getvalue().strip().splitlines()[-1:]) from None


def _parse(program: str, words: list[str]) -> argparse.Namespace | None:
    if program == "generate":
        return generate.parser("generate.py").parse_args(words)
    if program == "sdn":
        return sdn.__main__.parser().parse_args(words)
    if program == "spikingssm":
        found, rest = spikingssm.__main__._parser().parse_known_args(words)
        if wrong := [word for word in rest if word.startswith("-") or "=" not in word]:
            raise SystemExit(f"unrecognized arguments: {' '.join(wrong)}")
        return found
    if not any("=" in word and not word.startswith("-") for word in words):
        return settings.parser().parse_args(words)
    if not any(word.startswith("resume=") for word in words):  # what it says is in the folder of the run
        first = [re.sub(r"^([\w./]+=[\w./-]+),[\w.,/-]+$", r"\1", word) for word in words]  # of a sweep
        train.main([*first, "--cfg", "job"])
    return None


@pytest.mark.parametrize(
    "words",
    [
        "python train.py experiment=spikingssm/digit", "python train.py experiment=spikingssm/digits model.width=3",
        "python train.py --sav exp2 --nothing", "python generate.py data --dynamics lief", "python -m sdn chek brf",
        "spikingssm evaluate RUN --confuse-me", "spikingssm study tempo RUN", "sdn train --epoch 3 --x",
        "python train.py recipe=bfr data.path=x.npz", "spikingssm train experiment=brf/ecg +tier=tiny",
    ],
)  # fmt: skip
def test_a_wrong_command_is_seen(words):
    [found] = commands(f"```bash\nX=1 {words} | head > file  # a word\n```\n")
    with pytest.raises((SystemExit, ValueError)):
        taken(tuple(found))


def test_the_measure_of_prose():
    text = "# A head; no\n\nOne two three. Four five six:\n- seven eight [nine ten](x.md#y) `;`\n  eleven\n\n| a; b |\n"
    text += "```python\nx = 1; y = 2\n```\n<!-- a; b -->\nIs it (really so.) Or is it not? ![a; picture](x.png)\n"
    assert sentences(text) == [
        "One two three.", "Four five six:", "seven eight nine ten `;` eleven", "Is it (really so.", "Or is it not?",
    ]  # fmt: skip
    assert [ninetieth(list(range(1, n + 1))) for n in (0, 1, 9, 10, 20)] == [0, 1, 9, 9, 18]
    assert links("[a](b.md) `[c](d.md)` ![e](f.png) [g](https://h) [[i]](j.md#k)") == ["b.md", "f.png", "j.md#k"]
    assert documents.anchors("## S5-RF (`s5rf`): a *new* one") >= {"s5-rf-s5rf-a-new-one"}
    assert [block[:2] for block in blocks("a\n```\nb\n```\n\n  ```bash no-check\n  c\n  ```\n")] == [
        (2, ""), (6, "bash no-check"),
    ]  # fmt: skip


def _script(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_tables_of_results_are_those_of_their_files():
    results = _script("results")
    for name, tables in results.PAGES.items():
        text = (ROOT / "docs" / name).read_text()
        assert results.written(text, tables) == text, f"docs/{name} is old; run python docs/results.py"


def test_a_changed_result_is_seen(tmp_path, monkeypatch):
    results = _script("results")
    page = (ROOT / "docs" / "brf.md").read_text()
    for path in results.RESULTS.glob("*-smnist-0.json"):
        (tmp_path / path.name).write_text(path.read_text().replace('"accuracy": 0.9', '"accuracy": 0.8'))
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert results.written(page, results.PAGES["brf.md"]) != page
    (tmp_path / "rf-smnist-0.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no rf-smnist-\?.json; copy summary.json of the run there"):
        results.recurrent_mnist()
    with pytest.raises(ValueError, match="no place for the table smnist; write <!-- smnist -->"):
        results.written("# A page", results.PAGES["brf.md"])


def test_tables_of_speeds_are_those_of_their_files():
    found = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    text = speeds.PAGE.read_text()
    assert speeds.render(text, found) == text, "docs/benchmarks.md is old; run python -m benchmarks.page"


def test_public_names_of_the_page_exist():
    text = (ROOT / "docs" / "names.md").read_text()
    named = set(re.findall(r"`((?:sdn|spikingssm)\.[A-Za-z_]\w*)", text))
    assert len(named) > 15
    packages = {"sdn": sdn, "spikingssm": spikingssm}
    parts = [name.split(".") for name in named]
    assert not [(package, name) for package, name in parts if not hasattr(packages[package], name)]
