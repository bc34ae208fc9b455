"""A whole network, state and all, goes through a file of ``torch.export`` into a new process."""

import subprocess
import sys

import pytest
import torch
from streams import made

import sdn

AGAIN = """
import sys, torch, spikingssm
for path in sys.argv[1:]:
    known = torch.load(path + ".pt")
    program = torch.export.load(path).module()
    logits, state = program(known["x"])
    assert torch.equal(logits, known["logits"]), path
    flat = [leaf for leaf in torch.utils._pytree.tree_leaves(state) if leaf is not None]
    assert len(flat) == len(known["state"]) and all(map(torch.equal, flat, known["state"])), path
    print(type(state).__name__)
"""


@pytest.mark.slow
def test_networks_and_neurons_are_saved_and_loaded_elsewhere(tmp_path):
    models = {name: made(name) for name in ("ssm", "s5rf", "rsnn", "ssm of a surrogate")}
    models["neuron"] = sdn.Neuron(sdn.ALIF(), 2).eval(), torch.randn(3, 40, 2)
    for number, (model, x) in enumerate(models.values()):
        path = tmp_path / f"{number}.pt2"
        torch.export.save(torch.export.export(model, (x,), strict=False), path)
        with torch.no_grad():
            logits, state = model(x)
        leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(state) if leaf is not None]
        torch.save({"x": x, "logits": logits, "state": leaves}, f"{path}.pt")
    paths = [str(tmp_path / f"{number}.pt2") for number in range(len(models))]
    done = subprocess.run([sys.executable, "-c", AGAIN, *paths], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-800:]
    kinds = ["SpikingSSMState", "S5RFState", "RSNNState", "SpikingSSMState", "ALIFState"]
    assert done.stdout.split() == kinds


def test_full_precision_is_kept_under_autocast_and_in_a_program(tmp_path):
    model, x = made("ssm")
    with torch.no_grad():
        plain, _ = model.blocks[0].layer.ssm(torch.randn(2, 30, 12, generator=torch.Generator().manual_seed(0)))
        with torch.autocast("cpu", torch.bfloat16):
            mixed, _ = model.blocks[0].layer.ssm(torch.randn(2, 30, 12, generator=torch.Generator().manual_seed(0)))
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)
    program = torch.export.export(model, (x,), strict=False)
    assert "autocast" not in str(program.graph)
