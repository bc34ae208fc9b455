"""Sound, spikes, ECG and the event camera."""

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.contents import rows
from fuzz.engine import Format
from fuzz.packing import as_tar, bombs, numbers, pack
from spikingssm import datasets
from spikingssm.datasets.heidelberg import Recordings, write_recordings

__all__ = ["FORMATS"]


def _clips() -> dict[str, bytes]:
    import soundfile

    files = {}
    for digit in range(3):
        for index in (0, 6, 7):
            out = io.BytesIO()
            clip = numbers(digit).integers(-3000, 3000, 60 + index).astype(np.int16)
            soundfile.write(out, clip, 8000, format="WAV", subtype="PCM_16")
            files[f"recordings/{digit}_ann_{index}.wav"] = out.getvalue()
    return files


def _sound(kind: str | None) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        if kind is not None:
            as_tar(folder / "recordings.tar", kind, _clips())
            return
        (folder / "recordings").mkdir()
        for name, data in _clips().items():
            (folder / name).write_bytes(data)

    return build


def _read_sound() -> Any:
    return rows(datasets.fsdd(".", length=80, batch_size=2, val_fraction=0.4))


def _edit_wav(draw: random.Random, folder: Path) -> None:
    path = folder / "recordings" / "1_ann_6.wav"
    data = bytearray(path.read_bytes())
    at = draw.choice([4, 16, 20, 22, 24, 28, 32, 34, 40])
    width = draw.choice([2, 4])
    value = draw.choice([0, 1, 2, 3, 255, 65535, 2**31, 2**32 - 1, 2**32 - 100, 8000]) % 2 ** (8 * width)
    data[at : at + width] = value.to_bytes(width, "little")
    path.write_bytes(data)


def _names_of_clips(draw: random.Random, folder: Path) -> None:
    path = folder / "recordings" / "1_ann_6.wav"
    name = draw.choice(
        ["1_ann_-1.wav", "x.wav", "1__6.wav", "11_ann_6.wav", "1_ann_99999999999999999999.wav", "1_é_6.wav"]
    )
    path.rename(path.with_name(name))


def _recordings(kind: str | None) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        for seed, part in enumerate(("train", "test")):
            times = np.sort(numbers(seed).integers(0, 9_000, (12, 8)), 1).reshape(-1)
            units = numbers(seed).integers(0, 700, 96).astype(np.uint16)
            found = Recordings(times, units, np.arange(13) * 8, np.arange(12) % 3, np.arange(12) % 4)
            write_recordings(folder / f"shd_{part}.h5", found, [str(n) for n in range(20)])
            if kind is not None:
                pack(folder / f"shd_{part}.h5", kind)

    return build


def _read_recordings() -> Any:
    options: dict[str, Any] = {"jitter_us": 0.0, "channel_shift": False, "batch_size": 2, "bins": "fixed", "steps": 5}
    return rows(datasets.shd(".", **options, bin_ms=2.0, channels=70))


def _edit_hdf5(draw: random.Random, folder: Path) -> None:
    import h5py

    name = draw.choice(["labels", "spikes/times", "spikes/units", "extra/speaker"])
    secret = folder / "secret"
    secret.write_bytes(bytes(range(96)))
    lists = h5py.vlen_dtype(np.float64)
    with h5py.File(folder / "shd_train.h5", "r+") as file:
        old = file[name][()]
        del file[name]
        way = draw.randrange(16)
        if way == 0:
            file.create_dataset(name, (10**12,), np.int64, chunks=(1024,))
        elif way == 1:
            file[name] = h5py.ExternalLink(str(secret), "/x")
        elif way == 2:
            file[name] = h5py.SoftLink("/extra/keys")
        elif way == 3:
            file.create_dataset(name, (12,), np.int64, external=[(str(secret), 0, 96)])
        elif way == 4:
            file.create_dataset(name, (10**7,), lists)
        elif way == 5:
            file.create_dataset(name, (12,), np.int64, fillvalue=draw.choice([-3, 10**12, 20, 700]))
        elif way == 6:
            file[name] = np.zeros((12, 3))
        elif way == 7:
            file[name] = ["a"] * 12
        elif way == 8:
            file[name] = np.zeros(12, [("a", "i4")])
        elif way == 9:
            file[name] = np.zeros(12, complex)
        elif way == 10:
            file.create_group(name)
        elif way == 11:
            file[name] = 3
        elif way == 12:
            file[name] = h5py.Empty("f")
        elif way == 13 and name.startswith("spikes"):
            data = file.create_dataset(name, (12,), lists)
            for row in range(12):
                value = draw.choice([np.nan, -1.0, 1e30, 0.001, np.inf])
                data[row] = np.full(8, value) if draw.random() < 0.5 else np.full(3, 0.001)
        elif way == 14 and name.startswith("spikes"):
            file.create_dataset(name, (12,), lists)
        else:
            file.create_dataset(name, data=old[:5], compression="gzip") if old.dtype != object else None


def _ecg(packed: bool) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        from scipy.io import savemat

        for seed, part in enumerate(("train", "test")):
            x = numbers(seed).integers(-1, 2, (4, 1301, 4)).astype(np.int16)
            y = np.zeros((4, 1301, 6), np.uint8)
            y[:, :1200, seed] = 1
            savemat(folder / f"QTDB_{part}.mat", {"x": x, "y": y}, do_compression=packed)

    return build


def _read_ecg() -> Any:
    return rows(datasets.ecg(".", batch_size=2, val_fraction=0.25))


