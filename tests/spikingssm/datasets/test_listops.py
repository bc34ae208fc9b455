"""Expressions: their values against a recursive evaluator, their grammar against closed forms, and released files."""

import csv
import importlib
import statistics

import numpy as np
import pytest

from spikingssm.datasets.listops import evaluate, grow, listops, tokens_of

module = importlib.import_module("spikingssm.datasets.listops")  # the package may hold the function under that name
NAMES = {3: "]", 4: "[MIN", 5: "[MAX", 6: "[MED", 7: "[SM", **{8 + d: str(d) for d in range(10)}}
SMALL = {"length": 64, "train_rows": 30, "val_rows": 8, "test_rows": 9, "min_length": 4, "max_length": 40}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def tree(symbols: list[str]):
    """A digit, or a list of an operator and trees; takes its symbols off the list."""
    head = symbols.pop(0)
    if head.isdigit():
        return int(head)
    node = [head]
    while symbols[0] != "]":
        node.append(tree(symbols))
    symbols.pop(0)
    return node


def value(node) -> int:
    if isinstance(node, int):
        return node
    arguments = [value(child) for child in node[1:]]
    operators = {"[MIN": min, "[MAX": max, "[MED": statistics.median, "[SM": lambda a: sum(a) % 10}
    return int(operators[node[0]](arguments))


def depth(node) -> int:
    return 1 if isinstance(node, int) else 1 + max(depth(child) for child in node[1:])


def most_arguments(node) -> int:
    return 0 if isinstance(node, int) else max(len(node) - 1, *(most_arguments(child) for child in node[1:]))


def symbols_of(rows) -> list[list[str]]:
    found = []
    for row, length in zip(np.asarray(rows.x), rows.lengths, strict=True):
        assert row[length - 1] == 2
        assert not row[length:].any()
        found.append([NAMES[token] for token in row[: length - 1]])
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[MIN 4 [SM 5 6 7 ] ]", 4),
        ("[SM 9 9 9 ]", 7),
        ("[MED 1 4 ]", 2),  # 2.5 rounded down
        ("[MED 9 0 5 ]", 5),
        ("[MED 8 8 1 3 ]", 5),
        ("[MED 3 3 3 9 ]", 3),
        ("( ( ( [MAX 1 ) ( ( ( [MED 2 ) 8 ) ] ) ) ] )", 5),
        ("[SM [SM [SM [SM 9 9 ] 9 ] 9 ] [MIN 5 ] ]", 1),
    ],
)
def test_values_by_hand(text: str, expected: int) -> None:
    assert evaluate(tokens_of(text.encode())) == expected
    assert value(tree([s for s in text.split() if s not in "()"])) == expected


@pytest.mark.parametrize("text", ["", "1 2", "[MAX 1 2", "1 ]", "[MAX ]", "[MIN 1 ] ]", "] [MIN 1"])
def test_what_is_no_expression_has_no_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"operator without arguments|not one value"):
        evaluate(tokens_of(text.encode()))


def test_drawn_labels_are_the_values_and_the_grammar_holds() -> None:
    data = listops(max_depth=4, max_args=5, batch_size=2, **SMALL)
    assert (data.vocab, data.d_output, data.length) == (18, 10, 64)
    every = []
    for rows, count in ((data.train_set.rows, 30), (data.val_set.rows, 8), (data.test_set.rows, 9)):
        assert len(rows.x) == count
        for symbols, label in zip(symbols_of(rows), rows.y, strict=True):
            every.append(" ".join(symbols))
            assert 4 < len(symbols) < 40
            node = tree(rest := list(symbols))
            assert not rest
            assert value(node) == label
            assert depth(node) <= 4
            assert most_arguments(node) <= 5
    assert len(set(every)) == 47
    assert max(depth(tree(text.split())) for text in every) == 4
    assert max(most_arguments(tree(text.split())) for text in every) == 5


