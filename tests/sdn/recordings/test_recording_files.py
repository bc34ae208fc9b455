"""Recordings in files: what was written is read, and what is damaged is refused in one line."""

import sys

import numpy as np
import pytest
import torch
from recordings import demo
from test_recording import arrays, same

from sdn.recordings.data import Recording
from sdn.recordings.files import load_recording

h5py = pytest.importorskip("h5py")


def test_a_saved_recording_is_loaded_as_it_was(tmp_path):
    recording = demo("adex", 200, 2)
    recording.save(tmp_path / "r.npz")
    found = load_recording(tmp_path / "r.npz")
    same(recording, found)
    assert (found.families, found.split, found.units) == (recording.families, recording.split, recording.units)
    coarse = recording.resampled(1.0)  # whose voltage has no peaks
    coarse.save(tmp_path / "c.npz")
    same(coarse, load_recording(tmp_path / "c.npz"))
    with pytest.raises(ValueError, match=r"must end in \.npz, got 'r\.pt'"):
        recording.save(tmp_path / "r.pt")


def test_a_damaged_npz_is_refused_in_one_line(tmp_path):
    path = tmp_path / "r.npz"
    demo("adex", 100, 2).save(path)
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"x" * 100, whole[:300] + bytes(60) + whole[360:]):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"r\.npz: not a readable \.npz file") as error:
            load_recording(path)
        assert "\n" not in str(error.value)
    np.savez(path, current=np.array([{}]), spikes=np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"r\.npz: Object arrays cannot be loaded"):
        load_recording(path)
    np.savez(path, current=np.ones((1, 4)), spikes=np.zeros((1, 4)), what=1)
    with pytest.raises(ValueError, match="it holds 'what'"):
        load_recording(path)


