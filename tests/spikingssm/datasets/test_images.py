"""Permuted sequential MNIST, its stand-in, and downloads."""

import hashlib

import numpy as np
import pytest
import requests
import torch
from test_datasets import write_mnist

from spikingssm.datasets import standin
from spikingssm.datasets.download import fetch
from spikingssm.datasets.images import bit_reversal, mnist


def pixels(data) -> torch.Tensor:
    return torch.cat([batch.x for batch in data.test_dataloader()])[:, :, 0]


@pytest.mark.parametrize("length", [1, 2, 5, 8, 784, 1024])
def test_bit_reversal_counts_with_reversed_binary_digits(length) -> None:
    digits = next(n for n in range(20) if 2**n >= length)
    backwards = [int(f"{k:0{digits}b}"[::-1], 2) if digits else 0 for k in range(2**digits)]
    assert bit_reversal(length).tolist() == [k for k in backwards if k < length]


def test_a_permutation_moves_the_pixels_of_all_images_alike(tmp_path) -> None:
    write_mnist(tmp_path)
    plain, reverse, random = (
        pixels(mnist(tmp_path, permute=p, batch_size=4)) for p in (False, "bitreversal", "random")
    )
    assert torch.equal(reverse, plain[:, bit_reversal(784)])
    assert not torch.equal(random, plain)
    assert not torch.equal(random, reverse)
    order = np.random.default_rng(0).permutation(784)
    assert torch.equal(random, plain[:, order])
    assert 0 <= random.min() <= random.max() <= 1


def test_the_random_order_has_a_key_of_its_own(tmp_path) -> None:
    write_mnist(tmp_path)
    options = {"permute": "random", "batch_size": 4}
    first = pixels(mnist(tmp_path, seed=0, **options))
    assert torch.equal(first, pixels(mnist(tmp_path, seed=1, **options)))
    assert not torch.equal(first, pixels(mnist(tmp_path, permute_seed=1, **options)))


def test_the_facts_name_the_order(tmp_path) -> None:
    write_mnist(tmp_path)
    said = {p: mnist(tmp_path, permute=p, batch_size=4).facts()["split"] for p in ("none", "bitreversal")}
    assert said["none"].endswith("pixels: row by row")
    assert said["bitreversal"].endswith("pixels: bit-reversal order")
    assert said["none"] == mnist(tmp_path, batch_size=4).facts()["split"]
    drawn = mnist(generated=True, permute="random", permute_seed=7)
    assert drawn.facts()["split"].startswith("test: drawn")
    assert drawn.facts()["split"].endswith("random order (permute_seed 7)")


@pytest.mark.parametrize("suffix", ["pt", "npy"])
def test_an_order_out_of_a_file_says_which_pixel_comes_at_which_step(tmp_path, suffix) -> None:
    write_mnist(tmp_path)
    order = np.random.default_rng(5).permutation(784)
    path = tmp_path / f"order.{suffix}"
    if suffix == "pt":
        torch.save(torch.from_numpy(order), path)
    else:
        np.save(path, order)
    data, plain = (mnist(tmp_path, permute=p, batch_size=4) for p in (str(path), False))
    assert torch.equal(pixels(data), torch.stack([pixels(plain)[:, k] for k in order], 1))
    assert data.name == "mnist-permuted-like"
    assert f"in the order of order.{suffix} (its sha256 begins with" in data.facts()["split"]
    again = data.facts()["split"]
    np.save(tmp_path / "order.npy", order[::-1])
    assert mnist(tmp_path, permute=str(tmp_path / "order.npy"), batch_size=4).facts()["split"] != again


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (torch.arange(783), r"integers 0 to 783 once, got torch.int64 of shape \(783,\)"),
        (torch.arange(784).float(), "got torch.float32"),
        (torch.arange(784).clamp(max=782), "integers 0 to 783 once"),
        ({"permutation": torch.arange(784)}, "got dict"),
        (np.random.default_rng(0), "not a readable tensor or array"),
    ],
    ids=["short", "floating", "twice", "dict", "object"],
)
def test_a_file_that_is_no_order_of_the_pixels_is_refused(tmp_path, content, says) -> None:
    torch.save(content, tmp_path / "order.pt")
    with pytest.raises(ValueError, match=says) as caught:
        mnist(generated=True, permute=str(tmp_path / "order.pt"))
    assert "\n" not in str(caught.value)


def test_a_missing_or_damaged_order_is_told(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.npy is no file"):
        mnist(generated=True, permute=str(tmp_path / "missing.npy"))
    (tmp_path / "order.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match="not a readable tensor or array"):
        mnist(generated=True, permute=str(tmp_path / "order.npy"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"permute": "hilbert"}, "must be false, none, random, bitreversal or a .pt or .npy file, got 'hilbert'"),
        ({"permute": "random", "permute_seed": -1}, "permute_seed must be >= 0, got -1"),
        ({"root": "somewhere", "generated": True}, r"data\.root and data\.generated=true are both set"),
    ],
)
def test_options_that_do_not_fit(options, says) -> None:
    with pytest.raises(ValueError, match=says):
        mnist(**options)


def test_the_stand_in_has_the_shape_of_the_data_and_can_be_learned() -> None:
    data = mnist(generated=True)
    facts = data.facts()
    assert (facts["size"], facts["length"], facts["d_input"], facts["d_output"]) == ("generated", 784, 1, 10)
    assert facts["train"] + facts["val"] == 256
    train, test = standin.images(784, 1, 10)
    means = np.stack([train.x[train.y == k].mean((0, 2)) for k in range(10)])
    nearest = ((test.x.mean(2)[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (nearest == test.y).mean() > 0.9
    assert not np.array_equal(train.x[: len(test.x)], test.x)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_fetch_keeps_the_file_with_the_published_checksum_and_no_other(tmp_path, monkeypatch, algorithm) -> None:
    def refuse(*args, **options):
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.setattr(requests, "get", refuse)
    (tmp_path / "file").write_bytes(b"content")
    right = hashlib.new(algorithm, b"content").hexdigest()
    prefix = "" if algorithm == "sha256" else "md5:"
    assert fetch("https://example.org/", "file", prefix + right, tmp_path).read_bytes() == b"content"
    with pytest.raises(OSError, match=r"could not download https://example\.org/file"):
        fetch("https://example.org/", "file", prefix + right[::-1], tmp_path)
