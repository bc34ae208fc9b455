"""Lines of numbers are the same however they are cut, and a bad one is named."""

import numpy as np
import pytest
from loguru import logger

from spikingssm.datasets.lines import LONGEST, LineReader


def read(text, size=1000, **options):
    data = text if isinstance(text, bytes) else text.encode()
    reader = LineReader("numbers", **{"channels": 2, **options})
    found = [*reader.blocks(data[at : at + size] for at in range(0, len(data), size))]
    return (np.concatenate(found) if found else None), reader


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,-4e1\n",
        "1 2\r\n3\t-40",
        "\ufeffleft,right\n\n 1 , 2 \n3,-40\n\n",
        'sequence,left,"the right, too",label\na,1,2,x\na,3,-40,y\n',
    ],
    ids=["commas", "blanks, no end", "names, a mark, empty lines", "columns that are no channels"],
)
def test_lines_are_steps(text, size):
    found, reader = read(text, size)
    np.testing.assert_array_equal(found, [[1, 2], [3, -40]])
    assert reader.bad == 0


@pytest.mark.parametrize("size", [1, 1000])
def test_tokens_may_be_several_in_a_line(size):
    found, _ = read("1 2 3\n4\n", size, vocab=5)
    np.testing.assert_array_equal(found, [1, 2, 3, 4])
    assert found.dtype == np.int64


BAD = {
    "1,2\n\n3\n": "line 3 has 1 numbers, this network reads 2 a step",
    "1,2\n3,four\n": "line 2 has 'four', which is no number",
    "1,2\n3,\n": "line 2 has '', which is no number",
    "1,2\n3,nan\n": "line 2 has 'nan'; a network reads finite numbers only",
    "1,2\n-inf,1\n": "line 2 has '-inf'; a network reads finite numbers only",
    "sequence,a,b\n0,1,2\n1,3,4\n": "line 3 begins another sequence, 1, and a stream is one; ask `predict`",
    "a,b\n1,2\n3\n": "line 3 has 1 cells for 2 columns",
    "a,b\n1,2\n3,4,5\n": "line 3 has 3 cells for 2 columns",
    "1,2\n3,\r4\n": r"line 2 is no row of a table: '3,\\r4'",
}


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("text", BAD)
def test_a_bad_line_is_named_and_the_lines_before_it_are_read(text, size):
    reader = LineReader("numbers", 2)
    blocks = reader.blocks(text.encode()[at : at + size] for at in range(0, len(text), size))
    np.testing.assert_array_equal(next(blocks), [[1, 2]])
    with pytest.raises(ValueError, match=f"^numbers: {BAD[text]}"):
        next(blocks)


def test_bad_lines_can_be_left_out():
    said = []
    sink = logger.add(said.append, format="{message}")
    try:
        found, reader = read("1,2\nx,1\n3,4\n" + "nan,1\n" * 20 + "5,6\n", skip_bad=True)
    finally:
        logger.remove(sink)
    np.testing.assert_array_equal(found, [[1, 2], [3, 4], [5, 6]])
    assert reader.bad == 21
    assert said[0] == "left out: numbers: line 2 has 'x', which is no number.\n"
    assert len(said) == 11  # ten reasons, and that no more are told


def test_what_is_no_stream_of_this_network_is_refused():
    for text, options, says in (
        ("a,b,c\n1,2,3\n", {}, r"line 1 names 3 channels \(a, b, c\), this network reads 2 a step"),
        ("1\n5\n", {"vocab": 5}, "line 2 has '5'; tokens of this network are 0 to 4"),
        ("1.5\n", {"vocab": 5}, "line 1 has '1.5'; tokens"),
        ("1,2\n" + "1" * (LONGEST + 1), {}, f"line 2 has more than {LONGEST} bytes"),
        (b"\xff\xfe1,2\n", {}, "line 1 has .*, which is no number"),
    ):
        with pytest.raises(ValueError, match=says):
            read(text, 2**16, **options)