def test_a_plain_npz_takes_overrides(tmp_path):
    current, voltage, spikes = arrays()
    np.savez(tmp_path / "r.npz", current=current / 1000, voltage=voltage)
    with pytest.raises(ValueError, match="does not say how long a step is; give dt= in ms"):
        load_recording(tmp_path / "r.npz")
    found = load_recording(tmp_path / "r.npz", dt=0.1, units={"current": "nA"}, families="noise", split="test")
    assert torch.equal(found.spikes, torch.tensor(spikes))
    assert (found.units["current"], found.families, found.split) == ("nA", ("noise",) * 3, "test")
    with pytest.raises(ValueError, match="unexpected keyword argument 'rate'"):
        load_recording(tmp_path / "r.npz", dt=0.1, rate=3)
    with pytest.raises(ValueError, match=r"sweeps is for \.nwb"):
        load_recording(tmp_path / "r.npz", dt=0.1, sweeps=[1])
    np.savez(tmp_path / "t.npz", current=current, times=[[4.05, 12.05], [4.15, np.nan], [4.25, 12.25]], dt=0.1)
    assert load_recording(tmp_path / "t.npz").spikes.sum(1).tolist() == [2, 1, 2]
    with pytest.raises(FileNotFoundError):
        load_recording(tmp_path / "none.npz")
    (tmp_path / "r.abf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"\.npz, \.csv or \.nwb, got '\.abf'"):
        load_recording(tmp_path / "r.abf")


def write_csv(path, current, voltage, spikes, head="time,current,voltage,spike,sweep,family", dt=0.1):
    lines = [head]
    for row in range(len(current)):
        for t in range(current.shape[1]):
            cells = dt * t, float(current[row, t]), float(voltage[row, t]), int(spikes[row, t]), row, f"f{row}"
            lines.append(",".join(map(repr, cells[:5])) + f",{cells[5]}")
    path.write_text("\n".join(lines) + "\n")


def test_a_table_is_read_with_its_units(tmp_path):
    path = tmp_path / "r.csv"
    current, voltage, spikes = arrays()
    write_csv(path, current, voltage, spikes)
    found = load_recording(path)
    same(found, Recording.of(current, spikes=spikes, voltage=voltage, dt=0.1))
    assert found.families == ("f0", "f1", "f2")
    write_csv(path, current / 1e3, voltage, spikes, "time (s),current_nA,voltage [mV],spikes,sweep,family", dt=1e-4)
    found = load_recording(path)
    assert found.dt == pytest.approx(0.1)
    assert found.units == {"current": "nA", "voltage": "mV"}


def test_a_bad_table_is_refused_by_its_line(tmp_path):
    path = tmp_path / "r.csv"
    current, voltage, spikes = arrays()
    write_csv(path, current, voltage, spikes)
    lines = path.read_text().splitlines()
    for change, words in (
        (lambda x: x.__setitem__(7, x[7].replace(",0,", ",no,", 1)), "line 8: spike is 'no', which is no number"),
        (lambda x: x.__setitem__(7, x[7] + ",1"), "line 8 has 7 cells, the first line 6"),
        (lambda x: x.pop(9), "sweep 0 has 199 rows, sweep 1 has 200"),
        (lambda x: x.__setitem__(9, "5" + x[9]), "line 10: time goes on by 50.1 ms, elsewhere by 0.1 ms"),
        (lambda x: x.__setitem__(0, x[0].replace("current", "I")), "the first line has the column 'I'"),
        (lambda x: x.__setitem__(0, x[0].replace("time", "current")), "needs current, and each once"),
        (lambda x: x.__setitem__(5, x[5].replace(x[5].split(",")[1], "nan")), "current is nan in sweep 0 at step 4"),
        (lambda x: x.__delitem__(slice(1, None)), "the table has no rows"),
    ):
        changed = list(lines)
        change(changed)
        path.write_text("\n".join(changed))
        with pytest.raises(ValueError, match=words) as error:
            load_recording(path)
        assert str(error.value).startswith(str(path))
    path.write_bytes(b"\xff\xfe\x00" * 50)
    with pytest.raises(ValueError, match=r"not a readable table|the first line"):
        load_recording(path)


def write_nwb(path, current, voltage, *, table=False, rate=10000.0, shift=0, stamps=False, gain=7.0):
    """A small NWB 2 file: int16 voltages with a conversion and an offset, currents in amperes, a gain to be ignored."""
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.5.0"
        for row in range(len(current)):
            for place, kind, values, unit, factor, offset in (
                (f"acquisition/v{row}", "CurrentClampSeries", voltage[row], "volts", 1e-5, -0.01),
                (f"stimulus/presentation/i{row}", "CurrentClampStimulusSeries", current[row], "amperes", 1e-12, 0.0),
            ):
                group = file.create_group(place)
                group.attrs["neurodata_type"] = kind
                group.attrs["stimulus_description"] = "Long Square" if row else "Noise"
                if not table:
                    group.attrs["sweep_number"] = np.uint32(100 + row + (shift if unit == "volts" else 0))
                physical = values * (1e-3 if unit == "volts" else 1e-12)
                stored = (physical - offset) / factor
                data = group.create_dataset("data", data=np.round(stored).astype("i2") if unit == "volts" else stored)
                data.attrs.update({"conversion": factor, "offset": offset, "unit": unit})
                group.create_dataset("gain", data=gain)
                if stamps:
                    group.create_dataset("timestamps", data=np.arange(len(values)) / rate)
                else:
                    group.create_dataset("starting_time", data=0.0).attrs["rate"] = rate
        if table:
            _add_table(file, current)


def _add_table(file, current):
    kind = np.dtype([("idx_start", "i4"), ("count", "i4"), ("timeseries", h5py.ref_dtype)])
    where = "general/intracellular_ephys/intracellular_recordings"
    order = list(range(len(current)))[::-1]
    for side, name, place in (
        ("responses", "response", "acquisition/v"),
        ("stimuli", "stimulus", "stimulus/presentation/i"),
    ):
        rows = np.array([(20, 150, file[f"{place}{row}"].ref) for row in order], dtype=kind)
        file.create_dataset(f"{where}/{side}/{name}", data=rows, dtype=kind)


@pytest.mark.parametrize("stamps", [False, True])
def test_nwb_sweeps_are_paired_by_number_with_conversion_and_offset(tmp_path, stamps):
    current, voltage, spikes = arrays()
    write_nwb(tmp_path / "r.nwb", current, voltage, stamps=stamps)
    found = load_recording(tmp_path / "r.nwb")
    np.testing.assert_allclose(found.current, current, rtol=1e-5)
    np.testing.assert_allclose(found.voltage, voltage, atol=0.006)
    assert torch.equal(found.spikes, torch.tensor(spikes))
    assert found.dt == pytest.approx(0.1)
    assert found.units == {"current": "pA", "voltage": "mV"}
    assert found.families == ("Noise", "Long Square", "Long Square")
    some = load_recording(tmp_path / "r.nwb", sweeps=[102], length=90, families="mine", spike_at=10.0)
    np.testing.assert_allclose(some.current, current[2:, :90], rtol=1e-5)
    assert some.families == ("mine",)


def test_nwb_sweeps_are_paired_by_the_table_and_its_windows(tmp_path):
    current, voltage, spikes = arrays()
    write_nwb(tmp_path / "r.nwb", current, voltage, table=True)
    found = load_recording(tmp_path / "r.nwb")
    np.testing.assert_allclose(found.current, current[::-1, 20:170], rtol=1e-5)
    assert torch.equal(found.spikes, torch.tensor(spikes[::-1, 20:170].copy()))


def edit(change):
    """A change of an NWB file that is there."""

    def changed(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return changed


def _shorter(file):
    del file["acquisition/v1/data"], file["stimulus/presentation/i1/data"]
    for place, unit in (("acquisition/v1", "volts"), ("stimulus/presentation/i1", "amperes")):
        file.create_dataset(f"{place}/data", data=np.zeros(150)).attrs["unit"] = unit


def _outside(file):
    del file["acquisition/v1/data"]
    file["acquisition/v1/data"] = h5py.ExternalLink("/etc/other.h5", "/data")


NWB = {
    "version": (edit(lambda f: f.attrs.update({"nwb_version": "NWB-1.0.6"})), "its nwb_version is NWB-1.0.6"),
    "unit": (
        edit(lambda f: f["stimulus/presentation/i1/data"].attrs.update({"unit": "volts"})),
        "/stimulus/presentation/i1/data is in 'volts'; a current is in one of amperes",
    ),
    "rate": (
        edit(lambda f: f["acquisition/v2/starting_time"].attrs.update({"rate": 5000.0})),
        "sweep 102: the voltage has a step of 0.2 ms, the current of 0.1 ms",
    ),
    "no-rate": (edit(lambda f: f["acquisition/v2/starting_time"].attrs.__delitem__("rate")), "not a readable NWB file"),
    "number-twice": (
        edit(lambda f: f["acquisition/v2"].attrs.update({"sweep_number": np.uint32(100)})), "are both sweep 100"
    ),
    "lengths": (edit(_shorter), "sweep 100 has 200 samples, sweep 101 has 150; keep as many of each by length="),
    "outside": (edit(_outside), "lies in another file, which is not followed"),
    "conversion": (
        edit(lambda f: f["stimulus/presentation/i1/data"].attrs.update({"conversion": 1.0})),
        "the largest current is .* pA, in sweep 1",
    ),
    "nan": (edit(lambda f: f["stimulus/presentation/i2/data"].__setitem__(9, np.nan)), "nan in sweep 2 at step 9"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:3000]), "not a readable NWB file"),
    "foreign": (lambda p: p.write_bytes(b"no HDF5" * 99), "not a readable NWB file"),
}  # fmt: skip


@pytest.mark.parametrize("case", NWB)
def test_a_bad_nwb_is_refused_in_one_line(tmp_path, case):
    path = tmp_path / "r.nwb"
    current, voltage, _ = arrays()
    write_nwb(path, current, voltage)
    load_recording(path)
    change, words = NWB[case]
    change(path)
    with pytest.raises(ValueError, match=words) as error:
        load_recording(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_nwb_with_nothing_to_pair_or_without_h5py_says_so(tmp_path, monkeypatch):
    path = tmp_path / "r.nwb"
    current, voltage, _ = arrays()
    write_nwb(path, current, voltage, shift=50)
    with pytest.raises(ValueError, match="there is nothing to pair"):
        load_recording(path)
    write_nwb(path, current, voltage)
    with pytest.raises(ValueError, match="it has no sweep 7; there are 100, 101, 102"):
        load_recording(path, sweeps=[7])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="pip install h5py"):
        load_recording(path)
