"""Folders as a run leaves them, written by hand, for tests of the pages that show them."""

import json
from pathlib import Path

HOSTILE = "<script>alert(1)</script>"


def result(seed=0, **changes):
    """A summary.json as a finished run writes it, with a test of three classes."""
    by_class = {
        "recall": {HOSTILE: 0.5, "b & c": 1.0, "d": None}, "confusion": [[2, 2, 0], [0, 4, 0], [0, 0, 0]],
    }  # fmt: skip
    test = {"accuracy": 0.75 + 0.05 * seed, "loss": 0.5, "spike_rate": 0.1, "spike_rates": {"one": 0.25, "two": 0.1}}
    dataset = {"name": "rows", "size": "full", "train": 90, "val": 10, "test": 8, "seed": seed}
    return {
        "name": "small", "seed": seed, "test": {**test, "by_class": by_class}, "dataset": dataset, "parameters": 7,
        "epochs": 3, "solver": "Fused()", "seconds": 90.0, "device": "cpu, 1 threads",
        "val": {"accuracy": 0.7, "epoch": 2}, "versions": {"torch": "2.0"}, "variant": "",
        "command": f"python train.py experiment=brf/ecg seed={seed}", **changes,
    }  # fmt: skip


def folder(path: Path, seed=0, epochs=3, config="", **changes) -> Path:
    """A run folder without weights: summary.json, metrics.csv of some epochs, config.yaml."""
    path.mkdir(parents=True)
    (path / "summary.json").write_text(json.dumps(result(seed, **changes)))
    rows = [
        f"{n},{10 * (n + 1)},{2.0 - 0.1 * n},{0.5 + 0.1 * n},{1.5 - 0.1 * n},{0.4 + 0.1 * n}" for n in range(epochs)
    ]
    head = "epoch,step,train/loss,train/accuracy,val/loss,val/accuracy"
    (path / "metrics.csv").write_text("\n".join([head, *rows]) + "\n")
    text = (
        f"# python train.py\n# variant: \nname: small\nseed: {seed}\nrun_dir: {path}\ndata: {{seed: {seed}, rows: 3}}\n"
    )
    (path / "config.yaml").write_text(text + config)
    return path
