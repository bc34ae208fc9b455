"""Trajectory files: what is written can be made again, and what cannot be trusted is refused in one line."""

import inspect
import pickle
import warnings
from dataclasses import dataclass

import pytest
import torch
from helpers import every_dynamics
from own_neurons import Graded, One

import sdn
from sdn.surrogate import trajectories as tr
from sdn.surrogate import trajectory_files as files
from sdn.surrogate.fidelity import fresh_scores

PUBLISHED = {
    "training": "training-mem-T1024-N(0.0,1.0)-50000-tau_0.2.pt",
    "test": "test-mem-T1024-N(0.0,1.0)-50000-tau_0.2.pt",
}


@pytest.fixture
def path(tmp_path):
    """A small trustworthy file."""
    file = tmp_path / "data.pt"
    out = sdn.generate(sdn.LIF(0.3), 40, 64, seed=5)
    sdn.save_trajectories(file, out, sdn.LIF(0.3), mean=0.0, std=1.0, seed=5)
    return file


def tamper(path, change):
    """Write the content of a file again after ``change`` has had its way with it."""
    content = {
        k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in torch.load(path, weights_only=True).items()
    }
    change(content)
    torch.save(content, path)


@pytest.mark.parametrize("dynamics", [sdn.LIF(), sdn.LIF(0.125), sdn.ALIF(), sdn.RF(), sdn.BRF()], ids=str)
def test_default_currents_give_sensible_rates_and_no_warning(dynamics):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = sdn.generate(dynamics, 200, 1024, seed=1)
    assert 0.02 <= out.spike.float().mean() <= 0.40


def test_a_silent_or_saturated_neuron_warns():
    with pytest.warns(UserWarning, match=r"spikes in .*outside 2 % to 40 %"):
        sdn.generate(sdn.LIF(0.2), 50, 100, mean=-5.0)


@dataclass(frozen=True)
class Explosive(sdn.Dynamics):
    """Grows without a bound where it is below 0."""

    threshold: float = 1.0
    State = One

    def past(self, state):
        return 3 * state.u

    def advance(self, state, current, spike):
        return One((self.past(state) + current) * (1 - spike))


def test_currents_that_are_too_large_for_a_neuron_are_named():
    with pytest.raises(
        ValueError, match=r"these are mixture currents of standard deviation 3; take smaller ones \(std=, -s, "
    ):
        sdn.generate(Explosive(), 8, 200, std=3.0, family="mixture")


@every_dynamics
def test_generate_is_simulate_on_the_rows_it_returns(dynamics, std):
    """Guards defects 6 and 9: the tensors were transposed views, and spikes took 4 bytes."""
    if isinstance(dynamics, Graded):
        return  # a neuron by its place, which rows do not have
    if any(isinstance(v, list) for v in dynamics.facts().values()):
        with pytest.raises(ValueError, match="one value per channel"):
            sdn.generate(dynamics, 4, 10)
        return
    out = sdn.generate(dynamics, 2100, 40, std=std, seed=3)  # more rows than are simulated at a time
    assert [t.dtype for t in out[:3]] == [torch.float32, torch.float32, torch.bool]
    assert all(t.is_contiguous() and t.shape == (2100, 40) for t in out[:3])
    rows = out.input[[0, 2047, 2048, 2099]]
    again = sdn.simulate(dynamics, rows.unsqueeze(-1))
    torch.testing.assert_close(out.mem[[0, 2047, 2048, 2099]], again.mem[..., 0])
    assert torch.equal(out.spike[[0, 2047, 2048, 2099]], again.spike[..., 0] > 0)
    assert out.spike.any()


