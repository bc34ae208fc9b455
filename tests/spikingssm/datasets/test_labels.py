"""Labels as numbers and as names: one reading for training, for testing and for asking."""

import numpy as np
import pytest

from spikingssm.datasets.inputs import Numbers
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.labels import IGNORED, class_names, class_numbers

TWELVE = [str(number) for number in range(12)]


def test_whole_numbers_stand_in_their_order_and_words_in_that_of_the_alphabet():
    assert class_names([np.array(["10", "2", "0"]), np.array(["11"])]) == ("0", "2", "10", "11")
    assert class_names([np.array(["10", "2"]), np.array([3, IGNORED])]) == ("2", "3", "10")
    assert class_names([np.array(["-1", "1"])]) == ("-1", "1")
    assert class_names([np.array(["10", "9", "b"])]) == ("10", "9", "b")
    assert class_names([np.array(["010", "09"])]) == ("010", "09")
    assert class_names([np.array(["b", "", "a"])]) == ("a", "b")
    assert class_names([np.array([1, 2])]) is None
    with pytest.raises(ValueError, match=r"names such as 'a' and others numbers such as 0"):
        class_names([np.array(["a", "b"]), np.array([0, 1])])


def test_numbers_among_numbers_are_names():
    np.testing.assert_array_equal(class_numbers(["3", "1"], ["1", "3"], 2), [1, 0])
    np.testing.assert_array_equal(class_numbers(np.array([3, 1]), ["1", "3"], 2), [1, 0])
    np.testing.assert_array_equal(class_numbers(np.array([1, 0]), ["a", "b"], 2), [1, 0])
    np.testing.assert_array_equal(class_numbers(np.arange(12), TWELVE, 12), np.arange(12))
    np.testing.assert_array_equal(class_numbers(np.array([1, 0]), None, 2), [1, 0])
    np.testing.assert_array_equal(class_numbers(np.array(["1", "0"]), None, 2), [1, 0])
    for labels, names, classes, says in (
        (np.array([2]), None, 2, "labels are from 2 to 2, 2 classes take 0 to 1"),
        (np.array([0]), ["1", "2"], 2, "no class '0'; the classes are 1, 2"),
        (["c"], ["a", "b"], 2, "no class 'c'"),
        (np.array([0.5]), None, 2, "got float64"),
    ):
        with pytest.raises(ValueError, match=says):
            class_numbers(labels, names, classes)


def test_names_at_every_step_keep_their_shape():
    labels = np.array([["a", "b", ""], ["b", "b", "a"]])
    np.testing.assert_array_equal(class_numbers(labels, ["a", "b"], 2), [[0, 1, IGNORED], [1, 1, 0]])
    steps = np.array([[1, 2], [2, IGNORED]])
    np.testing.assert_array_equal(class_numbers(steps, ["1", "2"], 2), [[0, 1], [1, IGNORED]])
    interface = Interface("own", 2, 1, 2, Numbers(), classes=("a", "b"))
    np.testing.assert_array_equal(interface.numbers(labels), [[0, 1, IGNORED], [1, 1, 0]])
    assert interface.numbers(None) is None
