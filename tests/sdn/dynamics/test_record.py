"""What a neuron's own file says of it: fields, ranges, costs; and what is made of that."""

import dataclasses
import math
import re
from pathlib import Path

import pytest

import sdn
from sdn.compiler.counting import operations_of
from sdn.dynamics import BUILT_IN
from sdn.dynamics.fields import numeric_fields
from sdn.dynamics.record import Field, table

PAGE = Path(__file__).parents[3] / "docs" / "neurons.md"
every_kind = pytest.mark.parametrize("kind", BUILT_IN.values(), ids=list(BUILT_IN))


def test_every_neuron_has_its_word():
    assert set(BUILT_IN) == {"alif", "brf", "hrf", "izhikevich", "lif", "rf"}


@every_kind
def test_every_number_has_a_unit_and_a_range(kind):
    numbers = set(numeric_fields(kind)) | set(kind.numbers)
    assert set(kind.ranges) == numbers
    assert all(known.unit for known in kind.ranges.values())


@every_kind
def test_the_ranges_are_those_that_are_checked(kind):
    for name, known in kind.ranges.items():
        outside = (
            [known.low - 1] + ([] if known.closed else [known.low]) + ([known.high] if known.high < math.inf else [])
        )
        for value in outside:
            with pytest.raises(
                ValueError, match=re.escape(f"{kind.__name__}: {name} must be in {known.interval}, got")
            ):
                kind(**{name: value})


def test_so_are_those_of_a_neuron_that_only_names_them():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Ranged(sdn.LIF):
        slowness: sdn.dynamics.Value = 0.5
        ranges = {"slowness": Field("of the membrane", 0, 1)}

        def __post_init__(self):
            assert self.threshold == 1

    assert Ranged(slowness=[0.2, 0.9]).slowness.tolist() == [0.2, 0.9]
    for value in (1.0, [0.5, 1.0], float("nan")):
        with pytest.raises(ValueError, match=r"Ranged: slowness must be in \(0, 1\)"):
            Ranged(slowness=value)


@every_kind
def test_what_is_said_of_the_costs_is_near_what_the_graph_has(kind):
    """The graph forms some sums twice; it never has fewer multiplications."""
    said, counted = kind().operations, operations_of(kind())
    assert 0 <= counted[0] - said[0] <= 2
    assert abs(counted[1] - said[1]) <= 3
    assert counted[2] == 0


def test_costs_of_a_neuron_of_ones_own_are_counted():
    from own_neurons import AdEx, Graded

    assert Graded().operations is None
    assert operations_of(Graded()) == (2, 2, 0)
    assert operations_of(AdEx())[2] >= 3


def test_the_page_of_neurons_is_made_of_their_files():
    assert table(BUILT_IN.values()) in PAGE.read_text()
    assert all(dataclasses.is_dataclass(kind) and getattr(sdn, kind.__name__) is kind for kind in BUILT_IN.values())
