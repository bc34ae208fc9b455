"""Language modelling: the stream, its chunks and its vocabulary against a plain reading of the files."""

import hashlib
import importlib
from collections import Counter

import numpy as np
import pytest
import torch

from spikingssm.datasets.wikitext import wikitext

module = importlib.import_module("spikingssm.datasets.wikitext")  # the package's attribute of that name is the function
PARTS = ("train", "valid", "test")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def text(seed: int, lines: int = 40) -> str:
    random = np.random.default_rng(seed)
    words = ["the", "Cat", "cat", "<unk>", "naïve", "1", "@-@", "sat", f"only{seed}"]
    kept = [" ".join(random.choice(words, random.integers(0, 9))) for _ in range(lines)]
    return "".join(f" {line} \n" for line in kept)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for seed, part in enumerate(PARTS):
        (folder / f"wiki.{part}.tokens").write_text(text(seed), encoding="utf-8")
    return folder


def words(path) -> list[str]:
    return path.read_text(encoding="utf-8").replace("\n", " <eos> ").split()


def numbered(train: list[str], first: tuple[str, ...]) -> list[str]:
    """Types in the order of their numbers."""
    counts = Counter(train)
    return [*first, *sorted(set(train) - set(first), key=lambda token: (-counts[token], token))]


def stream_of(loader) -> tuple[list[int], list[int]]:
    """Inputs and labels of all steps that have one, in the order of the loader."""
    pairs = [(batch.x[batch.y >= 0], batch.y[batch.y >= 0]) for batch in loader]
    return torch.cat([x for x, _ in pairs]).tolist(), torch.cat([y for _, y in pairs]).tolist()


def test_a_part_is_one_stream_and_each_label_is_the_next_word(root) -> None:
    data = wikitext(root, length=16, batch_size=2)
    types = numbered(words(root / "wiki.train.tokens"), ("<eos>",))
    assert (data.vocab, data.d_output, data.stream, data.length) == (len(types), len(types), True, 16)
    unknown = types.index("<unk>")
    for part, loader in (("valid", data.val_dataloader()), ("test", data.test_dataloader())):
        tokens = [types.index(w) if w in types else unknown for w in words(root / f"wiki.{part}.tokens")]
        assert stream_of(loader) == (tokens[:-1], tokens[1:])
        assert all(batch.x.shape == batch.y.shape == (1, 16) for batch in loader)
        assert {batch.lengths for batch in loader} == {None}