def test_long_expressions_have_their_values() -> None:
    rows = listops(train_rows=8, val_rows=1, test_rows=1, batch_size=1).train_set.rows
    for symbols, label in zip(symbols_of(rows), rows.y, strict=True):
        assert 500 < len(symbols) < 2000
        node = tree(list(symbols))
        assert value(node) == label
        assert depth(node) <= 10


def test_lengths_and_operators_are_distributed_as_the_grammar_says() -> None:
    """The mean length of a tree below level k is m[k] = 3/4 + 1/4 (2 + a m[k + 1]), a arguments on average."""
    random, out, draws = np.random.default_rng(0), np.zeros(4000, np.uint8), 6000
    sizes, heads = np.empty(draws), np.zeros(18)
    for number in range(draws):
        sizes[number] = grow(random, 1, out, 0, 4, 6)
        heads[out[0]] += 1
    mean = 1.0
    for _ in range(3):
        mean = 0.75 + 0.25 * (2 + 4 * mean)
    assert abs(sizes.mean() - mean) < 4 * sizes.std() / draws**0.5
    expected = np.array([0.0] * 4 + [1 / 16] * 4 + [0.075] * 10)
    assert (abs(heads / draws - expected) <= 4 * np.sqrt(expected / draws)).all()


def test_the_data_do_not_depend_on_the_seed_of_the_run(tmp_path) -> None:
    first, other, longer, redrawn = (
        listops(**{**SMALL, "batch_size": 2, **more})
        for more in ({}, {"seed": 5}, {"train_rows": 40}, {"generator_seed": 1})
    )
    assert np.array_equal(first.train_set.rows.x, other.train_set.rows.x)
    assert first.train_rows.tolist() != other.train_rows.tolist()
    assert np.array_equal(first.test_set.rows.x, longer.test_set.rows.x)
    assert np.array_equal(first.val_set.rows.x, longer.val_set.rows.x)
    assert np.array_equal(first.train_set.rows.x, longer.train_set.rows.x[:30])
    assert not np.array_equal(first.test_set.rows.x, redrawn.test_set.rows.x)
    assert len(list((tmp_path / "dataset" / "cache").glob("listops-*"))) == 3


def test_the_compiled_loops_draw_the_same() -> None:
    grammar, rows = (4, 40, 4, 5), (600, 300, 200)
    compiled = module._draw(64, rows, grammar, 3)
    plain = module._draw(64, (500, 200, 200), grammar, 3)
    assert sum(rows) >= module.COMPILED_FROM > 900
    assert np.array_equal(compiled["x_test"], plain["x_test"])
    assert np.array_equal(compiled["y_test"], plain["y_test"])
    assert np.array_equal(compiled["x_val"][:200], plain["x_val"])


def test_a_small_language_is_drawn_to_its_last_expression() -> None:
    """One operator and two digits: 4 x 100 expressions."""
    options = {"length": 16, "min_length": 3, "max_length": 6, "max_depth": 2, "max_args": 2, "batch_size": 1}
    data = listops(train_rows=390, val_rows=5, test_rows=5, **options)
    rows = [rows for part in (data.train_set, data.val_set, data.test_set) for rows in symbols_of(part.rows)]
    assert len({" ".join(row) for row in rows}) == 400
    with pytest.raises(ValueError, match=r"found 400 different expressions .*max_args=2, 401 are asked for"):
        listops(train_rows=391, val_rows=5, test_rows=5, **options)


def test_both_limits_of_the_length_are_left_out() -> None:
    options = {"min_length": 4, "max_length": 6, "max_depth": 2, "max_args": 4}
    rows = listops(**{**SMALL, **options}, batch_size=1).train_set.rows
    assert set(rows.lengths.tolist()) == {5 + 1}


def test_facts_say_that_the_expressions_are_ours() -> None:
    facts = listops(**SMALL, batch_size=1).facts()
    assert facts["size"] == "subset"
    assert "our generator with seed 0" in facts["split"]


