"""A wave segment at every step of a two-lead electrocardiogram."""

from pathlib import Path
from typing import Any

import numpy as np

from spikingssm.datasets import standin
from spikingssm.datasets.base import IGNORED, Rows, SequenceData
from spikingssm.datasets.cache import CACHE
from spikingssm.datasets.download import fetch
from spikingssm.datasets.known import are_published, source_of_test
from spikingssm.datasets.matlab import check_mat
from spikingssm.datasets.packed import one_line

__all__ = ["ecg"]

# One commit of the repository that publishes the prepared files (MIT; its source is under ODC-By 1.0).
MIRROR = (
    "https://raw.githubusercontent.com/AdaptiveAILab/brf-neurons/5d45b0e7d545f09b79d029bb40573200fde57fd7/"
    "experiments/ecg/data/"
)
FILES = {
    "QTDB_train.mat": "72d1a10c96f1540880447e07256835d66da419c0b34f3dff495731a7928c5bc7",
    "QTDB_test.mat": "916f11e21679a5b61988305bbb7cd1e6df8b34f1ed4a157a7a4e295d400ef232",
}
STEPS, CHANNELS, CLASSES = 1301, 4, 6


def ecg(
    root: str | Path | None = None,
    *,
    length: int = STEPS,
    generated: bool = False,
    test_only: bool = False,
    seed: int = 0,
    **options: Any,
) -> SequenceData:
    """QT database, spike coded: x (B, 1301, 4) of -1, 0 and 1, and one of 6 wave segments at every step, y (B, 1301).

    The test set is the published one; validation is carved from the 618 training rows by the seed. Steps whose label
    row is all zero have no label: y is -100 there. Results that take the largest entry of each row count them as class
    0; `spikingssm.tasks.StepClassification` with ``unlabelled_as=0`` reports that score beside its own.

    Args:
        root: folder of ``QTDB_train.mat`` and ``QTDB_test.mat``; None downloads them once (650 kB) into
            ``dataset/cache/ecg``.
        length: the first so many steps of each row, 1 to 1301. The published balanced resonate-and-fire results leave
            out the last one, where channel 0 is -1 in every row: 1300.
        generated: draw a stand-in of the same shape; no file is read.
        test_only: read the test files only, for `spikingssm.evaluate`; there is nothing to train on then.
        seed: of the validation split and of the order.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        ImportError: scipy is not installed.
        FileNotFoundError: a file that is not in ``root``.
        ValueError: a damaged file, arrays of another shape, or a length out of range.
        OSError: a download that failed.

    Source: Laguna et al., "A database for evaluation of algorithms for measurement of QT [...]", Computers in
    Cardiology 24, 1997 (physionet.org/content/qtdb, ODC-By 1.0); prepared by Yin, Corradi, Bohte, "Accurate and
    efficient time-domain classification with adaptive spiking recurrent neural networks", 2021.
    """
    if not (isinstance(length, int) and 1 <= length <= STEPS):
        raise ValueError(f"ecg: length must be an integer from 1 to the {STEPS} steps of a row, got {length!r}.")
    if generated:
        standin.refuse_root("ecg", root)
        train, test = standin.segments(STEPS, CHANNELS, CLASSES)
        published = True
    else:
        paths = {_find(name, root): known for name, known in [*FILES.items()][test_only:]}
        parts = [*map(_rows, paths)]
        train, test = parts[0], parts[-1]
        published = are_published("ecg", paths)
    train, test = (rows._replace(x=rows.x[:, :length], y=rows.y[:, :length]) for rows in (train, test))
    without = [f"{int((rows.y == IGNORED).sum()):,} of the {rows.y.size:,}" for rows in (train, test)]
    return SequenceData(
        "ecg",
        train,
        test,
        d_output=CLASSES,
        seed=seed,
        split=f"test: {source_of_test(published, generated, 'the published one')}; validation: from the training rows, "
        f"by the seed; {without[0]} training steps and {without[1]} test steps have no label and are left out",
        published=published,
        full=(len(train.x), len(test.x)) == (618, 141),
        generated=generated,
        test_only=test_only,
        **options,
    )


def _find(name: str, root: str | Path | None) -> Path:
    if root is None:
        return fetch(MIRROR, name, FILES[name], CACHE / "ecg")
    if not (path := Path(root) / name).is_file():
        raise FileNotFoundError(
            f"ecg: no {name} in {root}; set data.root to the folder that holds it, or data.root=null to download."
        )
    return path


def _rows(path: Path) -> Rows:
    """One MATLAB file -> x (N, 1301, 4) int16, y (N, 1301)."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError("ecg needs the extra `data`: pip install 'sdn-spikingssm[data]'.") from error
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; set data.root to the folder that holds it.")
    try:
        check_mat(path, ("x", "y"))
        found = loadmat(path, variable_names=["x", "y"])
    except Exception as error:  # scipy raises what zlib, struct and NumPy raise
        raise ValueError(f"{path}: not a whole MATLAB file ({one_line(error)}); copy or download it again.") from None
    x, y = found.get("x", np.zeros(0)), found.get("y", np.zeros(0))
    if x.shape != (len(x), STEPS, CHANNELS) or y.shape != (len(x), STEPS, CLASSES) or not len(x):
        raise ValueError(
            f"{path}: x and y must be (N, {STEPS}, {CHANNELS}) and (N, {STEPS}, {CLASSES}), "
            f"got {x.shape} and {y.shape}."
        )
    if x.dtype.kind not in "iu" or x.min() < -1 or x.max() > 1:
        raise ValueError(f"{path}: x must hold the integers -1, 0 and 1, got {x.dtype} from {x.min()} to {x.max()}.")
    if y.dtype.kind not in "iufb":
        raise ValueError(f"{path}: y must hold the numbers 0 and 1, got {y.dtype}.")
    ones = (y == 1).sum(-1)
    if not np.isin(y, (0, 1)).all() or ones.max() > 1:
        raise ValueError(f"{path}: y must hold at most one 1 a step and else 0, got up to {ones.max()} of them.")
    return Rows(x, np.where(ones == 1, y.argmax(-1), IGNORED))