def _edit_mat(draw: random.Random, folder: Path) -> None:
    from scipy.io import savemat

    x, y = np.zeros((4, 1301, 4), np.int16), np.zeros((4, 1301, 6), np.uint8)
    nested: Any = np.array([1.0])
    for _ in range(draw.choice([1, 50, 400])):
        cell = np.empty(1, object)
        cell[0] = nested
        nested = cell
    wrong = [
        nested, x.astype(complex), x + 5, x.astype(float) * np.nan, "word", {"a": x}, x[:0], x[None], y + 1, y - 1,
        np.zeros(2**24, np.uint8), x.astype(str),
    ]  # fmt: skip
    content_ = {"x": x, "y": y}
    if draw.random() < 0.2:
        content_.pop(draw.choice(["x", "y"]))
    else:
        content_[draw.choice(["x", "y"])] = draw.choice(wrong)
    savemat(
        folder / "QTDB_train.mat",
        content_,
        do_compression=draw.random() < 0.5,
        format=draw.choice(["5", "5", "4"])
        if all(isinstance(v, np.ndarray) and v.ndim < 3 and v.dtype != object for v in content_.values())
        else "5",
    )


def _events(folder: Path) -> None:
    for user in range(1, 5):
        t = np.sort(numbers(user).integers(0, 200_000, 120))
        words = (numbers(user).integers(0, 128, 120) << 17 | numbers(user + 9).integers(0, 128, 120) << 2 | 1).astype(
            "<u4"
        )
        body = np.stack([words, t.astype("<u4")], 1).tobytes()
        packet = struct.pack("<hhiiiiii", 1, 0, 8, 4, 0, 120, 120, 120)
        name = f"user{user:02}_led"
        (folder / f"{name}.aedat").write_bytes(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + packet + body)
        lines = ["class,startTime_usec,endTime_usec", "1,0,100000", "5,100000,199999"]
        (folder / f"{name}_labels.csv").write_text("\n".join(lines) + "\n")
    for part, users in (("train", (1, 2, 3)), ("test", (4,))):
        (folder / f"trials_to_{part}.txt").write_text("".join(f"user{n:02}_led.aedat\n" for n in users))


def _event_copy(folder: Path) -> None:
    for part, users in (("ibmGestureTrain", (1, 2, 3)), ("ibmGestureTest", (4,))):
        for user in users:
            home = folder / part / f"user{user:02}_led"
            home.mkdir(parents=True)
            draw = numbers(user)
            columns = [draw.integers(0, 128, 90), draw.integers(0, 128, 90), draw.integers(0, 2, 90)]
            np.save(home / "3.npy", np.stack([*columns, np.sort(draw.integers(0, 200, 90))], 1).astype(float))


def _read_events() -> Any:
    return rows(datasets.dvs128gesture(".", slice_ms=50, frame_ms=25, batch_size=1, val_fraction=0.4))


def _edit_labels(draw: random.Random, folder: Path) -> None:
    path = folder / "user01_led_labels.csv"
    value = draw.choice(
        ["10000000000000", "-5", "1e9", "nan", "", "9" * 30, "9" * 5000, "x", "2000000", '"', "\0", "500000"]
    )
    lines = ["class,startTime_usec,endTime_usec", "1,0,100000", "5,100000,199999"]
    row = draw.choice([1, 2])
    cells = lines[row].split(",")
    cells[draw.randrange(3)] = value
    lines[row] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")


def _edit_events(draw: random.Random, folder: Path) -> None:
    path = folder / "ibmGestureTrain" / "user01_led" / "3.npy"
    found = np.load(path)
    row, column = draw.randrange(len(found)), draw.randrange(4)
    found[row, column] = draw.choice([1e12, 1e30, -1, np.nan, np.inf, 300, 2.5, 1e6])
    np.save(
        path,
        draw.choice(
            [
                found,
                found[:, :3],
                found.astype(complex),
                found.astype(str),
                found[:0],
                np.nan_to_num(found).clip(-128, 127).astype(np.int8),
            ]
        ),
    )
    if draw.random() < 0.2:
        path.rename(path.with_name(draw.choice(["99.npy", "x.npy", "-1.npy", "11.npy"])))


FORMATS = [
    Format(
        "wav", _sound(None), _read_sound, ["recordings/1_ann_6.wav", "recordings/0_ann_0.wav"], False,
        [_edit_wav, _names_of_clips],
    ),
    Format("wav.tar", _sound(""), _read_sound, ["recordings.tar"]),
    Format("wav.tar.gz", _sound("gz"), _read_sound, ["recordings.tar"], True, frauds=[bombs("recordings.tar", "gz")]),
    Format("wav.tar.xz", _sound("xz"), _read_sound, ["recordings.tar"], True, frauds=[bombs("recordings.tar", "xz")]),
    Format(
        "shd.h5", _recordings(None), _read_recordings, ["shd_train.h5", "shd_test.h5"], False, [_edit_hdf5], share=2,
    ),
    Format("shd.h5.gz", _recordings("gz"), _read_recordings, ["shd_train.h5.gz"], True,
           frauds=[bombs("shd_train.h5.gz", "gz")]),
    Format("shd.h5.zip", _recordings("zip"), _read_recordings, ["shd_train.h5.zip"], True),
    Format("ecg.mat", _ecg(False), _read_ecg, ["QTDB_train.mat", "QTDB_test.mat"], False, [_edit_mat]),
    Format("ecg-packed.mat", _ecg(True), _read_ecg, ["QTDB_train.mat", "QTDB_test.mat"], True, [_edit_mat]),
    Format(
        "dvs.aedat", _events, _read_events, ["user01_led.aedat", "user01_led_labels.csv", "trials_to_train.txt"], False,
        [_edit_labels],
    ),
    Format("dvs.npy", _event_copy, _read_events, ["ibmGestureTrain/user01_led/3.npy"], False, [_edit_events]),
]  # fmt: skip
