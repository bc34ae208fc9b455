"""Handwritten digits of 8 x 8 pixels as sequences of 64 steps: small, and there without a download."""

from typing import Any

import numpy as np

from spikingssm.datasets.base import Rows, SequenceData
from spikingssm.datasets.inputs import Numbers

__all__ = ["digits"]

TEST_SEED, TEST_FRACTION = 0, 0.2


def digits(*, seed: int = 0, **options: Any) -> SequenceData:
    """scikit-learn's 1,797 digits, row by row: x (B, 64, 1) in [0, 1], 10 classes.

    The test set is one fixed fifth of the images, the same for every seed; the seed splits the rest.

    Args:
        seed: of the validation split and of the order.
        options: batch_size, val_fraction, num_workers, limit_train, limit_eval of `SequenceData`.

    Raises:
        ImportError: scikit-learn is not installed.

    Source: the test part of "Optical Recognition of Handwritten Digits", UCI, as scikit-learn ships it. It has no
    official split: ours is by image, so writers occur on both sides.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("digits needs the extra `data`: pip install 'sdn-spikingssm[data]'.") from error
    found = load_digits()
    x, y = found.data.astype(np.uint8)[:, :, None], found.target.astype(np.int64)
    order = np.random.default_rng(TEST_SEED).permutation(len(x))
    tested = round(len(x) * TEST_FRACTION)
    test, train = order[:tested], order[tested:]
    split = f"test: a fixed {TEST_FRACTION:.0%} (seed {TEST_SEED}); validation: from the rest, by the seed"
    return SequenceData(
        "digits",
        Rows(x[train], y[train]),
        Rows(x[test], y[test]),
        d_output=10,
        inputs=Numbers(divide=16),
        seed=seed,
        split=split,
        **options,
    )
