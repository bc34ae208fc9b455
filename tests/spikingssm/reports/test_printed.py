"""What `evaluate` prints: one screen, with units."""

import sys

from spikingssm.__main__ import main as command
from spikingssm.reports.printed import brief


def found(**changes):
    form = {"joule": 4.87e-7, "dense_joule": 7.61e-7, "saving": 0.36, "parts": {"ssm": 1e-7}}
    return {
        "run": "runs/x", "solver": "Fused()", "rows": 64, "device": "cpu", "accuracy": 0.97216,
        "mse": 0.25, "loss": 2.3, "spike_rate": 0.248, "spike_rates": {"blocks.0.neuron": 0.142, "b": 0.3545},
        "steps": 64.0, "spikes": 508.5,
        "spikes_by_layer": {}, "sops": 16272.0, "sops_by_layer": {}, "not_counted": [],
        "energy": {
            "published": {"macs": 1, "acs": 1, "mac_joule": 3e-7, "ac_joule": 1.46e-8, "saving": 0.951},
            "recurrence": form, "fft": {**form, "joule": 1.855e-6, "saving": -1.326},
        },
        **changes,
    }  # fmt: skip


def words(text):
    return {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in text.splitlines() if "  " in line}


def test_every_number_has_a_unit():
    shown = words(brief(found()))
    assert shown["test"] == "64 rows on cpu"
    assert shown["accuracy"] == "97.22 %"
    assert shown["mse"] == "0.2500"
    assert shown["spikes"] == "24.80 % of all neurons and steps, 508.5 a sample of 64 steps"
    assert shown["SOPs"].startswith("16.3 k a sample")
    assert shown["energy"].startswith("14.6 nJ a sample, 95.1 % less than dense")
    assert shown["energy in full"].startswith("487 nJ a sample, 36.0 % less than dense")
    assert shown["by FFT"].startswith("1.86 uJ a sample, 132.6 % more than dense")
    assert shown["blocks.0.neuron"] == "14.20 %"
    assert len(brief(found()).splitlines()) < 20


def test_a_network_without_an_fft_has_one_count_and_what_is_not_counted_is_named():
    energy = found()["energy"]
    shown = words(brief(found(energy={**energy, "fft": energy["recurrence"]}, not_counted=["my.Layer"])))
    assert "by FFT" not in shown
    assert shown["not counted"] == "my.Layer"
    assert "energy" not in words(brief(found(energy={})))


def test_agreement_is_a_column_a_comparison():
    scores = {"blocks.0.neuron": {"agreement": 0.99854, "f1": 0.9}, "b": {"agreement": 1.0, "f1": 1.0}}
    shown = words(brief(found(agreement={"network": scores, "layer": scores})))
    assert shown["blocks.0.neuron"].split() == ["14.20", "%", "99.85", "%", "99.85", "%"]


def test_all_prints_all(monkeypatch, capsys):
    monkeypatch.setattr("spikingssm.__main__._own", lambda given: {k: v for k, v in found().items() if k != "run"})
    for more, marks in (([], ("every number: --all",)), (["--all"], ("spikes_by_layer", "parts", "dense_joule"))):
        monkeypatch.setattr(sys, "argv", ["spikingssm", "evaluate", "runs/x", *more])
        command()
        shown = capsys.readouterr().out
        assert all(mark in shown for mark in marks)
        assert "runs/x" in shown
