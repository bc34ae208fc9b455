"""What a key takes is what the signature of what is built from it says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
import torch
from omegaconf import OmegaConf

from sdn import Dynamics
from spikingssm.experiments.config import load
from spikingssm.experiments.overrides import check_key, parse
from spikingssm.experiments.targets import SECTIONS, fits, kinds, type_of

CONFIGS = Path(__file__).parents[3] / "configs"


class Rows:
    def __init__(self, *, batch: int = 3, limit: int | None = None) -> None: ...


def own(
    width: int | None = 3,
    rate: Optional[float] = 0.5,  # noqa: UP045
    sizes: int | Sequence[int] = 4,
    pair: tuple[float, float] = (0.1, 0.2),
    word: Literal["a", "b"] = "a",
    flag: bool = False,
    strict: int = 1,
    part: Dynamics | None = None,
    anything=1,
    **options: Any,
) -> Rows: ...


VALUES = {"width": 3, "rate": 0.5, "sizes": 4, "pair": [0.1, 0.2], "word": "a", "flag": False, "strict": 1}
MORE = {"part": {"_target_": "sdn.LIF"}, "anything": 1, "batch": 3, "limit": 7}


def said(text):
    """What is said of ``key=value`` for a section that `own` builds; "" where nothing is."""
    base = OmegaConf.create({"model": {"_target_": f"{__name__}.own", **VALUES, **MORE}})
    try:
        check_key(base, parse([f"model.{text}"])[0])
    except ValueError as error:
        return str(error).removeprefix("model.")
    return ""


@pytest.mark.parametrize(
    "text",
    [
        "width=null", "width=4", "rate=null", "rate=2", "rate=0.1", "sizes=5", "sizes=[5,6]", "pair=[1,2]", "word=c",
        "word=3", "flag=true", "part=null", "part={_target_:sdn.RF}", "anything=2", "batch=9", "limit=null",
        "width=${seed}",
    ],
)  # fmt: skip
def test_what_a_signature_allows_is_taken(text) -> None:
    assert said(text) == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("width=many", "width takes a whole number such as 3 or null, got 'many'."),
        ("width=1.5", "width takes a whole number such as 3 or null, got 1.5."),
        ("width=true", "width takes a whole number such as 3 or null, got True."),
        ("rate=fast", "rate takes a number such as 0.5 or null, got 'fast'."),
        ("sizes=[5,x]", "sizes takes a whole number such as 4 or a list of them, got [5, 'x']."),
        ("sizes=[]", "sizes takes a whole number such as 4 or a list of them, got []."),
        ("sizes=null", "sizes takes a whole number such as 4 or a list of them, got None."),
        ("flag=1", "flag takes true or false (False here), got 1."),
        ("strict=null", "strict takes a whole number such as 1, got None."),
        ("strict=[1]", "strict takes a whole number such as 1, got [1]."),
        ("strict={a:1}", "strict takes a whole number such as 1, got {'a': 1}."),
        ("part=lif", "part takes a mapping such as {_target_: ..., key: value} or null, got 'lif'."),
        ("anything=x", "anything takes a whole number such as 1, got 'x'."),
        ("batch=null", "batch takes a whole number such as 3, got None."),
        ("limit=x", "limit takes a whole number such as 7 or null, got 'x'."),
    ],
)
def test_what_it_does_not_allow_is_refused_in_one_line(text, says) -> None:
    assert said(text) == says


def test_annotations_of_every_form_are_read() -> None:
    assert kinds(int | None) == kinds(Optional[int]) == {int, type(None)}  # noqa: UP045
    assert kinds(Literal["a", 3] | Sequence[int]) == {str, int, Sequence}
    assert fits(float | torch.Tensor, 3)
    assert not fits(float | torch.Tensor, "x")
    assert fits(Mapping[str, int] | None, {"a": 1})
    assert fits(Any, [1])
    assert not fits(list[int], ["x"])


def test_a_target_that_cannot_be_imported_leaves_the_kind_of_the_old_value() -> None:
    config = OmegaConf.create({"model": {"_target_": "nowhere.Model", "width": 3}})
    assert type_of(config, "model.width") is Any
    with pytest.raises(ValueError, match="takes a whole number such as 3, got 'x'"):
        check_key(config, parse(["model.width=x"])[0])


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "dataset").glob("*.yaml")))
def test_the_type_of_every_key_of_a_data_set_is_known(name) -> None:
    config = load([f"dataset={name}"])
    assert all(type_of(config, f"data.{key}") is not Any for key in config.data if key != "_target_")


def test_every_section_without_a_target_is_known() -> None:
    config = load([])
    without = {key for key in config if OmegaConf.is_dict(config[key]) and "_target_" not in config[key]}
    assert without == set(SECTIONS)
    for section in without:
        assert all(type_of(config, f"{section}.{key}") is not Any for key in config[section])


@pytest.mark.parametrize(
    ("experiment", "keys"),
    [
        ("spikingssm/ecg", "threads weights resume data.root task.unlabelled_as checkpoint.every_minutes optim.ema"),
        ("spikingssm/wt103", "model.cutoffs model.spike data.vocabulary early_stop.patience logger.wandb"),
        ("s5rf/smnist", "optim.slow_lr model.first_discretisation model.refractory"),
        ("brf/smnist", "trainer.gradient_clip_val model.mask data.limit_train data.limit_eval"),
        ("spikingssm/pathfinder", "data.rows data.distractors"),
        ("spikingssm/fsdd", "data.scaling data.leave_out"),
    ],
)
def test_keys_that_mean_something_without_a_value_take_null(experiment, keys) -> None:
    for key in keys.split():
        config = load([f"experiment={experiment}", "+tier=smoke", f"{key}=null"])
        assert OmegaConf.select(config, key) is None, key


@pytest.mark.parametrize("override", ["model.div_value=4.5", "trainer.deterministic=warn", "trainer.devices=[0,1]"])
def test_the_type_decides_and_not_the_value_that_an_experiment_chose(override) -> None:
    assert load(["experiment=spikingssm/wt103", override])


def test_looking_for_a_type_logs_nothing(caplog) -> None:
    load(["name=x", "seed=2", "model.solver=loop", "model.dynamics.decay=0.5"])
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("resume=runs/mine-0-trainer.max_epochs=2", "runs/mine-0-trainer.max_epochs=2"),
        ("data.path=runs/x=1/y.npz", "runs/x=1/y.npz"),
        ("resume='runs/a=1'", "runs/a=1"),
        ("resume=/tmp/my runs/a=b", "/tmp/my runs/a=b"),
        ("data.path=my data/x=1/y z.npz", "my data/x=1/y z.npz"),
        ("run_dir=runs/x=1", "runs/x=1"),
        ("data.root=folder", "folder"),
    ],
)
def test_a_path_may_have_an_equal_sign(text, value) -> None:
    [found] = parse([text])
    assert found.value() == value


def test_paths_of_a_sweep_are_still_parted_by_commas() -> None:
    [found] = parse(["data.path=a.npz,b.npz"])
    assert found.is_sweep_override()
    with pytest.raises(ValueError, match="stands in quotes of its own"):
        parse(["model.d_model=a=1"])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("lr=0.1", "did you mean optim.lr=0.1?"),
        ("epochs=3", "did you mean trainer.max_epochs=3?"),
        ("trainer.epochs=3", "did you mean trainer.max_epochs=3?"),
        ("batch_size=4", "did you mean data.batch_size=4?"),
        ("data.batchsize=4", "did you mean data.batch_size=4?"),
        ("model.d_modl=4", "did you mean model.d_model=4?"),
        ("model.hidden_size=4", "did you mean model.d_model=4?"),
        ("path=a.npz", "did you mean data.path=a.npz?"),
        ("nonsense=1", "logger."),
    ],
)
def test_an_unknown_key_is_answered_with_the_one_that_is_meant(text, meant) -> None:
    with pytest.raises(ValueError, match=r"^unknown key") as told:
        load(["dataset=arrays", "data.path=mine.npz", text])
    assert str(told.value).endswith(meant)


def test_a_file_without_its_data_set_is_answered_with_both_ways() -> None:
    with pytest.raises(ValueError, match=r"dataset=arrays data\.path=a\.npz reads a file .* as does recipe=s5rf"):
        load(["data.path=a.npz"])
