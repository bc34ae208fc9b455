"""The variants that the page of BRF lists, and the folders and names of runs whose experiment has recipes."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from spikingssm.commands.train import main
from spikingssm.experiments.config import load
from spikingssm.experiments.variants import sweep, variant

ROOT = Path(__file__).parents[3]


def documented():
    """The overrides in the table of variants, one list for each code span; a key that begins with . goes on."""
    page = (ROOT / "docs" / "brf.md").read_text()
    rows = re.search(r"^\| variant \|.*\n\|---.*\n((?:\|.*\n)+)", page, re.MULTILINE)[1].splitlines()
    for row in rows:
        before = ""
        for span in re.findall(r"`([^`]+)`", row):
            words = [before + word if word.startswith(".") else word for word in shlex.split(span)]
            before = words[0].partition("=")[0].rpartition(".")[0]
            yield words


VARIANTS = list(documented())


@pytest.fixture(autouse=True)
def _at_root(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)


def built(words):
    config = load(["experiment=brf/ecg", *words])
    with torch.device("meta"):
        return config, instantiate(config.model, d_input=4, d_output=6, _convert_="all")


@pytest.mark.parametrize("words", VARIANTS, ids=" ".join)
def test_every_documented_variant_can_be_built(words) -> None:
    config, model = built(words)
    for word in words:
        key, _, value = word.partition("=")
        found = OmegaConf.to_container(OmegaConf.create({"": OmegaConf.select(config, key)}))[""]
        assert found == yaml.safe_load(value)
        assert found != OmegaConf.select(load(["experiment=brf/ecg"]), key)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert variant(["experiment=brf/ecg", *words]) == ", ".join(words)


def test_the_table_was_read() -> None:
    assert len(VARIANTS) >= 11
    assert ["model.d_model=[128,64]"] in VARIANTS
    assert ["model.dynamics.refractory_period=false"] in VARIANTS


def test_layers_may_have_sizes_of_their_own() -> None:
    assert [layer.channels for layer in built(["model.d_model=[12,7]"])[1].layers] == [12, 7]
    assert [layer.channels for layer in built(["model.d_model=9", "model.n_layers=2"])[1].layers] == [9, 9]


@pytest.mark.parametrize("size", ["2.5", "many", "[]", "[128,2.5]", "[128,many]", "[[3]]", "true"])
def test_other_sizes_are_refused(size) -> None:
    with pytest.raises(
        ValueError, match=r"model\.d_model takes a whole number such as 36 or a list|at least 1"
    ) as caught:
        built([f"model.d_model={size}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("experiment", ["spikingssm/digits", "s5rf/smnist"])
def test_layers_of_other_networks_have_one_size(experiment) -> None:
    with pytest.raises(ValueError, match=r"model\.d_model takes a whole number such as \d+, got \[8, 8\]"):
        load([f"experiment={experiment}", "model.d_model=[8,8]"])


def folders(capsys, *words):
    main(["--multirun", *words, "--cfg", "job"])
    return [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("run_dir: ")]


def test_a_sweep_over_models_goes_where_single_runs_go(capsys) -> None:
    found = folders(capsys, "experiment=brf/ecg", "model=brf,rf", "seed=0,1")
    assert found == ["runs/brf-ecg-0", "runs/brf-ecg-1", "runs/rf-ecg-0", "runs/rf-ecg-1"]
    assert found[2] == load(["experiment=brf/ecg", "model=rf"]).run_dir
    more = folders(capsys, "experiment=brf/ecg,brf/shd", "model=rf", "optim.lr=0.1,0.2")
    assert [Path(folder).name for folder in more] == [
        f"rf-{name}-0-experiment=brf_{name},optim.lr={lr}" for name in ("ecg", "shd") for lr in (0.1, 0.2)
    ]


def test_a_folder_that_does_not_say_the_model_has_it_added(capsys) -> None:
    sweeping = ["experiment=brf/ecg", "model=brf,rf"]
    both = ["brf", "rf"]
    assert folders(capsys, *sweeping, "run_dir=runs/x-${seed}") == [f"runs/x-0-model={model}" for model in both]
    assert folders(capsys, *sweeping, "name=x") == [f"runs/x-0-model={model}" for model in both]
    assert folders(capsys, *sweeping, "run_dir=x/${name}") == [f"x/{model}-ecg" for model in both]
    labels = [label for _, label in sweep(["experiment=spikingssm/digits", "model=spikingssm,s5rf"], True)]
    assert labels == ["model=spikingssm", "model=s5rf"]


def test_a_model_is_a_variant_where_the_name_does_not_say_it() -> None:
    assert variant(["experiment=brf/ecg", "model=rf"]) == ""
    assert variant(["experiment=brf/ecg", "model=rf", "model.d_model=7"]) == "model.d_model=7"
    assert variant(["experiment=brf/ecg", "model=rf", "name=mine"]) == "experiment=brf/ecg, model=rf"
    assert variant(["experiment=spikingssm/digits", "model=s5rf"]) == "model=s5rf"
    assert variant(["model=s5rf"]) == "model=s5rf"
