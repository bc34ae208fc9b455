"""Configurations in run folders of the first version build the networks that their weights are of."""

import hashlib
import inspect
import json
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from spikingssm import RSNN, S5RF, SpikingSSM
from spikingssm.experiments.config import call

STORED = yaml.safe_load((Path(__file__).parent / "stored_models.yaml").read_text())
WEIGHTS = {  # parameters, and a digest of the names and shapes in the state_dict, both as that version had them
    "spikingssm": (885, "dc08f5ec0f5b8d01"), "language": (1308, "b9d8f1e2b9ff5e76"), "s5rf": (821, "8e7b68a41868a03b"),
    "brf": (254, "3decb9c32afd5292"),
}  # fmt: skip

LATER = {"SpikingSSM": {"learn"}, "S5RF": {"start"}, "RSNN": {"start"}}
"""Arguments that came later, which a stored configuration does not have."""


@pytest.mark.parametrize("name", STORED)
def test_a_stored_model_is_the_network_of_its_weights(name):
    model = call("model", OmegaConf.create(STORED[name]["model"]), **STORED[name]["data"])
    shapes = [(key, list(value.shape)) for key, value in model.state_dict().items()]
    digest = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]
    assert (sum(p.numel() for p in model.parameters()), digest) == WEIGHTS[name], shapes


@pytest.mark.parametrize("kind", [SpikingSSM, S5RF, RSNN])
def test_every_argument_is_a_word_on_the_command_line_and_only_sizes_stand_without_their_names(kind):
    known = inspect.signature(kind).parameters.values()
    bare = [p.name for p in known if p.kind is p.POSITIONAL_OR_KEYWORD]
    sizes = ["d_input", "d_output", "d_model", "n_layers", "d_state"]
    assert bare == sizes[: len(bare)]
    stored = {key for one in STORED.values() for key in (*one["model"], *one["data"]) if kind.__name__ in str(one)}
    later = LATER.get(kind.__name__, set())
    assert {p.name for p in known} - later == stored - {"_target_"}
    assert all(p.default is not p.empty for p in known if p.name in later)
