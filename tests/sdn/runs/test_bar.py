"""The bar counts epochs as the log does."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from sdn.runs.bar import Bar


@pytest.mark.parametrize(
    ("epoch", "last", "shown"), [(0, 40, "epoch 1/40"), (39, 40, "epoch 40/40"), (2, None, "epoch 3")]
)
def test_the_bar_counts_from_one(epoch, last, shown) -> None:
    bar = Bar()
    bar._trainer = SimpleNamespace(max_epochs=last)
    assert bar._get_train_description(epoch).strip() == shown


def test_a_bar_is_one_line_of_80_columns() -> None:
    bar, out = Bar(), io.StringIO()
    bar._trainer = SimpleNamespace(max_epochs=100)
    columns = [*bar.configure_columns(bar._trainer), TextColumn("{task.fields[loss]}")]
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        name = bar._get_train_description(99)
        progress.add_task(name, total=4321, completed=1234, loss=f"loss: {float('0.123'):.3f}")
        progress.refresh()
    shown = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", out.getvalue())
    lines = [line for line in re.split(r"[\r\n]", shown) if line.strip()]
    assert lines
    assert all(len(line) <= 80 and "epoch 100/100" in line and "loss: 0.123" in line for line in lines), lines


def test_behind_the_bar_stands_the_loss_alone() -> None:
    """With the metrics of the epoch before, a line of 80 columns becomes three."""
    assert Bar().get_metrics(None, SimpleNamespace(last_loss=0.5)) == {"loss": 0.5}
    assert Bar().get_metrics(None, SimpleNamespace(last_loss=None)) == {}
    assert Bar().get_metrics(None, SimpleNamespace()) == {}
