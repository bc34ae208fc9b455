"""`spikingssm stream`: lines that a program can read, a summary, and an end in order."""

import io
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from test_listening import data, made

import spikingssm
from spikingssm.__main__ import command
from spikingssm.datasets.audio import tones
from spikingssm.experiments import trained

NETWORK = "spoken-digits"


@pytest.fixture
def stream(monkeypatch, capsys):
    """Run the command: (lines, standard error, exit code)."""

    def run(*words, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["spikingssm", "stream", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        code = 0
        try:
            command()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return out.splitlines(), err, code

    return run


@pytest.fixture
def network(monkeypatch):
    """A network that is asked for by any name."""

    def use(name):
        model = made(name)
        monkeypatch.setattr(trained, "load_model", lambda run: model)
        return model

    return use


def table(lines):
    head, *rows = [line.split("\t") for line in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_a_recording_is_answered_as_by_predict_and_summed_up(stream, tmp_path):
    clip = tones(10, [7990], 8000, 7990)[0][0]
    soundfile.write(tmp_path / "x.wav", clip, 8000)
    whole = spikingssm.load_model(NETWORK).predict(clip)
    lines, err, code = stream(NETWORK, tmp_path / "x.wav", "--every", 0.5)
    rows = table(lines)
    assert code == 0
    assert [row["seconds"] for row in rows] == ["0.500", "0.999"]
    assert list(rows[0]) == ["seconds", "answer", "probability", "spikes", "spikes_in_all"]
    assert rows[-1]["answer"] == whole.names[0]
    assert float(rows[-1]["probability"]) == pytest.approx(float(whole.probabilities.max()), abs=2e-6)
    assert int(rows[-1]["spikes_in_all"]) == int(whole.spikes[0]) == sum(int(row["spikes"]) for row in rows)
    first, every, *layers = err.strip().splitlines()[-5:]
    assert first.startswith("7990 steps, 0.999 s of sound in ")
    assert first.endswith(" times real time")
    assert f"{int(whole.spikes[0])} spikes, " in every
    for line, (name, count) in zip(layers, whole.layers.items(), strict=True):
        assert line.startswith(name)
        assert f"{int(count)} spikes, {100 * int(count) / (64 * 500):.3f} % of the steps of its 64 neurons" in line


def test_json_has_all_probabilities_and_layers(stream):
    clip = tones(10, [8000], 8000, 8000)[0][0]
    lines, err, _ = stream(NETWORK, "-", "--json", "--reset", 0.5, stdin=clip.tobytes())
    whole = spikingssm.load_model(NETWORK).predict(np.stack([clip[:4000], clip[4000:]]))
    for row, line in enumerate(lines):
        said = json.loads(line)
        assert list(said) == [
            "step", "seconds", "window", "answer", "probability", "probabilities", "spikes", "spikes_in_all", "layers",
            "layers_in_all",
        ]  # fmt: skip
        assert (said["step"], said["seconds"], said["window"]) == (4000 * (row + 1), 0.5 * (row + 1), row)
        assert said["answer"] == whole.names[row]
        np.testing.assert_allclose([*said["probabilities"].values()], whole.probabilities[row].numpy(), atol=2e-6)
        assert said["layers"] == {name: int(count[row]) for name, count in whole.layers.items()}
    assert said["layers_in_all"] == {name: int(count.sum()) for name, count in whole.layers.items()}
    assert "times real time, the network alone " in err


def test_numbers_of_a_pipe_are_answered_as_by_predict(stream, network):
    model = network("numbers")
    x = data(model)
    text = "\n".join(",".join(map(repr, row)) for row in x.tolist()).encode()
    lines, err, code = stream("RUN", "-", stdin=text)
    whole = model.predict(x[None])
    rows = table(lines)
    assert code == 0
    assert [row["step"] for row in rows] == ["100", "151"]
    assert rows[-1]["answer"] == whole.names[0]
    assert int(rows[-1]["spikes_in_all"]) == int(whole.spikes[0])
    assert "151 steps in " in err
    assert "real time" not in err
    assert table(stream("RUN", "-", "--rate", 50, stdin=text)[0])[-1]["seconds"] == "3.020"


def test_every_kind_of_answer_has_its_columns(stream, network, tmp_path):
    for name, wanted in (
        ("regression", ["value[0]", "value[1]", "value[2]", "value[3]"]),
        ("labels", ["answer", "probability"]),
        ("mean of each step", ["answer", "probability", "answer_now", "probability_now"]),
        ("each step", ["answer", "probability"]),
    ):
        model = network(name)
        x = data(model)
        np.save(tmp_path / "x.npy", x)
        whole = model.predict(x[None])
        rows = table(stream("RUN", tmp_path / "x.npy", "--every", 5)[0])
        last = json.loads(stream("RUN", tmp_path / "x.npy", "--json")[0][-1])
        assert list(rows[-1]) == ["step", *wanted, "spikes", "spikes_in_all"]
        if name == "regression":
            values = [float(rows[-1][column]) for column in wanted]
            np.testing.assert_allclose(values, whole.labels[0].numpy(), atol=1e-4)
            np.testing.assert_allclose([*last["answer"].values()], whole.labels[0].numpy(), atol=1e-4)
        elif name == "labels":
            assert rows[-1]["answer"] == ";".join(whole.names[0])
            assert last["answer"] == whole.names[0]
            assert len(rows[-1]["probability"].split(";")) == len(whole.names[0])
        elif name == "mean of each step":
            assert (rows[0]["answer"], rows[0]["probability"]) == ("", "")  # of 7 steps that are left out
            assert rows[0]["answer_now"] != ""
            assert rows[-1]["answer"] == last["answer"] == whole.names[0]
            assert {"answer_now", "probability_now", "probabilities_now"} <= set(last)


def test_a_bad_line_ends_the_stream_or_is_left_out(stream, network):
    model = network("numbers")
    x = data(model)[:120]
    text = [",".join(map(repr, row)) for row in x.tolist()]
    broken = "\n".join([*text[:110], "nan,1", *text[110:]]).encode()
    lines, err, code = stream("RUN", "-", stdin=broken)
    assert code == 2
    assert len(lines) == 2  # the names, and the answer of 100 steps
    assert "110 steps in " in err
    assert err.strip().endswith("error: standard input: line 111 has 'nan'; a network reads finite numbers only.")
    lines, err, code = stream("RUN", "-", "--skip-bad", stdin=broken)
    whole = model.predict(x[None])
    assert code == 0
    assert table(lines)[-1]["answer"] == whole.names[0]
    assert int(table(lines)[-1]["spikes_in_all"]) == int(whole.spikes[0])
    assert "left out: standard input: line 111 has 'nan'" in err
    assert err.strip().endswith("1 line was left out")


def test_an_empty_stream_and_a_network_that_cannot_are_named(stream, network):
    lines, err, code = stream(NETWORK, "-")
    assert (len(lines), code) == (1, 2)
    assert "error: nothing came: the stream ended before its first step" in err
    assert "spikes" not in err
    model = network("numbers")
    model.network = spikingssm.SpikingSSM(2, 4, 8, 1, 4, bidirectional=True, solver="fused").eval()
    _, err, code = stream("RUN", "-", stdin=b"1,2\n")
    assert code == 2
    assert "needs the steps to come, so it has no compiled step. `predict` runs this network over whole" in err


def test_names_of_classes_stay_in_their_column(stream, network):
    model = network("numbers")
    object.__setattr__(model.interface, "classes", tuple(f"a\tb\n{k}" for k in range(4)))
    lines, _, _ = stream("RUN", "-", stdin=b"1,2\n")
    assert table(lines)[0]["answer"].startswith("a b ")


CHILD = [sys.executable, "-W", "ignore", "-m", "spikingssm", "stream", NETWORK, "-", "--every", "0.1"]


@pytest.mark.skipif("SDN_LONG" not in os.environ, reason="real signals, which need a quiet machine; SDN_LONG=1")
def test_a_reader_that_leaves_ends_it_quietly_and_ctrl_c_in_order():
    clip = tones(10, [8000], 8000, 8000)[0][0].tobytes()
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(CHILD, **pipes) as asked, subprocess.Popen(CHILD, **pipes) as left:
        left.stdout.close()
        left.stdin.write(clip)
        left.stdin.close()
        os.write(asked.stdin.fileno(), clip)  # its pipe stays open
        lines = [asked.stdout.readline() for _ in range(11)]
        asked.send_signal(signal.SIGINT)
        asked.wait(60)  # before its standard input is closed, which ends it too
        out, err = asked.communicate(timeout=60)
        quiet = left.stderr.read()
    assert (asked.returncode, out) == (130, b"")
    assert lines[-1].startswith(b"1.000\t")
    assert b"8000 steps, 1.000 s of sound" in err
    assert err.endswith(b"stopped by SIGINT; the answers so far stand above\n")
    assert (left.returncode, quiet) == (0, b"")
