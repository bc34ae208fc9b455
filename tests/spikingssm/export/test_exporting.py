"""Exported files answer as the network does, in a process of their own, and say beside what they are."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from streams import made, steps_of

import spikingssm
from spikingssm.__main__ import _parser
from spikingssm.commands.export import run
from spikingssm.experiments.shipped import FOLDER
from spikingssm.export import export
from spikingssm.export.beside import CLOSE
from spikingssm.export.onnx_file import run_onnx
from spikingssm.export.subject import Answers, by_steps, compared, subject, vectors

PLAIN = {
    "Add", "Cast", "Concat", "Div", "Gather", "Gemm", "Greater", "GreaterOrEqual", "Identity", "LayerNormalization",
    "MatMul", "Mul", "ReduceSum", "Reshape", "Sigmoid", "Slice", "Split", "Sqrt", "Squeeze", "Sub",
    "Unsqueeze", "Where",
}  # fmt: skip
STEPS = 1000


def told(path):
    return json.loads(path.with_name(f"{path.name}.json").read_text())


def equal(found):
    """0 spikes differ of many, and the logits agree."""
    assert found["spikes_that_differ"] == 0
    assert found["spikes"] > 200
    assert found["logits_difference"] <= CLOSE * max(1, found["logits_largest"])
    return True


@pytest.mark.parametrize("name", ["ssm", "s5rf turned, all skips", "rsnn", "ssm language"])
def test_onnx_answers_as_the_network_over_1000_steps(name, tmp_path):
    model, _ = made(name)
    (path,) = export(model, "onnx", tmp_path, steps=STEPS)
    facts = told(path)
    assert equal(facts["agreement"])
    assert equal(facts["step_against_whole_sequence"])
    assert facts["agreement"]["steps"] == STEPS
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert {node.op_type for node in graph.graph.node} <= PLAIN
    assert {node.domain for node in graph.graph.node} == {""}
    names = [each.name for each in graph.graph.input]
    assert names == ["x", *(f"state.{state['name']}" for state in facts["states"])]
    assert all(each.type.tensor_type.shape.dim[0].dim_param for each in graph.graph.input)


def test_onnx_takes_any_batch(tmp_path):
    import onnxruntime

    model, x = made("ssm")
    (path,) = export(model, "onnx", tmp_path, steps=50, check=False)
    assert told(path)["agreement"] == {"checked": False, "why": "was not asked for"}
    session = onnxruntime.InferenceSession(path)
    steps = steps_of(model, x)
    for batch in (1, 3):
        states = {each.name: np.zeros((batch, each.shape[1]), np.float64 if "double" in each.type else np.float32)
                  for each in session.get_inputs()[1:]}  # fmt: skip
        for row in steps[:batch].swapaxes(0, 1):
            found = dict(zip([each.name for each in session.get_outputs()],
                             session.run(None, {"x": row, **states}), strict=True))  # fmt: skip
            states = {name: found[name.replace("state.", "next.")] for name in states}
        with torch.no_grad():
            np.testing.assert_allclose(found["logits"], model(x[:batch])[0], atol=1e-5, rtol=1e-5)


ALONE = """
import sys, numpy as np, torch
step = torch.export.load(sys.argv[1]).module()
known = np.load(sys.argv[2])
sizes = [int(size) for size in sys.argv[3:]]
states = [torch.zeros(1, abs(size), dtype=torch.float64 if size < 0 else torch.float32) for size in sizes]
spikes = [name for name in known if name.startswith("spikes.")]
with torch.no_grad():
    for i, x in enumerate(torch.from_numpy(known["x"])):
        logits, *rest = step(x[None], *states)
        states = rest[:len(states)]
        np.testing.assert_allclose(logits[0], known["logits"][i], atol=1e-5, rtol=1e-5)
        for name, fired in zip(spikes, rest[len(states):]):
            assert (fired[0].numpy() == known[name][i]).all(), (name, i)
