"""The bar counts epochs as the log does."""

from types import SimpleNamespace

import pytest

from spikingssm.callbacks import Bar


@pytest.mark.parametrize(
    ("epoch", "last", "shown"), [(0, 40, "epoch 1/40"), (39, 40, "epoch 40/40"), (2, None, "epoch 3")]
)
def test_the_bar_counts_from_one(epoch, last, shown) -> None:
    bar = Bar()
    bar._trainer = SimpleNamespace(max_epochs=last)
    assert bar._get_train_description(epoch).strip() == shown
