"""The page of results: complete, safe, whole or absent, whatever the runs are."""

import contextlib
import errno
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from report_runs import HOSTILE, folder, result
from small_runs import recurrent_run

from spikingssm.__main__ import command as program
from spikingssm.__main__ import main as command
from spikingssm.datasets.download import fetch
from spikingssm.experiments.config import load
from spikingssm.experiments.run import run
from spikingssm.reports import html, html_opened
from spikingssm.reports.html import page, write_page
from spikingssm.reports.html_figures import sequence
from spikingssm.reports.html_runs import collect

ROOT = Path(__file__).parents[3]
VOID = {"meta", "input", "br", "img", "link"}


class Reader(HTMLParser):
    """The elements of a page, and whether each is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.ids, self.text = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def checked(text):
    """A page that is well formed, asks nobody for anything and holds one script, which is ours."""
    reader = Reader(text)
    assert len(reader.ids) == len(set(reader.ids))
    for tag, attrs in reader.found:
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                assert re.match(r"#|data:image/png;base64,", value), (tag, name, value)
            for target in re.findall(r"url\(#([^)]*)\)", value or "") + re.findall(
                r"^#(.*)", attrs.get("xlink:href", "")
            ):
                assert target in reader.ids, (tag, name, value)
    assert len(reader.all("script")) == 1
    assert not {"iframe", "object", "link", "base", "form"} & {tag for tag, _ in reader.found}
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text
    for svg in reader.all("svg"):
        assert svg["role"] == "img"
        assert set(svg["aria-labelledby"].split()) <= set(reader.ids)
    anchors = {attrs["href"].removeprefix("#") for attrs in reader.all("a")}
    assert anchors <= set(reader.ids)
    return reader


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory):
    """A run of a SpikingSSM under a surrogate, on 64 steps."""
    place = tmp_path_factory.mktemp("runs") / "digits"
    small = ["+tier=smoke", "model.d_model=8", "model.d_state=4", "data.limit_eval=20", "threads=1"]
    with contextlib.chdir(ROOT):
        quiet = ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
        return run(load(["experiment=spikingssm/digits", *small, *quiet, f"run_dir={place}"]))


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    """A run of BRF neurons, a class at every step."""
    return recurrent_run(tmp_path_factory.mktemp("runs") / "brf")


def test_a_page_shows_everything_that_a_run_has(surrogate, recurrent, tmp_path):
    (surrogate / "card.json").write_text(json.dumps({"joule": 1.5e-6, "note": HOSTILE}))
    out = write_page([surrogate, recurrent], tmp_path / "new" / "a.html")
    text = out.read_text()
    (surrogate / "card.json").unlink()
    reader = checked(text)
    said = "".join(reader.text)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    for caption in ("Loss by epoch", "Accuracy by epoch", "Spike rate by epoch"):
        assert any(found.startswith(caption) for found in captions)
    assert any(re.match(r"digits: layer blocks.0.layer.neuron, 8 neurons x 64 steps\. \d+ spikes", c) for c in captions)
    assert any("input, membrane with threshold, and spikes of neuron" in c for c in captions)
    assert any(c.startswith("brf: layer") for c in captions)
    for words in ("Measured for this page", "Card of digits", "1.5e-06", "true \\ answer", "spikingssm-digits"):
        assert words in said
    assert "Not drawn" not in said
    assert HOSTILE in said
    assert HOSTILE not in text
    assert not list(out.parent.glob(".*"))


def test_a_run_without_membranes_has_its_spikes(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(40, 30, 2)).astype(np.float32), y=rng.integers(0, 2, 40))
    words = [
        "recipe=s5rf",
        f"data.path={tmp_path / 'x.npz'}",
        "model.d_model=8",
        "trainer.max_epochs=1",
        "data.batch_size=8",
    ]
    done = run(
        load([*words, "trainer.enable_progress_bar=false", "trainer.accelerator=cpu", f"run_dir={tmp_path / 's5'}"])
    )
    text = page(collect([done]))
    assert "s5: layer layers.0.neuron, 8 neurons x 30 steps" in text
    assert "membrane with threshold" not in text
    (tmp_path / "x.npz").unlink()
    moved = page(collect([done]))
    assert "Not drawn: the network was not opened: " in moved
    assert "x.npz" in moved
    assert "Accuracy by epoch" in moved


def test_strangers_text_never_becomes_part_of_the_page(tmp_path):
    names = {HOSTILE: 1, '"><img src=x onerror=alert(1)>': 1, "</title></svg>": 1}
    by_class = {"recall": names, "confusion": [[1, 1, 0], [0, 2, 0], [0, 1, 1]]}
    test = {**result()["test"], "by_class": by_class, "spike_rates": {HOSTILE: 0.5}}
    evil = folder(tmp_path / "<b>'a&amp;", name=HOSTILE, test=test, command=f"x {HOSTILE}", device="</table>")
    (evil / "metrics.csv").write_text(f"epoch,val/loss,val/{HOSTILE[:8]}$x_$\n0,1,2\n1,0.5,3\n")
    (evil / "card.json").write_text(json.dumps({HOSTILE: [HOSTILE], "$\\frac{a$": "\ud800"}))
    text = page(collect([evil, folder(tmp_path / "other")]), 0)
    reader = checked(text)
    assert not reader.all("img")
    assert not reader.all("b")
    assert HOSTILE not in text
    assert HOSTILE in "".join(reader.text)
    assert "<b>'a&amp;" in "".join(reader.text)
    assert "</title></svg>" in "".join(reader.text)


def test_sixty_runs_and_one(tmp_path):
    runs = [folder(tmp_path / f"run-{seed}", seed, epochs=30) for seed in range(60)]
    reader = checked(text := page(collect(runs), 0))
    assert "mean of 60 (range)" in text
    assert "The networks of 60 more runs were not opened; --open 60 opens all." in "".join(reader.text)
    assert len(text) < 3e6
    assert "<h1>Results of run-0</h1>" in page(collect(runs[:1]), 0)


def test_many_classes_are_a_picture(tmp_path):
    counts = (np.eye(40, dtype=int) * 5 + np.eye(40, k=3, dtype=int)).tolist()
    by_class = {"recall": {f"class {n}": 1 for n in range(40)}, "confusion": counts}
    text = page(collect([folder(tmp_path / "a", test={**result()["test"], "by_class": by_class})]), 0)
    reader = checked(text)
    assert "a: 40 classes, 84.39 % on the diagonal" in text
    assert 'class="matrix"' not in text
    assert len([image for image in reader.all("image") if image["xlink:href"].startswith("data:image/png")]) == 2


def test_results_in_files_runs_that_did_not_end_and_damaged_ones(tmp_path):
    (tmp_path / "file.json").write_text(json.dumps(result(1)))
    begun = folder(tmp_path / "begun", epochs=0)
    (begun / "summary.json").unlink()
    (begun / "ended.json").write_text('{"how": "diverged", "reason": "loss became nan", "time": ""}')
    damaged = folder(tmp_path / "damaged")
    (damaged / "summary.json").write_text("{")
    said = "".join(checked(text := page(collect([tmp_path / "file.json", begun, damaged]))).text)
    assert "no result: diverged" in said
    assert "begun: diverged: loss became nan" in said
    assert re.search(r"damaged: .*not readable as JSON", said)
    assert "None of these runs has a table of its epochs" in said
    assert "<svg" not in text


def test_values_that_are_no_numbers_are_left_out_of_pictures(tmp_path):
    run = folder(tmp_path / "a")
    (run / "metrics.csv").write_text("epoch,train/loss,val/loss\n0,1,nan\n1,inf,nan\n2,1e300,nan\n3,0.5,nan\n")
    text = page(collect([run]), 0)
    [series] = [json.loads(figure["data-series"]) for figure in checked(text).all("figure")]
    assert series == [["curve-0-train", "a, training", [1, 4], [1, 0.5]]]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    run, out = folder(tmp_path / "a"), tmp_path / "out.html"
    out.write_text("old")

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            write_page([run], out, 0)
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out.html"]
    write_page([run], out, 0)
    assert out.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--html", "out.txt"], "the name must end in .html, got '.txt'"),
        (["--html", "out"], "got 'no ending'"),
        (["--html", "a"], "is a folder; name a file in it, such as a/report.html"),
        (["--html", "o.html", "--out", "b.md"], "--out is for the Markdown table"),
        (["--html", "o.html", "--best-first"], "--best-first is for the Markdown table"),
        (["--html", "o.html", "--open", "-1"], "--open must be 0 or more networks, got -1"),
        (["--open", "3"], "--open 3 is for a page; add --html FILE"),
        (["b.html", "--html", "b.html"], "is one of the results to read"),
    ],
)
def test_a_place_or_option_that_cannot_be_is_refused_before_anything_is_read(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "a")
    monkeypatch.setattr(sys, "argv", ["spikingssm", "report", "a", *words])
    with pytest.raises((ValueError, IsADirectoryError), match=re.escape(said)):
        command()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_command_prints_where_the_page_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "a")
    monkeypatch.setattr(sys, "argv", ["spikingssm", "report", "a", "--html", "sub/o.html", "--open", "0"])
    command()
    assert capsys.readouterr().out == "sub/o.html\n"
    checked((tmp_path / "sub" / "o.html").read_text())


def test_a_network_is_left_as_it_was_and_only_so_many_are_opened(recurrent, tmp_path, monkeypatch):
    before = {path: path.read_bytes() for path in sorted(recurrent.rglob("*")) if path.is_file()}
    other = shutil.copytree(recurrent, tmp_path / "other")
    asked = []
    opening = html.open_run
    monkeypatch.setattr(html, "open_run", lambda path, **more: asked.append((path, more)) or opening(path, **more))
    page(collect([recurrent, other]), 1)
    assert asked == [(recurrent, {"classes": False})]
    assert {path: path.read_bytes() for path in sorted(recurrent.rglob("*")) if path.is_file()} == before


def test_opening_downloads_nothing_and_leaves_threads_and_random_numbers(recurrent, monkeypatch):
    def load(folder, **more):
        torch.set_num_threads(2)
        torch.manual_seed(9)
        fetch("http://127.0.0.1:9/", "file", "0" * 64, folder / "none")

    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    monkeypatch.setattr(html_opened, "load_run", load)
    [problem] = html_opened.open_run(recurrent).problems
    assert "file is not on this machine, and nothing is downloaded here" in problem
    assert torch.get_num_threads() == 1
    assert torch.equal(torch.rand(3), wanted)


def test_much_is_drawn_in_part_and_the_caption_says_so():
    spikes = torch.zeros(3000, 100)
    spikes[:2500, :8] = 1
    layer = html_opened._layer("many", spikes, 2900)
    assert layer.spikes.shape == (500, 64)  # 4,000 spikes
    assert (layer.steps, layer.neurons, layer.neuron) == (2900, 100, 0)
    drawn = sequence(layer, "x", "run")
    assert "64 neurons x 500 steps of 100 neurons x 2900 steps" in drawn.caption
    assert html_opened._layer("few", spikes[:, :9], None).spikes.shape == (500, 9)
    assert html_opened._layer("quiet", 0 * spikes, None).spikes.shape == (2000, 64)


def test_an_older_run_without_its_classes_is_tested_again(recurrent, tmp_path):
    old = shutil.copytree(recurrent, tmp_path / "old")
    summary = json.loads((old / "summary.json").read_text())
    known = summary["test"].pop("by_class")
    (old / "summary.json").write_text(json.dumps(summary))
    text = page(collect([old]))
    assert ", tested again for this page on 19 rows" in text
    assert re.findall(r"\d+", re.search(r'<table class="matrix">.*?<tbody>(.*?)</tbody>', text, re.S)[1])
    [cells] = re.findall(r'<table class="matrix">.*?<tbody>(.*?)</tbody>', text, re.S)
    assert [int(n) for n in re.findall(r">(\d+)</td>", cells)] == [n for row in known["confusion"] for n in row]


@pytest.mark.parametrize("broken", ["checkpoints/best.ckpt", "config.yaml"])
def test_a_network_that_cannot_be_opened_is_told(recurrent, tmp_path, broken):
    bad = shutil.copytree(recurrent, tmp_path / "bad")
    (bad / broken).write_bytes((bad / broken).read_bytes()[:100])
    said = "".join(checked(page(collect([bad]))).text)
    assert "Not drawn: the network was not opened: " in said
    assert "Accuracy by epoch" in said


def test_a_missing_library_is_named_with_the_way_out(tmp_path, monkeypatch, capsys):
    folder(tmp_path / "a")
    for name in [name for name in sys.modules if name.startswith("spikingssm.reports.html")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.setattr(sys, "argv", ["spikingssm", "report", str(tmp_path / "a"), "--html", str(tmp_path / "o.html")])
    with pytest.raises(SystemExit) as ended:
        program()
    assert ended.value.code == 2
    assert "the package jinja2 is missing; install the extras: pip install" in capsys.readouterr().err
    assert not (tmp_path / "o.html").exists()
