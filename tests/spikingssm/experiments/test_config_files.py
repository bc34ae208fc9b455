"""The files of ``configs/``: none twice, every key of a table in use, and what Hydra adds by itself."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from spikingssm.experiments.config import load

CONFIGS = Path(__file__).parents[3] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


def options(group):
    return {str(p.relative_to(CONFIGS / group).with_suffix("")) for p in (CONFIGS / group).rglob("*.yaml")}


def rows(table):
    return OmegaConf.to_container(OmegaConf.load(CONFIGS / "tables" / f"{table}.yaml"))


def test_no_file_says_what_another_says() -> None:
    said = {}
    for path in FILES:
        content = OmegaConf.to_yaml(OmegaConf.load(path), sort_keys=True)
        assert content not in said, f"{path.relative_to(CONFIGS)} is {said[content].relative_to(CONFIGS)}"
        said[content] = path
    assert 50 < len(FILES) <= 72


def test_every_row_of_a_table_is_of_something_that_there_is() -> None:
    """Hydra's ``optional`` passes over what it does not find, and so over a misspelt row."""
    tiers, models, experiments = options("tier"), options("model"), options("experiment")
    assert {name.partition("/")[0] for name in (*rows("tier_model"), *rows("tier_experiment"))} == {"small", "smoke"}
    assert {"small", "smoke"} < tiers
    assert {name.partition("/")[2] for name in rows("tier_model")} == models
    assert {name.partition("/")[2] for name in rows("tier_experiment")} <= experiments
    for name in rows("network"):
        experiment, _, model = name.rpartition("/")
        assert (experiment in experiments, model in models) == (True, True), name
    assert {path.stem for path in (CONFIGS / "tables").iterdir()} == {"network", "tier_experiment", "tier_model"}


def test_every_experiment_with_files_has_a_stand_in() -> None:
    drawn = {name.removeprefix("smoke/") for name in rows("tier_experiment") if name.startswith("smoke/")}
    assert drawn == options("experiment") - {"spikingssm/digits", "forecast/mackey_glass"}


@pytest.mark.parametrize("table", ["network", "tier_model", "tier_experiment"])
def test_a_row_changes_the_configuration_as_it_says(table) -> None:
    for name, says in rows(table).items():
        first, _, second = name.rpartition("/") if table == "network" else name.partition("/")
        words = {
            "network": [f"experiment={first}", f"model={second}"],
            "tier_model": [f"model={second}", f"+tier={first}"],
            "tier_experiment": [f"experiment={second}", f"+tier={first}"],
        }[table]
        config = load(words)
        assert OmegaConf.merge(config, says) == config, name


@pytest.mark.parametrize("name", sorted(options("model")))
def test_a_network_without_an_experiment_has_a_smoke_tier(name) -> None:
    config = load([f"model={name}", "+tier=smoke", "model.solver=loop"])
    with torch.device("meta"):
        model = instantiate(config.model, d_input=1, d_output=10, _convert_="all")
    assert sum(p.numel() for p in model.parameters()) < 4000


def test_a_tier_may_be_written_without_a_plus() -> None:
    words = ["experiment=brf/ecg", "model=rf"]
    assert load([*words, "tier=smoke"]) == load([*words, "+tier=smoke"])


@pytest.mark.parametrize("word", ["~model", "~experiment", "~tier"])
def test_what_others_go_by_cannot_be_taken_away(word) -> None:
    with pytest.raises(ValueError, match=f"{word} takes away what others go by"):
        load(["experiment=brf/ecg", word])