def test_the_stand_in_can_be_learnt_from_its_operator() -> None:
    data = listops(generated=True)
    assert (data.facts()["size"], data.length, data.facts()["train"]) == ("generated", 2048, 256)
    train, test = data.train_set.rows, data.test_set.rows
    guess = {op: np.bincount(train.y[train.x[:, 0] == op]).argmax() for op in (4, 5, 6, 7)}
    assert np.mean([guess[op] == label for op, label in zip(test.x[:, 0], test.y, strict=True)]) > 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 39}, r"length must be at least max_length=40, got 39; set data\.max_length too"),
        ({"min_length": 39}, "more than min_length=39 and fewer than max_length=40 tokens"),
        ({"max_depth": 2, "max_args": 3, "min_length": 5}, "no expression has more than min_length=5"),
        ({"max_args": 1}, "max_depth and max_args must be from 2 to 1000, got 10 and 1"),
        ({"val_rows": 0}, r"must be at least 1, got \(30, 0, 9\)"),
    ],
)
def test_sizes_that_nothing_fits_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        listops(**{**SMALL, **options})


RELEASED = {"train": ("( ( ( [MIN 4 ) 7 ) ] )", 4), "val": ("( ( ( [SM 9 ) 8 ) ] )", 7), "test": ("3", 3)}


def released(folder, rows: int = 3, **changed):
    folder.mkdir(exist_ok=True)
    for part, line in {**RELEASED, **changed}.items():
        with (folder / f"basic_{part}.tsv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["Source", "Target"])
            writer.writerows([line] * rows)
    return folder


def test_released_files_are_read_as_published(tmp_path, monkeypatch) -> None:
    root = released(tmp_path / "listops-1000")
    for folder in (root, tmp_path):
        data = listops(folder, length=8, batch_size=1)
        assert data.train_set.rows.x.tolist() == [[4, 12, 15, 3, 2, 0, 0, 0]] * 3
        assert data.val_set.rows.x[0].tolist() == [7, 17, 16, 3, 2, 0, 0, 0]
        assert data.test_set.rows.x[0].tolist() == [11, 2, 0, 0, 0, 0, 0, 0]
        assert [int(part.rows.y[0]) for part in (data.train_set, data.val_set, data.test_set)] == [4, 7, 3]
        assert data.train_set.rows.lengths.tolist() == [5] * 3
        assert data.facts()["size"] == "subset"
    monkeypatch.setattr(module, "RELEASED", (3, 3, 3))
    assert listops(root, length=8, batch_size=1).facts()["size"] == "full"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("[MIN 4 x ]", 4), r"basic_val\.tsv: line 2 is not an expression, a tab and a digit"),
        (("[FIRST 4 2 ]", 4), "line 2 is not an expression"),
        (("[MIN 4 2 ]", 12), "line 2 is not an expression"),
        (("", 1), "line 2 is not an expression"),
        (("[MIN " + "1 " * 8 + "]", 1), r"line 2 has 10 symbols, data\.length=8 takes 7"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        listops(released(tmp_path / "data", val=line), length=8, batch_size=1)


def test_missing_and_foreign_files_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"listops: no basic_train\.tsv in .*; set data\.root"):
        listops(tmp_path / "nowhere")
    root = released(tmp_path / "data")
    (root / "basic_test.tsv").write_text("label\ttext\n1\t2\n")
    with pytest.raises(
        ValueError, match=r"basic_test\.tsv: the first line must be Source and Target, got b'label text'"
    ):
        listops(root, length=8, batch_size=1)
    with pytest.raises(ValueError, match=r"no line after the first"):
        listops(released(tmp_path / "data", rows=0), length=8, batch_size=1)
    with pytest.raises(ValueError, match=r"data\.root and data\.generated=true are both set"):
        listops(root, generated=True)
