"""Pairs of documents: what a line gives, and what a wrong one says."""

import importlib

import numpy as np
import pytest
import torch

from spikingssm.datasets.aan import aan

module = importlib.import_module("spikingssm.datasets.aan")  # the package may hold the function under that name
LINES = [(0, b"b'one'", b'b"it\'s"'), (1, b"b'two\\n'", b"b'\\xe2'"), (1, b"b'\"'", b"b'x'"), (0, b"b''", b"b'yy'")]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(folder, lines=LINES, end: bytes = b"\r\n", **changed: bytes):
    folder.mkdir(exist_ok=True)
    text = b"".join(b"%d.0\tP01-1\tP02-2\t%s\t%s%s" % (*line, end) for line in lines)
    for part in ("train", "eval", "test"):
        (folder / f"new_aan_pairs.{part}.tsv").write_bytes(changed.get(part, text))
    return folder


def documents(rows) -> list[list[bytes]]:
    found = []
    for pair, lengths in zip(np.asarray(rows.x), rows.lengths, strict=True):
        assert all(pair[side, n - 1] == 2 and not pair[side, n:].any() for side, n in enumerate(lengths))
        found.append([bytes(token + 29 for token in pair[side, : n - 1]) for side, n in enumerate(lengths)])
    return found


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_gives_two_documents_as_they_are_spelt(tmp_path, end: bytes) -> None:
    data = aan(written(tmp_path / "data", end=end), length=32, batch_size=2)
    rows = data.train_set.rows
    assert documents(rows) == [[first, second] for _, first, second in LINES]
    assert rows.y.tolist() == [label for label, _, _ in LINES]
    assert (data.vocab, data.d_output, data.pairs, data.length) == (98, 2, True, 32)
    batch = next(iter(data.train_dataloader()))
    assert (batch.x.shape, batch.lengths.shape, batch.x.dtype) == ((2, 2, 32), (2, 2), torch.int64)
    assert rows.x.dtype == np.uint8


def test_tokens_are_the_printable_characters_in_order(tmp_path) -> None:
    printable = bytes(range(32, 127))
    root = written(tmp_path / "data", [(1, printable, "é\x07".encode())] * 2)
    rows = aan(root, length=128, batch_size=1).train_set.rows
    assert rows.x[0, 0, :96].tolist() == [*range(3, 98), 2]
    assert rows.x[0, 1, :5].tolist() == [1, 1, 1, 2, 0]


def test_documents_of_any_size_are_cropped_before_their_end(tmp_path) -> None:
    huge = b"'\"," * 70_000  # above the limit of a csv field
    rows = aan(
        written(tmp_path / "data", [(1, huge, b"x" * 7), (0, b"", b"x" * 8)]), length=8, batch_size=1
    ).test_set.rows
    assert documents(rows) == [[huge[:7], b"x" * 7], [b"", b"x" * 7]]
    assert rows.lengths.tolist() == [[8, 8], [1, 8]]


def test_the_parts_are_those_of_the_release(tmp_path, monkeypatch) -> None:
    lines = {part: b"1\ta\tb\t%s\tz\n" % part.encode() * n for part, n in (("train", 5), ("eval", 3), ("test", 2))}
    root = written(tmp_path / "tsv_data", **lines)
    data = aan(tmp_path, length=16, batch_size=1)
    assert documents(data.val_set.rows) == [[b"eval", b"z"]] * 3
    assert documents(data.test_set.rows) == [[b"test", b"z"]] * 2
    assert data.facts()["size"] == "subset"
    assert module.RELEASED == (147_086, 18_090, 17_437)
    monkeypatch.setattr(module, "RELEASED", (5, 3, 2))
    assert aan(root, length=16, batch_size=1).facts()["size"] == "full"


def test_the_stand_in_asks_whether_two_letter_counts_agree() -> None:
    data = aan(generated=True, length=400)
    assert (data.facts()["size"], data.vocab) == ("generated", 98)

    def agree(rows):
        counts = np.stack([[np.bincount(side, minlength=98)[3:] for side in pair] for pair in np.asarray(rows.x)])
        shares = counts / counts.sum(-1, keepdims=True)
        centred = shares - shares.mean((0, 1))
        return (centred[:, 0] * centred[:, 1]).sum(-1) > 0

    rows = data.test_set.rows
    assert (agree(rows) == rows.y).mean() > 0.9
    assert abs(rows.y.mean() - 0.5) < 0.1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"1\ta\tb\tc\n", r"eval\.tsv: line 1 has 4 columns"),
        (b"1\ta\tb\tc\td\te\n", r"eval\.tsv: line 1 has 6 columns"),
        (
            b"1\ta\tb\tc\td\n2.0\ta\tb\tc\td\n",
            r"eval\.tsv: line 2 has 5 columns, the first b'2\.0'; it must be label 0 or 1",
        ),
        (b"label\ta\tb\tc\td\n", r"the first b'label'"),
        (b"", r"eval\.tsv: the file is empty"),
        (b"\n", r"eval\.tsv: the file is empty"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aan(written(tmp_path / "data", eval=line), length=16, batch_size=1)


def test_wrong_roots_and_sizes_say_the_way_out(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"set data\.root to the folder that holds new_aan_pairs\.train\.tsv"):
        aan()
    root = written(tmp_path / "data")
    (root / "new_aan_pairs.eval.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"aan: no new_aan_pairs\.eval\.tsv in"):
        aan(root)
    with pytest.raises(ValueError, match="length must be at least 2, a token and its end, got 1"):
        aan(root, length=1)
    with pytest.raises(ValueError, match=r"data\.root and data\.generated=true are both set"):
        aan(root, generated=True)