def test_training_chunks_do_not_overlap_and_are_shuffled(root) -> None:
    data = wikitext(root, length=16, batch_size=1)
    types = numbered(words(root / "wiki.train.tokens"), ("<eos>",))
    tokens = [types.index(word) for word in words(root / "wiki.train.tokens")]
    rows = -(-(len(tokens) - 1) // 16)
    expected = {tuple(tokens[16 * k : 16 * k + 16]) for k in range(rows - 1)}
    drawn = [tuple(batch.x[0].tolist()) for batch in data.train_dataloader()]
    assert len(drawn) == rows
    assert expected < set(drawn)
    assert drawn != [tuple(row.tolist()) for row in data.train_set.rows.x]


@pytest.mark.parametrize("extra", [0, 1, 15])
def test_the_last_chunk_is_filled_up_without_labels(root, extra: int) -> None:
    (root / "wiki.test.tokens").write_text("the " * (32 + extra), encoding="utf-8")  # and one line end
    data = wikitext(root, length=16, batch_size=1)
    batches = list(data.test_dataloader())
    assert len(batches) == (2 if extra == 0 else 3)
    last = batches[-1]
    real = 32 + extra - 16 * (len(batches) - 1)
    assert (last.y[0] >= 0).tolist() == [True] * real + [False] * (16 - real)
    assert (last.y[0, real:] == -100).all()
    assert (last.x[0, real + 1 :] == 0).all()


def test_frequent_words_have_small_numbers(root) -> None:
    """What an adaptive softmax needs; the first number is <eos>, wherever it stands by frequency."""
    stream = wikitext(root, length=16, batch_size=1).train_set.rows.x
    seen = np.bincount(stream[stream > 0])[1:]
    assert len(seen) > 5
    assert (np.diff(seen) <= 1).all()  # the last word of the stream is a label only


def test_rare_words_of_the_training_text_are_unknown(root) -> None:
    train = words(root / "wiki.train.tokens")
    counts = Counter(train)
    least = sorted(counts.values())[2]
    data = wikitext(root, length=16, batch_size=1, min_freq=least)
    kept = [token for token in numbered(train, ("<eos>",)) if counts[token] >= least]
    assert "<unk>" in kept
    assert data.vocab == len(kept) < len(counts)
    tokens = [kept.index(word if word in kept else "<unk>") for word in train]
    assert data.train_set.rows.x.reshape(-1)[: len(tokens)].tolist() == tokens


def test_full_means_the_published_numbers_of_tokens_and_types(root, monkeypatch) -> None:
    sizes = [len(words(root / f"wiki.{part}.tokens")) for part in PARTS]
    types = len(set(words(root / "wiki.train.tokens")))
    options = {"length": 16, "batch_size": 1, "version": "wikitext-2"}
    monkeypatch.setitem(module.RELEASED, "wikitext-2", (*sizes, types))
    facts = wikitext(root, **options).facts()
    assert (facts["size"], facts["name"]) == ("other", "wikitext-2-like")
    assert "the parts as in the files given, which are not the published ones" in facts["split"]
    for part in ("valid", "test"):
        name = f"wiki.{part}.tokens"
        monkeypatch.setitem(module.SHA256, name, hashlib.sha256((root / name).read_bytes()).hexdigest())
    facts = wikitext(root, **options).facts()
    assert (facts["size"], facts["name"]) == ("full", "wikitext-2")
    assert wikitext(root, level="char", **options).facts()["size"] == "subset"
    monkeypatch.setitem(module.RELEASED, "wikitext-2", (*sizes, types + 1))
    assert wikitext(root, **options).facts()["size"] == "subset"
    assert module.RELEASED["wikitext-103"] == (103_227_021, 217_646, 245_569, 267_735)


def test_training_on_the_validation_text_holds_out_its_end(root) -> None:
    (root / "wiki.train.tokens").unlink()
    data = wikitext(root, length=16, batch_size=1, train_part="valid", val_fraction=0.25)
    every = words(root / "wiki.valid.tokens")
    rows = len(every) // 16
    cut = 16 * (rows - round(rows / 4))
    types = numbered(every[:cut], ("<eos>",))
    unknown = types.index("<unk>")
    inside = [[types.index(w) if w in types else unknown for w in part] for part in (every[:cut], every[cut:])]
    stored = data.train_set.rows
    assert stored.x.reshape(-1)[: cut - 1].tolist() == inside[0][:-1]
    assert stream_of(data.val_dataloader()) == (inside[1][:-1], inside[1][1:])
    assert data.vocab == len(types)
    tested = words(root / "wiki.test.tokens")
    outside = sum(word not in types for word in tested) / len(tested)
    assert outside > 0
    facts = data.facts()
    assert (facts["size"], facts["name"]) == ("other", "wikitext-like")
    assert f"{outside:.2%} of the test words are outside the vocabulary" in facts["split"]
    assert "not comparable" in facts["split"]


def test_a_text_without_unk_still_has_a_number_for_unknown_words(root) -> None:
    (root / "wiki.train.tokens").write_text("a b b \n" * 9, encoding="utf-8")
    (root / "wiki.test.tokens").write_text("b c <unk> \n" * 9, encoding="utf-8")
    data = wikitext(root, length=8, batch_size=1)
    assert data.vocab == 4  # <eos> <unk> b a
    assert data.test_set.rows.x[0, :5].tolist() == [2, 1, 1, 0, 2]
    assert "25.00% of the test words" in data.split  # <unk> itself is inside


def test_characters_are_those_of_the_file(root) -> None:
    data = wikitext(root, length=32, batch_size=1, level="char")
    train = (root / "wiki.train.tokens").read_text(encoding="utf-8")
    types = numbered(list(train), ("", "\0"))
    assert data.vocab == len(types)
    tested = (root / "wiki.test.tokens").read_text(encoding="utf-8")
    tokens = [types.index(c) if c in train else 1 for c in tested]
    assert 1 in tokens
    assert stream_of(data.test_dataloader()) == (tokens[:-1], tokens[1:])
    assert f"{tokens.count(1) / len(tokens):.2%} of the test characters" in data.split


def test_the_folder_of_a_version_is_found_and_a_changed_file_is_read_again(root, tmp_path) -> None:
    root.rename(tmp_path / "wikitext-103")
    before = wikitext(tmp_path, length=16, batch_size=1)
    (tmp_path / "wikitext-103" / "wiki.train.tokens").write_text("new words \n" * 40, encoding="utf-8")
    after = wikitext(tmp_path, length=16, batch_size=1)
    assert (before.vocab, after.vocab) == (len(set(words(tmp_path / "wikitext-103" / "wiki.valid.tokens"))), 4)


def test_the_stand_in_has_the_published_vocabulary_and_a_rule() -> None:
    data = wikitext(generated=True, length=128, batch_size=4)
    assert (data.vocab, data.facts()["size"], data.stream) == (267_735, "generated", True)
    assert wikitext(generated=True, version="wikitext-2", length=128).vocab == 33_278
    assert wikitext(generated=True, level="char", length=128).vocab == 128
    x, y = (np.array(part) for part in stream_of(data.test_dataloader()))
    # four of five follow the rule, and a fresh one of 64 does by chance
    assert abs(((5 * x + 3) % 64 == y).mean() - (0.8 + 0.2 / 64)) < 0.05
    assert len(np.unique(x)) == 64


def test_missing_files_name_the_way_out(root, tmp_path) -> None:
    (root / "wiki.train.tokens").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no wiki\.train\.tokens in .*; set data\.root .*data\.train_part=valid"
    ):
        wikitext(root)
    (root / "wiki.test.tokens").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no wiki\.test\.tokens in .*; set data\.root to the folder that holds"
    ):
        wikitext(root, train_part="valid")
    with pytest.raises(FileNotFoundError, match=r"there is no download; set data\.root"):
        wikitext()
    with pytest.raises(ValueError, match=r"data\.root and data\.generated=true are both set; drop one"):
        wikitext(root, generated=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "wikitext-3"}, "version must be wikitext-103 or wikitext-2, got 'wikitext-3'"),
        ({"level": "byte"}, "level must be word or char, got 'byte'"),
        ({"train_part": "test"}, "train_part must be train or valid, got 'test'"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"length": 9999}, r"train has \d+ tokens, one row of data\.length=9999 takes 10000"),
        (
            {"train_part": "valid", "val_fraction": 1.0},
            r"tokens are \d+ rows of data\.length=16; .*val_fraction=1\.0 must",
        ),
        ({"train_part": "valid", "length": 150}, r"\d+ tokens are 1 rows of data\.length=150"),
    ],
)
def test_wrong_options_name_both_values(root, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wikitext(root, **{"length": 16, "batch_size": 1, **options})


@pytest.mark.parametrize("content", [b"", b" \n \n"])
def test_an_empty_text_is_refused(root, content: bytes) -> None:
    (root / "wiki.valid.tokens").write_bytes(content)
    with pytest.raises(ValueError, match=r"wiki\.valid\.tokens: no text in it; copy or download it again"):
        wikitext(root, length=16, batch_size=1)


def test_another_encoding_is_refused(root) -> None:
    (root / "wiki.test.tokens").write_bytes("naïve ".encode("latin-1") * 40)
    with pytest.raises(ValueError, match=r"wiki\.test\.tokens: not UTF-8 \(.* 0xef\)"):
        wikitext(root, length=16, batch_size=1)