def test_the_seed_decides_and_splits_have_their_own():
    """Guards defect 3: nothing was seeded."""
    first, again, other = (sdn.generate(sdn.LIF(), 30, 50, seed=s).input for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert tr.default_seed("training") != tr.default_seed("test")
    assert abs(first.mean()) < 0.2
    assert abs(first.std() - 1) < 0.1


@pytest.mark.parametrize(("name", "expected"), PUBLISHED.items())
def test_lif_keeps_the_published_file_name(name, expected):
    assert files.trajectory_file_name(sdn.LIF(0.2), 50000, 1024, 0, 1, name) == expected


def test_equal_requests_have_equal_file_names():
    """Guards defect 7: int or float changed the name, and the function's number of rows was not the script's."""
    whole, floats = (
        files.trajectory_file_name(sdn.LIF(n(0), n(2)), 10, 20, n(0), n(1), "training") for n in (int, float)
    )
    assert whole == floats == "training-mem-T20-N(0.0,1.0)-10-tau_0.0-threshold_2.0.pt"
    assert inspect.signature(sdn.generate).parameters["samples"].default is inspect.Parameter.empty


def test_other_neurons_end_in_their_name_and_variants_differ():
    names = [
        files.trajectory_file_name(d, 10, 20, 0.0, 1.0)
        for d in (sdn.LIF(), sdn.LIF(reset="soft"), sdn.LIF(threshold=2.0), sdn.ALIF(), sdn.RF(), sdn.BRF())
    ]
    assert len(set(names)) == 6
    assert [n.rsplit("-", 1)[1] for n in names[3:]] == ["alif.pt", "rf.pt", "brf.pt"]
    assert not any("tau" in n for n in names[3:])


def test_a_file_carries_the_facts_to_make_it_again(path):
    found = sdn.load_trajectories(path)
    facts = found.facts
    assert found.dynamics == sdn.LIF(0.3)
    again = sdn.generate(
        found.dynamics, facts["samples"], facts["length"], facts["distribution"]["mean"], facts["distribution"]["std"],
        facts["seed"],
    )  # fmt: skip
    for a, b in zip(found[:3], again[:3], strict=True):
        assert torch.equal(a, b)
        assert a.is_contiguous()


def test_threshold_and_reset_are_in_the_file_and_nothing_is_in_its_name(tmp_path):
    """Guards defect 4: the threshold was the constant 1 everywhere, and the rest was parsed out of file names."""
    dynamics = sdn.LIF(0.4, threshold=0.7, reset="soft")
    out = sdn.generate(dynamics, 40, 64, seed=5)
    lying = tmp_path / "test-mem-T1024-N(0.5,2.0)-50000-tau_0.9.pt"
    sdn.save_trajectories(lying, out, dynamics, mean=0.0, std=1.0, seed=5)
    found = sdn.load_trajectories(lying)
    assert found.dynamics == dynamics
    assert (found.facts["samples"], found.facts["length"]) == (40, 64)
    assert torch.equal(found.spike, found.mem + found.input >= 0.7)
    assert not torch.equal(found.spike, found.mem + found.input >= 1.0)
    perfect = fresh_scores(sdn.SDN().eval(), found.dynamics, samples=20, length=50)["N(0,1)"]
    assert perfect.spike_rate > sdn.generate(sdn.LIF(0.4), 20, 50, seed=20_240_829).spike.float().mean() + 0.05


def test_an_existing_file_is_an_error_that_names_force(path):
    """Guards defect 5: an existing file was a warning."""
    before = path.read_bytes()
    out = sdn.generate(sdn.LIF(0.3), 4, 8)
    with pytest.raises(FileExistsError, match="--force"):
        sdn.save_trajectories(path, out, sdn.LIF(0.3), mean=0, std=1, seed=0)
    assert path.read_bytes() == before
    sdn.save_trajectories(path, out, sdn.LIF(0.3), mean=0, std=1, seed=0, force=True)
    assert sdn.load_trajectories(path).facts["samples"] == 4


def set_in(key, index, value):
    def change(content):
        content[key][index] = value

    return change


def replace(key, value):
    return lambda content: content.update({key: value})


BROKEN = {
    "missing-key": (lambda c: c.pop("spike"), "expected the keys"),
    "extra-key": (replace("more", torch.zeros(1)), "expected the keys"),
    "dtype": (lambda c: c.update(spike=c["spike"].int()), "spike should be torch.bool"),
    "shape": (lambda c: c.update(mem=c["mem"][:, :-1].contiguous()), "mem should be"),
    "meta": (lambda c: c.update(input=c["input"].to("meta")), "input should hold plain numbers, is a meta tensor"),
    "sparse": (lambda c: c.update(mem=c["mem"].to_sparse()), "mem should hold plain numbers, is a torch.sparse_coo"),
    "strides": (lambda c: c.update(input=c["input"].T.contiguous().T), "not contiguous"),
    "nan": (set_in("input", (3, 4), float("nan")), "input has values that are NaN"),
    "infinite": (set_in("mem", (3, 4), float("inf")), "mem has values that are NaN"),
    "mem-tampered": (set_in("mem", (0, 30), 5.0), "row 0 (differs from step 30|has spikes that)"),
    "mem-and-spike": (
        lambda c: (c["mem"][0, 30:31].fill_(5), c["spike"][0, 30:31].fill_(True)),
        "0 differs from step 30",
    ),
    "facts-decay": (lambda c: c["facts"]["dynamics"].update(decay=0.9), "differs from step"),
    "facts-range": (lambda c: c["facts"]["dynamics"].update(decay=9.0), "cannot be made again"),
    "facts-name": (lambda c: c["facts"]["dynamics"].update(name="Nobody"), "no dynamics is named 'Nobody'"),
    "facts-format": (lambda c: c["facts"].update(format_version=99), "not those of sdn-trajectories"),
    "facts-type": (replace("facts", [1, 2]), "not those of sdn-trajectories"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_and_says_how_to_make_it_again(path, change, message):
    """Guards defects 6, 8 and 9: any file was taken, strided, of int32 spikes, of another neuron."""
    tamper(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        sdn.load_trajectories(path)
    assert "generate.py" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_change_that_the_neuron_allows_is_found_by_the_digest(path):
    """The seed and a membrane within rounding: nothing else in the file contradicts them."""
    for change in (lambda c: c["facts"].update(seed=6), lambda c: c["mem"][7, 3].mul_(1 + 1e-6)):
        content = torch.load(path, weights_only=True)
        tamper(path, change)
        with pytest.raises(ValueError, match=r"not those that it was written with \(its digest\)"):
            sdn.load_trajectories(path)
        assert sdn.load_trajectories(path, check=False).facts["samples"] == 40
        torch.save(content, path)


def test_an_older_file_without_a_digest_loads_and_says_so(path):
    tamper(path, lambda c: c["facts"].pop("digest"))
    with pytest.warns(UserWarning, match="an older file without a digest"):
        assert sdn.load_trajectories(path).facts["seed"] == 5


def test_all_spikes_flipped_is_noticed(path):
    tamper(path, lambda c: c.update(spike=~c["spike"]))
    with pytest.raises(ValueError, match=r"differs from step|has spikes that"):
        sdn.load_trajectories(path)


@pytest.mark.parametrize("size", [0, 100, 5000], ids=lambda n: f"{n}-bytes")
def test_a_truncated_file_is_refused(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="truncated or foreign"):
        sdn.load_trajectories(path)


class Evil:
    """Runs when unpickled."""

    def __reduce__(self):
        return (open, ("executed", "w"))


def test_a_pickle_is_never_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"input": Evil()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(ValueError, match="truncated or foreign"):
            sdn.load_trajectories(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_a_missing_file_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"generate\.py"):
        sdn.load_trajectories(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"std": -1.0}, r"N\(0.0, -1.0\)"),
        ({"std": float("nan")}, "finite std"),
        ({"mean": float("inf")}, "finite mean"),
    ],
)
def test_impossible_requests_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sdn.generate(sdn.LIF(), **{"samples": 3, "length": 4, **arguments})


def test_a_membrane_shifted_in_one_simulated_row_is_noticed(path):
    """Too small a change to move a spike, in a row that is simulated again: only the simulation sees it."""
    tamper(path, lambda c: c["mem"][0].add_(torch.where((c["mem"][0] + c["input"][0] - 1).abs() > 0.01, 0.005, 0.0)))
    with pytest.raises(ValueError, match="row 0 differs from step"):
        sdn.load_trajectories(path)


FACTS = {
    "no-seed": lambda f: f.pop("seed"),
    "no-distribution": lambda f: f.pop("distribution"),
    "distribution": lambda f: f.update(distribution=3),
    "std-nan": lambda f: f["distribution"].update(std=float("nan")),
    "std-a-word": lambda f: f["distribution"].update(std="x"),
    "seed-of-another-kind": lambda f: f.update(seed=True),
    "tensor-in-facts": lambda f: f.update(note=torch.ones(2)),
    "threshold-of-400-digits": lambda f: f["dynamics"].update(threshold=10**400),
    "no-rows": lambda f: f.update(samples=0),
    "per-channel": lambda f: f["dynamics"].update(decay=[0.1, 0.2]),
}


@pytest.mark.parametrize("change", FACTS.values(), ids=FACTS)
def test_incomplete_facts_are_refused_with_the_name_of_the_file(path, change):
    tamper(path, lambda c: change(c["facts"]))
    with pytest.raises(ValueError, match=r"data\.pt: "):
        sdn.load_trajectories(path)


def test_a_near_tie_earlier_in_the_row_excuses_nothing(path):
    """A potential within rounding of the threshold forgives a flipped spike there, not a membrane changed later."""

    def change(content):
        content["input"][0, 10] = 1.0 - content["mem"][0, 10] + 2e-5
        out = sdn.simulate(sdn.LIF(0.3), content["input"][:1].unsqueeze(-1))
        content["mem"][0], content["spike"][0] = out.mem[0, :, 0], out.spike[0, :, 0] > 0
        away = (out.mem[0, 40:, 0] + content["input"][0, 40:] - 1).abs() > 0.01
        content["mem"][0, 40:] += torch.where(away, 0.005, 0.0)

    tamper(path, change)
    with pytest.raises(ValueError, match="row 0 differs from step 4"):
        sdn.load_trajectories(path)
