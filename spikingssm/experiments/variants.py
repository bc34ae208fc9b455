"""What tells the runs of an experiment apart: sweeps, variants, and the label of a folder."""

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from spikingssm.experiments.config import MOVABLE, has_recipes
from spikingssm.experiments.overrides import parse

__all__ = ["folder_label", "sweep", "variant"]

LABEL = 100
"""Most characters of a folder's label."""


def sweep(overrides: Sequence[str], allowed: bool) -> Iterator[tuple[list[str], str]]:
    """The overrides of each run, and a label of what was swept in it besides the seed.

    Args:
        overrides: in Hydra's grammar; ``key=a,b`` and ``key=range(3)`` sweep. The model is not part of the label where
            it is part of the name, as in rf-ecg.
        allowed: whether a sweep was asked for.

    Raises:
        ValueError: a sweep that was not asked for, or one that has no end.
    """
    choices = []
    for override, text in zip(parse(overrides), overrides, strict=True):
        if not override.is_sweep_override():
            choices.append([(text, "")])
            continue
        key = override.get_key_element()
        if not allowed or not override.is_discrete_sweep() or key == "resume":
            raise ValueError(f"{text} asks for several runs; use --multirun with key=a,b,c (not with resume).")
        values = [f"{key}={value}" for value in override.sweep_string_iterator()]
        choices.append([(v, "" if key == "seed" else re.sub(r"[^\w.=-]+", "_", v.lstrip("+"))) for v in values])
    for job in itertools.product(*choices):
        texts = [text for text, _ in job]
        folder = next((text.partition("=")[2] for text in texts if text.startswith("run_dir=")), "${name}")
        named = "${name}" in folder and _names_its_model(parse(texts))
        yield texts, ",".join(label for _, label in job if label and not (named and label.startswith("model=")))


def variant(overrides: Sequence[str]) -> str:
    """The overrides that make a run another one than its experiment, such as ``model.learn_eta=false``; "" for none.

    Left out are the experiment (unless the user gave a name), its tier and name, the seed, where things lie and how
    fast they go, and the model where the name says it, as in rf-ecg.
    """
    return ", ".join(_variants(overrides))


def _variants(overrides: Sequence[str]) -> list[str]:
    parsed = parse(overrides)
    named = any(o.key_or_group == "name" for o in parsed)  # by the user: it says nothing of the experiment
    usual = ("tier", "name", "seed", "run_dir", "resume", *MOVABLE, *(() if named else ("experiment",)))
    usual = (*usual, "model") if _names_its_model(parsed) else usual
    usual = usual if named else (*usual, "recipe")  # which is in the name
    own = any(o.key_or_group == "data.path" for o in parsed)  # which gives the name, and says that they are arrays
    parsed = [o for o in parsed if not (own and o.key_or_group == "dataset" and o.value() == "arrays")]
    return [o.input_line.lstrip("+") for o in parsed if o.key_or_group not in usual and o.input_line]


def folder_label(overrides: Sequence[str], swept: str = "") -> str:
    """What the folder of a run is called beside its name and seed, so that a variant has one of its own.

    Args:
        overrides: of the run; with ``name``, ``run_dir`` or ``resume`` the folder is the user's choice.
        swept: the label that `sweep` gives.

    Returns:
        at most 100 characters such as ``model.d_model=16,optim.lr=0.1``, which end in a digest where they are cut; ""
        for an experiment as it is.
    """
    chosen = {o.key_or_group for o in parse(overrides)}
    if chosen & {"name", "run_dir", "resume"}:
        return swept
    parts = [re.sub(r"[^\w.=-]+", "_", part).strip("_") for part in _variants(overrides)]
    known = swept.split(",") if swept else []
    label = ",".join([*known, *(part for part in parts if part not in known)])
    if len(label) <= LABEL:
        return label
    return f"{label[: LABEL - 9]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def _names_its_model(parsed: Sequence[Any]) -> bool:
    """Whether the name of the run says its model: that of an experiment with recipes does, a given one not."""
    chosen = {o.key_or_group: o.value() for o in parsed if o.key_or_group in ("experiment", "name")}
    return "name" not in chosen and "experiment" in chosen and has_recipes(chosen["experiment"])
