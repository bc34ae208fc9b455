"""Vocabularies, characters as tokens, padded rows, and where released files are looked for."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikingssm.datasets.tokens import PAD, Characters, arena_file, pad_rows, put, ranked, token_dtype


def test_tokens_are_numbered_by_frequency_then_by_name_after_the_specials() -> None:
    numbers = ranked({"b": 3, "a": 3, "c": 9, "<eos>": 99, "rare": 1}, ("<eos>",), min_freq=2)
    assert numbers == {"<eos>": 0, "c": 1, "a": 2, "b": 3}
    with pytest.raises(ValueError, match="min_freq must be at least 1, got 0"):
        ranked({"a": 1}, min_freq=0)


@given(st.text(max_size=60), st.text(max_size=60), st.integers(1, 3))
def test_characters_are_what_a_dictionary_says(text: str, other: str, min_freq: int) -> None:
    counts = Counter(text)
    characters = Characters(counts, specials=3, unknown=1, min_freq=min_freq)
    kept = sorted((c for c in counts if counts[c] >= min_freq), key=lambda c: (-counts[c], c))
    assert len(characters) == 3 + len(kept)
    expected = [3 + kept.index(c) if c in kept else 1 for c in text + other]
    assert characters(text + other).tolist() == expected


def test_a_row_is_cropped_so_that_its_end_fits() -> None:
    rows = [np.array([5, 6, 7]), np.array([], int), np.arange(5, 15)]
    x, lengths = pad_rows(iter(rows), 3, 5, eos=2, vocab=20)
    assert x.tolist() == [[5, 6, 7, 2, PAD], [2, PAD, PAD, PAD, PAD], [5, 6, 7, 8, 2]]
    assert lengths.tolist() == [4, 1, 5]
    row = np.full(4, 9)
    assert put(row, np.array([7]), 2) == 2
    assert row.tolist() == [7, 2, 9, 9]
    with pytest.raises(ValueError, match=r"data.length must be at least 2, a token and its end, got 1"):
        pad_rows(rows, 3, 1, 2, 20)


@pytest.mark.parametrize(("vocab", "dtype"), [(256, np.uint8), (257, np.int16), (32768, np.int16), (32769, np.int32)])
def test_the_type_holds_the_largest_token_and_torch_knows_it(vocab: int, dtype: type) -> None:
    assert token_dtype(vocab) is dtype
    assert torch.as_tensor(np.array([vocab - 1], dtype)).long().item() == vocab - 1


@pytest.mark.parametrize("below", [".", "tsv", "lra_release/tsv", "lra_release/lra_release/tsv"])
def test_a_released_file_is_found_where_it_was_unpacked(tmp_path, below: str) -> None:
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.tsv").touch()
    assert arena_file("x", tmp_path, "tsv", "a.tsv").samefile(folder / "a.tsv")
    with pytest.raises(FileNotFoundError, match=r"^x: no b.tsv in .*; set data.root to the folder that holds it"):
        arena_file("x", tmp_path, "tsv", "b.tsv")
