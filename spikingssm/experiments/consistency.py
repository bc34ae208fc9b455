"""Whether the data, the model and the task of a run go together: said before anything is compiled or trained."""

import numpy as np
from torch import nn

from spikingssm.datasets.base import SequenceData
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.targets import NumberTargets
from spikingssm.models.base import answers_of, patch_of, pool_of
from spikingssm.tasks import LanguageModel, Task, skip_of

__all__ = ["check_together", "check_tokens_are_read"]

WORDS = {"sequence": "one label a sequence", "step": "a label at every step"}
KINDS = {
    "classes": "classes", "numbers": "numbers", "labels": "sets of labels", "next": "a series and what comes next",
}  # fmt: skip
WAYS = {
    "classes": "task=classification, or another data set", "numbers": "task=regression", "labels": "task=multilabel",
    "next": "task=forecast",
}  # fmt: skip
ANSWERS = {"sequence": "once a sequence", "step": "at every step"}


def check_together(data: SequenceData, model: nn.Module, task: Task, tbptt: int | None = None) -> None:
    """Refuse labels, answers and a task that do not fit, and say which keys make them fit.

    A model or a task of your own that does not say what it gives or takes is not looked at.

    Args:
        data: with labels of sequences, y (N,), or of steps, y (N, L).
        model: answers once a sequence or at every step, see `spikingssm.models.base.answers_of`.
        task: its ``labels`` and ``answers`` say what it takes, "sequence" or "step".
        tbptt: steps of a chunk of truncated back-propagation, or None.

    Raises:
        ValueError: what does not fit, and the overrides that mend it.
    """
    labels, answers = labels_of(data), answers_of(model)
    asked, given = getattr(task, "labels", None), getattr(task, "answers", None)
    _check_targets(data, model, task, labels, answers)
    if labels and answers and asked and given:
        way, name = _way(data, model, task, labels, answers), type(task).__name__
        if isinstance(task, LanguageModel) and data.vocab is None:
            raise ValueError(f"{data.name} has numbers and {name} asks for the next token; set {way}.")
        if (labels, answers) != (asked, given):
            raise ValueError(
                f"{data.name} has {WORDS[labels]} and the model answers {ANSWERS[answers]}, but {name} asks for "
                f"{WORDS[asked]} and answers {ANSWERS[given]}; set {way}."
            )
    if tbptt is not None and data.val_set.rows.lengths is not None:
        raise ValueError(
            f"optim.tbptt={tbptt} needs sequences of one length, {data.name} has lengths; set optim.tbptt=null."
        )
    skip, filled = skip_of(task), getattr(task, "unlabelled_as", None)
    if skip >= data.length:
        raise ValueError(f"task.skip={skip} leaves nothing of the {data.length} steps of {data.name}; lower it.")
    if filled is not None and not 0 <= filled < data.d_output:
        raise ValueError(f"task.unlabelled_as={filled} is no class of {data.name}, which has 0 to {data.d_output - 1}.")


def check_tokens_are_read(data: Interface, target: str) -> None:
    """Refuse tokens for a model of ours without a vocabulary.

    Args:
        data: what the network knows of them.
        target: name of what builds the model.

    Raises:
        ValueError: token data for such a model.
    """
    if data.vocab is not None and target.rpartition(".")[2] in ("S5RF", "RSNN"):
        raise ValueError(
            f"{data.name} is tokens, of {data.vocab} kinds, and {target} reads numbers; set model=spikingssm, which "
            "has a vocabulary."
        )


def labels_of(data: SequenceData) -> str | None:
    """Whether the labels of a data set are of the "sequence" or of each "step"; None where they do not say."""
    axes = len(getattr(data.val_set.rows.y, "shape", ()))
    axes -= data.targets is not None  # the last axis is that of the numbers, or of the labels
    return {1: "sequence", 2: "step"}.get(axes)


def _check_targets(data: SequenceData, model: nn.Module, task: Task, labels: str | None, answers: str | None) -> None:
    """Refuse a task for other targets than those of the data, and numbers of steps for answers of sequences."""
    there, wanted = _kind(data), getattr(task, "targets", None)
    name = type(task).__name__
    if wanted is None:
        return
    if wanted != there:
        asks = KINDS.get(wanted, wanted)
        raise ValueError(f"{data.name} has {KINDS[there]} and {name} asks for {asks}; set {WAYS[there]}.")
    if labels == "step" and answers == "sequence" and wanted != "classes":
        pools = pool_of(model) is not None
        way = "model.pool=each" + (" model.patch=1" if patch_of(model) > 1 else "")
        way = way if pools else f"model=spikingssm {way}, since {type(model).__name__} answers once a sequence"
        raise ValueError(f"{data.name} has a target at every step and the model answers once a sequence; set {way}.")
    parts = (("validation", data.val_set.rows, data.val_rows), ("test", data.test_set.rows, data.test_rows))
    for part, rows, chosen in parts:
        if isinstance(data.targets, NumberTargets) and len(chosen) and np.isnan(rows.y[chosen.tolist()]).all():
            raise ValueError(
                f"{data.name}: none of the {len(chosen)} {part} rows has a target, all are missing (NaN); put other "
                "rows there, or draw more with data.val_fraction or data.test_fraction."
            )
    if wanted == "next" and getattr(model, "bidirectional", False):
        raise ValueError(f"{name}: a bidirectional network sees the future; set model.bidirectional=false.")


def _kind(data: SequenceData) -> str:
    """What the data ask for, in the words of a task's ``targets``."""
    targets = data.targets
    if targets is None:
        return "classes"
    return "next" if isinstance(targets, NumberTargets) and targets.horizon else targets.kind


def _way(data: SequenceData, model: nn.Module, task: Task, labels: str, answers: str) -> str:
    """The overrides that make them fit, the least change first."""
    named, pools = type(task).__name__, pool_of(model) is not None
    each = "model.pool=each" + (" model.patch=1" if patch_of(model) > 1 else "")
    if labels == "sequence":
        if answers == "sequence":
            other = f", or {'' if named == 'EveryStepClassification' else 'task=every_step '}{each}" if pools else ""
            return f"task=classification{other}"
        once = "model.pool=last" + ("" if named == "Classification" else " task=classification")
        return f"task=every_step, or {once}" if named != "Classification" else f"{once}, or task=every_step"
    wanted = "task=language" if data.vocab is not None else "task=steps"
    if answers == "step":
        return wanted
    if not pools:
        return f"model=spikingssm {each} {wanted}, since {type(model).__name__} answers once a sequence"
    return (
        each
        if wanted == {"StepClassification": "task=steps", "LanguageModel": "task=language"}.get(named)
        else (f"{each} {wanted}")
    )