assert not {"sdn", "spikingssm", "numba"} & set(sys.modules)
print(i + 1)
"""


@pytest.mark.parametrize("name", ["ssm", "s5rf turned, all skips", "rsnn"])
def test_a_program_is_loaded_in_a_new_process_with_torch_alone(name, tmp_path):
    model, _ = made(name)
    (path,) = export(model, "pt2", tmp_path, steps=STEPS)
    facts = told(path)
    assert equal(facts["agreement"])
    sizes = [state["shape"][1] * (-1 if state["dtype"] == "float64" else 1) for state in facts["states"]]
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    words = [sys.executable, script, path, tmp_path / facts["vectors"]["file"], *map(str, sizes)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-800:]
    assert int(done.stdout) == STEPS


def test_vectors_are_of_the_network_and_a_wrong_file_is_seen(tmp_path):
    model, _ = made("rsnn")
    what = subject(model, "mine")
    known = vectors(what, 200, seed=3)
    assert known.x.shape == (200, 2)
    assert equal({**known.whole, "spikes": 300})
    assert not np.array_equal(known.x, vectors(what, 200, seed=4).x)
    (path,) = export(model, "onnx", tmp_path, steps=20, name="mine")
    assert path.name == "mine.onnx"
    other = by_steps(_Shifted(what), known.x)
    assert compared(known.answers, other)["logits_difference"] == pytest.approx(0.5)
    fewer = {name: each.copy() for name, each in known.answers.spikes.items()}
    next(iter(fewer.values()))[17, 3] ^= 1
    assert compared(known.answers, Answers(known.answers.logits, fewer, {}))["spikes_that_differ"] == 1
    sums = {name: np.array([each.sum() + 2]) for name, each in known.answers.spikes.items()}
    assert compared(known.answers, Answers(known.answers.logits, sums, {}))["spikes_that_differ"] == 2
    assert equal({**compared(known.answers, run_onnx(path, known)), "spikes": 300})


class _Shifted:
    """The step of a network with logits that are wrong."""

    def __init__(self, what):
        from spikingssm.streaming.tensors import TensorStep

        self.step = TensorStep(what.plan)
        self.initial_state = self.step.initial_state
        self.state_names, self.spike_names = self.step.state_names, self.step.spike_names

    def __call__(self, *given):
        logits, *rest = self.step(*given)
        return logits + 0.5, *rest


def test_a_contract_says_what_a_reader_needs(tmp_path):
    model, _ = made("rsnn alif, last")
    (path,) = export(model, "pt2", tmp_path, steps=30)
    facts = told(path)
    assert facts["network"]["kind"] == "RSNN"
    (neuron,) = facts["step"]["neurons"].values()
    assert neuron["kind"] == "ALIF"
    assert neuron["comparison"] == ">"
    assert neuron["equations"][-1].startswith("return spike, ")
    assert not any("_ " in line for line in neuron["equations"])
    assert [state["name"] for state in facts["states"]] == ["layers.0.spikes", "layers.0", "readout"]
    assert facts["states"][1]["order"] == "(u, a, s; 20 neurons)"
    assert facts["step"]["initial_state"].startswith("zeros")
    assert facts["file"]["bytes"] == path.stat().st_size
    assert facts["names"]["inputs"] == ["x", "state.layers.0.spikes", "state.layers.0", "state.readout"]
    for word, source in facts["step"]["loops"].items():
        assert source.startswith(f"def {word}(")
        assert any(call.startswith((f"{word}(", "n[")) for call in facts["step"]["calls"])


@pytest.fixture(scope="module")
def shipped():
    return spikingssm.load_model("spoken-digits")


def test_a_hub_folder_opens_as_the_run_did_and_has_no_pickle(shipped, tmp_path):
    (folder,) = export(shipped, "hub", tmp_path / "hub", licence="mit")
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "config.yaml", "inputs.json", "model.safetensors", "model.safetensors.json",
        "model.safetensors.vectors.npz", "summary.json",
    }  # fmt: skip
    again = spikingssm.load_model(folder)
    x = 0.05 * torch.randn(2, 4000)
    assert torch.equal(shipped.predict(x).logits, again.predict(x).logits)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\nlibrary_name: sdn-spikingssm\n")
    for said in ("value: 0.976667", "# spoken-digits", "17: test | 0.9767", "10.02 % of neurons", "2430 train"):
        assert said in card, said
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["SpikingSSM"]
    with pytest.raises(FileExistsError, match="is not empty"):
        export(shipped, "hub", folder)
    (folder / "model.safetensors").write_bytes(b"123")
    with pytest.raises(ValueError, match=r"not a readable file of safetensors .*fetch it again"):
        spikingssm.load_model(folder)


def test_the_preparation_of_raw_data_stands_in_the_contract(shipped, tmp_path):
    (path,) = export(shipped, "pt2", tmp_path, steps=40, int8=True, reach=0.9)
    facts = told(path)
    assert path.name == "spoken-digits-int8.pt2"
    assert facts["input"]["preparation"]["hertz"] == 8000
    assert facts["output"]["classes"] == [str(n) for n in range(10)]
    assert facts["run"]["test"]["accuracy"] == pytest.approx(0.97667, abs=1e-4)
    assert facts["int8"]["maps"][0]["saturated"] > 0
    assert facts["int8"]["tested"] is False
    assert 0 < facts["int8"]["against_float32"]["logits_difference"] < 2


def test_what_does_not_go_together_is_refused(tmp_path):
    model, _ = made("ssm")
    for given, says in (
        ({"to": "tflite"}, "to must be of onnx, pt2, c, nir, hub, got 'tflite'"),
        ({"to": "hub"}, r"a hub folder is of a trained run, got a SpikingSSM; give load_model\(RUN\)"),
        ({"to": ["c", "nir"], "int8": True}, "int8 is for onnx, pt2, c, got nir"),
        ({"to": "c", "steps": 0}, "steps must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=says):
            export(model, folder=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file; give a folder"):
        export(model, "c", tmp_path / "file")
    with pytest.raises(NotImplementedError, match="a bidirectional network needs the steps to come"):
        export(spikingssm.SpikingSSM(1, 2, 4, 1, 2, bidirectional=True), "c", tmp_path / "out")


def test_a_silent_network_and_one_that_differs_are_said(tmp_path, capsys):
    from loguru import logger

    lines = []
    sink = logger.add(lambda line: lines.append(str(line)))
    model, _ = made("rsnn")
    with torch.no_grad():
        model.layers[0].input.weight.zero_()
    export(model, "pt2", tmp_path, steps=10)
    logger.remove(sink)
    assert any("layers.0 spikes never or always with the test vectors" in line for line in lines), lines


def command(*words):
    given = _parser().parse_args(["export", *map(str, words)])
    given.overrides = []
    run(given)


def test_the_command(tmp_path, capsys):
    rows = np.random.default_rng(0).normal(scale=0.05, size=(12, 8000)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows, y=np.arange(12) % 10)
    to = ("--to", "c", "pt2", "--int8", "--data", tmp_path / "rows.npz", "--out", tmp_path / "made", "--steps", 60)
    command("spoken-digits", *to)
    out = capsys.readouterr().out
    assert "spoken-digits-int8.c: " in out
    assert "test accuracy: 0." in out
    assert "map 16 -> 64: 0.42 % away, 0 % saturated" in out
    facts = json.loads((tmp_path / "made" / "spoken-digits-int8.c.json").read_text())
    assert facts["int8"]["float32"]["rows"] == 12
    for words, says in (
        (("--to", "c"), "spoken-digits is part of the program, so say where to write: --out FOLDER"),
        (("--to", "c", "--limit", 3), "--limit 3 is for --int8, which is tested; leave it out"),
        (("--to", "c", "--reach", 0.5), r"--reach 0\.5 is for --int8; add that, or leave it out"),
        (("--to", "c", "--licence", "mit"), "--licence mit is for --to hub; add that, or leave it out"),
    ):
        with pytest.raises(ValueError, match=says):
            command("spoken-digits", *words)
    assert not (FOLDER / "spoken-digits" / "export").exists()


def test_a_contract_is_enough_to_write_the_step_anew(tmp_path):
    """Its loops and calls, run as they stand there on plain lists, give the logits of the vectors."""
    model, _ = made("ssm")
    (path,) = export(model, "c", tmp_path, steps=12, check=False)
    facts = told(path)
    known = np.load(tmp_path / facts["vectors"]["file"])
    assert hashlib.sha256((tmp_path / facts["vectors"]["file"]).read_bytes()).hexdigest() == facts["vectors"]["sha256"]
    room = {"F": np.float32, "sqrt": np.sqrt, "sigmoid": lambda z: 1 / (1 + np.exp(-z)), "TINY": 1.2e-38, "Array": None}
    for source in facts["step"]["loops"].values():
        exec(source, room)
    numbers = {
        "t": np.zeros(10_000, np.float32),
        "s": np.zeros(10_000, np.float32),
        "p": np.zeros(100),
        "w": known["w"],
    }
    for neuron in facts["step"]["neurons"]:
        room[neuron] = lif
    fired = np.zeros(len(facts["network"]["layers"]), int)
    for x, wanted in zip(known["x"], known["logits"], strict=True):
        out = np.zeros(len(wanted), np.float32)
        for call in facts["step"]["calls"]:
            exec(call, {**room, **numbers, "x": x, "out": out, "n": fired})
        np.testing.assert_allclose(out, wanted, atol=1e-5)
    assert fired.sum() == sum(int(known[name].sum()) for name in known if name.startswith("spikes."))
    assert fired.sum() > 10


def lif(current, C, W, rows, R, numbers, N, state, S, spikes, Y):
    """The equations of the contract for LIF: ``t1 = decay * u + current``, a spike at the threshold, a reset to 0."""
    decay, threshold = rows[R : R + W], rows[R + W : R + 2 * W]
    u = decay * state[S : S + W] + current[C : C + W]
    spikes[Y : Y + W] = u >= threshold
    state[S : S + W] = u * (1 - spikes[Y : Y + W])
    return int(spikes[Y : Y + W].sum())


@pytest.mark.parametrize("name", ["a/b", "../evil", "*/ int x; /*", "x??/", "", ".hidden", "a" * 101])
def test_a_name_that_is_no_file_name_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="name must be a plain file name") as error:
        export(made("rsnn")[0], "c", tmp_path / "out", name=name) if name else subject(made("rsnn")[0], " ")
    assert "got" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_compiler_that_does_nothing_is_said(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gcc").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (path,) = export(made("rsnn")[0], "c", tmp_path / "out", steps=5)
    assert told(path)["agreement"] == {"checked": False, "why": f"{tmp_path}/bin/gcc ended with 1: it says nothing"}
