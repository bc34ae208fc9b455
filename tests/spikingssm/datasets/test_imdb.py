"""Film reviews as letters: what is read, in which order, and what a wrong folder or archive says."""

import importlib
import io
import tarfile

import numpy as np
import pytest
import torch

from spikingssm.datasets.imdb import imdb

module = importlib.import_module("spikingssm.datasets.imdb")  # the package's attribute of that name is the function

TEXTS = {
    f"aclImdb/{part}/{folder}/{number}_{stars}.txt": f"{part} {folder} {number}: café {'!' * number}".encode()
    for part in ("train", "test")
    for folder, stars in (("pos", 8), ("neg", 3))
    for number in range(10 if part == "train" else 3)
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def unpacked(folder, texts=TEXTS):
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return folder


def packed(path, texts=TEXTS):
    with tarfile.open(path, f"w:{path.suffix[1:]}") as archive:
        for name, text in reversed(texts.items()):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return path


def read(root, **options):
    return imdb(root, **{"batch_size": 2, "length": 64, **options})


def texts_of(rows) -> list[bytes]:
    assert all(rows.x[i, n - 1] == module.BYTE_EOS for i, n in enumerate(rows.lengths))
    assert all((rows.x[i, n:] == 0).all() for i, n in enumerate(rows.lengths))
    return [np.asarray(rows.x[i, : n - 1]).tobytes() for i, n in enumerate(rows.lengths)]


def test_a_token_is_a_byte_and_the_end_follows(tmp_path) -> None:
    data = read(unpacked(tmp_path / "data"))
    rows = data.train_set.rows
    expected = sorted((("pos" in name), int(name.split("/")[-1].split("_")[0]), text)
                      for name, text in TEXTS.items() if "/train/" in name)  # fmt: skip
    assert texts_of(rows) == [text for _, _, text in expected]
    assert rows.y.tolist() == [int(positive) for positive, _, _ in expected]
    assert rows.lengths.tolist() == [len(text) + 1 for _, _, text in expected]
    assert (data.vocab, data.d_output, data.length, data.pairs) == (256, 2, 64, False)
    batch = next(iter(data.test_dataloader()))
    assert (batch.x.shape, batch.x.dtype, batch.lengths.dtype) == ((2, 64), torch.int64, torch.int64)


def test_folder_and_archives_give_the_same_rows(tmp_path) -> None:
    (tmp_path / "packed").mkdir()
    roots = [
        unpacked(tmp_path / "data"),
        tmp_path / "data" / "aclImdb",
        packed(tmp_path / "packed" / "aclImdb_small.tar.xz"),
        tmp_path / "packed",
        packed(tmp_path / "any.tar.gz"),
    ]
    first, *others = [read(root) for root in roots]
    for other in others:
        for a, b in ((first.train_set.rows, other.train_set.rows), (first.test_set.rows, other.test_set.rows)):
            assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def test_long_reviews_lose_their_end_and_keep_the_end_token(tmp_path) -> None:
    rows = read(unpacked(tmp_path / "data"), length=8).train_set.rows
    assert set(texts_of(rows)) == {b"train p", b"train n"}
    assert set(rows.lengths.tolist()) == {8}


def test_no_byte_of_a_review_is_the_padding_or_the_end(tmp_path) -> None:
    texts = {**TEXTS, "aclImdb/train/neg/0_3.txt": b"a\0b\1c"}
    assert texts_of(read(unpacked(tmp_path / "data", texts)).train_set.rows)[0] == b"a b c"


def test_validation_comes_from_the_training_reviews(tmp_path) -> None:
    data = read(unpacked(tmp_path / "data"), val_fraction=0.2)
    facts = data.facts()
    assert (facts["train"], facts["val"], facts["test"], facts["size"]) == (16, 4, 6, "subset")
    held = {bytes(row.numpy().astype(np.uint8)) for batch in data.val_dataloader() for row in batch.x}
    tested = {bytes(row.numpy().astype(np.uint8)) for batch in data.test_dataloader() for row in batch.x}
    assert len(held) == 4
    assert not held & tested


def test_full_means_every_class_is_complete(tmp_path, monkeypatch) -> None:
    root = unpacked(tmp_path / "data")
    whole = {("train", 0): 10, ("train", 1): 10, ("test", 0): 3, ("test", 1): 3}
    monkeypatch.setattr(module, "RELEASED", whole)
    assert read(root).facts()["size"] == "full"
    monkeypatch.setattr(module, "RELEASED", {**whole, ("train", 0): 9, ("train", 1): 11})
    assert read(root).facts()["size"] == "subset"


def test_characters_rarer_than_min_freq_are_unknown(tmp_path) -> None:
    texts = {**TEXTS, "aclImdb/train/neg/0_3.txt": "ééz".encode(), "aclImdb/test/neg/0_3.txt": "zéñ".encode() + b"\xff"}
    root = unpacked(tmp_path / "data", texts)
    counts: dict[str, int] = {}
    for name, text in texts.items():
        for character in text.decode() if "/train/" in name else "":
            counts[character] = counts.get(character, 0) + 1
    kept = sorted((c for c in counts if counts[c] >= 3), key=lambda c: (-counts[c], c))
    assert counts["z"] < 3 <= counts["é"]
    data = read(root, level="char", min_freq=3)
    assert data.vocab == 3 + len(kept)
    assert data.test_set.rows.x[0, :6].tolist() == [1, 3 + kept.index("é"), 1, 1, 2, 0]
    with pytest.raises(ValueError, match="min_freq must be at least 1, got 0"):
        read(root, level="char", min_freq=0)


def test_a_changed_file_is_read_again(tmp_path) -> None:
    root = unpacked(tmp_path / "data")
    read(root)
    (root / "aclImdb/train/neg/0_3.txt").write_bytes(b"another text")
    assert texts_of(read(root).train_set.rows)[0] == b"another text"


@pytest.mark.parametrize("level", ["byte", "char"])
def test_the_stand_in_can_be_learnt_from_letter_counts(level: str) -> None:
    data = imdb(generated=True, level=level, length=256)
    assert data.facts()["size"] == "generated"
    assert data.vocab == {"byte": 256, "char": 135}[level]

    def counts(rows):
        return np.stack(
            [np.bincount(row, minlength=data.vocab)[1:] / n for row, n in zip(rows.x, rows.lengths, strict=True)]
        )

    x, y = counts(data.train_set.rows), data.train_set.rows.y
    direction = x[y == 1].mean(0) - x[y == 0].mean(0)
    score = counts(data.test_set.rows) @ direction
    threshold = (x @ direction).mean()
    assert ((score > threshold) == data.test_set.rows.y).mean() > 0.9


def test_the_download_is_the_published_archive(tmp_path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(module, "fetch", lambda *what: asked.append(what) or packed(tmp_path / "aclImdb_v1.tar.gz"))
    assert len(read(None).test_rows) == 6
    (address, name, checksum, _folder) = asked[0]
    assert address + name == "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
    assert checksum == "md5:7c2ac02c03563afcf9b574c7e56c153a"


def test_wrong_roots_say_what_is_missing(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"imdb: neither aclImdb/train .* in .*nowhere; set data.root"):
        imdb(tmp_path / "nowhere")
    partial = {name: text for name, text in TEXTS.items() if "test/neg" not in name}
    with pytest.raises(FileNotFoundError, match=r"imdb: no test/neg/ID_STARS\.txt in"):
        imdb(unpacked(tmp_path / "partial", partial))
    with pytest.raises(ValueError, match=r"imdb: data.root and data.generated=true are both set; drop one\."):
        imdb(tmp_path, generated=True)
    with pytest.raises(ValueError, match="imdb: level must be byte or char, got 'word'"):
        imdb(tmp_path, level="word")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("aclImdb/test/pos/7_9.txt", b" \n", r"imdb: .*test/pos/7_9.txt in .* is empty"),
        ("aclImdb/train/pos/70_2.txt", b"bad", r"imdb: .*train/pos/70_2.txt has 2 stars; pos holds 7 to 10"),
        ("aclImdb/train/neg/70_0.txt", b"bad", r"imdb: .*train/neg/70_0.txt has 0 stars"),
    ],
)
def test_a_wrong_review_is_named(tmp_path, name: str, text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(unpacked(tmp_path / "data", {**TEXTS, name: text}))
    assert not list((tmp_path / "dataset").rglob("*.npy"))


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_a_damaged_archive_is_refused(tmp_path, kind: str) -> None:
    random = np.random.default_rng(0)
    texts = {name: random.integers(32, 127, 500).astype(np.uint8).tobytes() for name in TEXTS}
    path = packed(tmp_path / f"a.tar.{kind}", texts)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.tar\..*: not a whole tar archive .*; copy or download it again"):
            read(path)
