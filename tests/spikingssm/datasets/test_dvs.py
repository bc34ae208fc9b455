"""DVS128 Gesture: the event format, frames, the split by user, and what is refused."""

import pickle
import struct

import numpy as np
import pytest
import torch

from spikingssm.datasets import standin
from spikingssm.datasets.aedat import Events, in_order, read_aedat
from spikingssm.datasets.dvs import dvs128gesture, to_frames

HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-09-01 10:00:00\r\n#!END-HEADER\r\n"
SHORT = {"slice_ms": 50, "frame_ms": 25}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def packet(events, *, kind: int = 1, overflow: int = 0, size: int = 8) -> bytes:
    """Events (t, x, y, p, valid) as one packet."""
    valid = sum(event[4] for event in events)
    head = struct.pack("<HHIIIIII", kind, 1, size, 4, overflow, len(events), len(events), valid)
    return head + b"".join(struct.pack("<II", v | p << 1 | y << 2 | x << 17, t) for t, x, y, p, v in events)


def event_list(rows: int, seed: int, end: int) -> list[tuple[int, ...]]:
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, end, rows)).tolist()
    return [(t, *random.integers(0, 128, 2).tolist(), int(random.integers(2)), 1) for t in times]


def as_events(rows) -> Events:
    return in_order("", 128, *np.array([row[:4] for row in rows], np.int64).T)


def write_recording(folder, name: str, labels, events=None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    events = event_list(400, int(name[4:6]), 200_000) if events is None else events
    (folder / f"{name}.aedat").write_bytes(HEADER + packet(events[:150]) + packet(events[150:]))
    lines = ["class,startTime_usec,endTime_usec", *(",".join(map(str, label)) for label in labels)]
    (folder / f"{name}_labels.csv").write_text("\n".join(lines) + "\n")


def write_release(root, train: int = 6, test: int = 2) -> None:
    names = [f"user{number:02d}_{light}" for number in range(1, 1 + train + test) for light in ("led", "lab")]
    for name in names:
        write_recording(root, name, [(int(name[4:6]), 0, 120_000), (11, 120_000, 199_999)])
    for part, chosen in (("train", names[: 2 * train]), ("test", names[2 * train :])):
        (root / f"trials_to_{part}.txt").write_text("".join(f"{name}.aedat\n" for name in chosen))


def test_aedat_events_come_back_in_the_order_of_time(tmp_path) -> None:
    first, second = [(7, 127, 0, 1, 1), (3, 0, 127, 0, 1)], [(5, 64, 2, 1, 1), (6, 1, 1, 1, 0)]
    other = struct.pack("<HHIIIIII", 0, 1, 12, 4, 0, 1, 1, 1) + b"x" * 12
    path = tmp_path / "a.aedat"
    path.write_bytes(HEADER + packet(first) + other + packet([]) + packet(second, overflow=1))
    events = read_aedat(path, 128)
    assert [field.tolist() for field in events] == [
        [3, 7, 2**31 + 5],
        [0, 127, 64],
        [127, 0, 2],
        [0, 1, 1],
    ]


def test_aedat_damage_is_named(tmp_path) -> None:
    path = tmp_path / "a.aedat"
    whole = HEADER + packet(event_list(20, 0, 1000))
    cases = {
        "starts with b'#!AER-DAT2.0": whole.replace(b"3.1", b"2.0", 1),
        "starts with b''": b"",
        "an AEDAT 3.1 file with": whole[:30],
        f"damaged at byte {len(HEADER)} of": whole[:-1],
        "damaged at byte": whole + b"\1\0",
        "damaged at": HEADER + packet([], size=0),
        "damaged  at": HEADER + packet([], size=16),
        "holds no polarity event": HEADER + packet([], kind=3),
        "outside of 128 x 128": HEADER + packet([(0, 128, 0, 1, 1)]),
    }
    for says, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=says.replace("  ", " ")):
            read_aedat(path, 128)


def test_frames_count_events_and_keep_the_larger_of_four_pixels() -> None:
    rows = event_list(3000, 1, 170_000)
    rows = [(t, x % 20, y % 20, p, v) for t, x, y, p, v in rows]  # so that pixels are hit more than once
    counts = np.zeros((3, 2, 2, 128, 128), int)
    start, frame = 10_000, 25_000
    for t, x, y, p, _ in rows:
        if start <= t < start + 3 * 2 * frame:
            counts[(t - start) // (2 * frame), (t - start) // frame % 2, p, y, x] += 1
    pooled = torch.nn.functional.max_pool2d(torch.tensor(counts, dtype=torch.float32).flatten(0, 2), 2)
    expected = pooled.reshape(3, 2, 2, 64, 64).sum(2).reshape(3, 128, 64)
    found = to_frames(as_events(rows), start, 169_999, 2, frame)
    assert found.max() > 2
    assert torch.equal(torch.as_tensor(found).float(), expected)


@pytest.mark.parametrize(("start", "end"), [(1, 10**13), (0, 10**10), (-5, 100), (0, 5_000_000), (10**12, 2 * 10**12)])
def test_a_gesture_that_ends_long_behind_the_events_is_refused(start, end) -> None:
    events = as_events([(t, 5, 5, 1, 1) for t in range(300)])
    with pytest.raises(ValueError, match="the last event is at 299; it must end with the events"):
        to_frames(events, start, end, 2, 100_000)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("3,0,10000000000000", "it must end with the events"), ("3,0,1e9", "must be a table"),
        ("3,0,-1", "has the time -1"), ("3,0," + "9" * 40, "has the time 9999"),
        ("3,0," + "9" * 5000, "must be a table"),
        ("12,0,9", "the class 12"),
        ("9" * 40 + ",0,9", "has the class 9999"), ('3,"0', "must be a table"), ("3\0,0,9", "must be a table"),
    ],
)  # fmt: skip
def test_a_label_out_of_range_is_refused_with_the_file(tmp_path, line, says) -> None:
    write_release(tmp_path)
    path = tmp_path / "user01_led_labels.csv"
    path.write_text(f"class,startTime_usec,endTime_usec\n{line}\n")
    with pytest.raises(ValueError, match=says) as caught:
        dvs128gesture(tmp_path, batch_size=2, **SHORT)
    assert "user01_led_labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_fill_a_slice_is_dropped_and_counts_are_not_cut_off() -> None:
    events = as_events([(t, 5, 5, 1, 1) for t in range(300)])
    for end, slices in ((0, 0), (49_999, 0), (50_000, 1), (99_999, 1), (100_000, 2)):
        assert to_frames(events, 0, end, 2, 25_000).shape == (slices, 128, 64)
    assert to_frames(events, 0, 50_000, 2, 25_000)[0, 2, 2] == 300


def test_sequences_are_rows_of_frames_scaled_as_published(tmp_path) -> None:
    write_release(tmp_path / "DvsGesture")
    data = dvs128gesture(tmp_path, batch_size=2, **SHORT)
    assert (data.length, data.d_input, data.d_output, data.facts()["size"]) == (128, 64, 11, "subset")
    batch = next(iter(data.test_dataloader()))
    frames = to_frames(as_events(event_list(400, 7, 200_000)), 0, 120_000, 2, 25_000)
    torch.testing.assert_close(batch.x, torch.as_tensor(frames).float() / 2 / 19)
    assert batch.y.tolist() == [6, 6]


def test_all_recordings_of_the_release_are_called_full(tmp_path, monkeypatch) -> None:
    write_release(tmp_path)
    monkeypatch.setattr("spikingssm.datasets.dvs.RECORDINGS", {"train": 12, "test": 4})
    assert dvs128gesture(tmp_path, batch_size=2, val_fraction=0.2, **SHORT).facts()["size"] == "full"


def test_validation_shares_no_user_with_training(tmp_path) -> None:
    """Guards defect 40: slices of one recording were on both sides."""
    write_release(tmp_path)
    seen = []
    for seed in range(4):
        data = dvs128gesture(tmp_path, batch_size=2, val_fraction=0.34, seed=seed, **SHORT)
        own = [set(np.asarray(d.rows.y).tolist()) - {10} for d in (data.train_set, data.val_set)]  # class = user here
        assert own[0] & own[1] == set()
        assert own[0] | own[1] == set(range(6))
        assert len(own[1]) == 2
        assert f"users {', '.join(str(k + 1) for k in sorted(own[1]))}, by the seed" in data.split
        seen.append(tuple(own[1]))
    assert len(set(seen)) > 1


def test_a_gesture_ends_where_the_next_begins(tmp_path) -> None:
    """In the release, a gesture of user22_led is labelled far into the one behind it."""
    write_release(tmp_path, train=2, test=1)
    write_recording(tmp_path, "user01_led", [(1, 0, 190_000), (2, 50_000, 120_000)])
    data = dvs128gesture(tmp_path, batch_size=1, val_fraction=0.5, **SHORT)
    y = np.concatenate([np.asarray(d.rows.y) for d in (data.train_set, data.val_set)])
    assert np.bincount(y, minlength=11).tolist() == [1 + 2, 1 + 2 * 2, 0, 0, 0, 0, 0, 0, 0, 0, 3]


def test_the_numpy_copy_gives_the_same_sequences(tmp_path) -> None:
    rows = [(1000 * t, *rest) for t, *rest in event_list(300, 3, 160)]
    home = tmp_path / "DVSGesture"
    for part, users in (("Train", (1, 2)), ("Test", (24,))):
        for user in users:
            folder = home / f"ibmGesture{part}" / f"user{user:02d}_led"
            folder.mkdir(parents=True)
            np.save(folder / "10.npy", np.array([(x, y, p, t // 1000) for t, x, y, p, _ in rows], float))
    data = dvs128gesture(tmp_path, batch_size=1, val_fraction=0.5, **SHORT)
    start = rows[0][0]
    expected = to_frames(as_events(rows), start, rows[-1][0] + 1, 2, 25_000)
    assert len(expected) == 3
    np.testing.assert_array_equal(data.test_set.rows.x, expected)
    assert data.test_set.rows.y.tolist() == [10] * 3
    for wrong, says in (
        (np.array([[1, 2, 0, 1e30]]), "times in milliseconds below"),
        (np.array([[1, 2, 0, np.nan]]), "must hold numbers"),
        (np.array([[1, 2, 0, 0], [1, 2, 0, 10**12]]), r"10\.npy: a gesture from 0 to .*last at most"),
        (np.array([["a", "b", "c", "d"]]), "must hold numbers"), (np.array([[200, 2, 0, 1]]), "outside of 128 x 128"),
    ):  # fmt: skip
        np.save(folder / "10.npy", wrong)
        with pytest.raises(ValueError, match=says):
            dvs128gesture(tmp_path, batch_size=2, **SHORT)
    np.save(folder / "10.npy", np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"10\.npy: must be CLASS\.npy with events \(N, 4\)"):
        dvs128gesture(tmp_path, **SHORT)


def test_frames_are_made_once_and_rows_can_be_sent_to_loader_processes(tmp_path, monkeypatch) -> None:
    write_release(tmp_path)
    first = dvs128gesture(tmp_path, batch_size=2, **SHORT)
    monkeypatch.setattr("spikingssm.datasets.dvs.read_aedat", None)
    again = dvs128gesture(tmp_path, batch_size=2, **SHORT)
    assert torch.equal(next(iter(first.train_dataloader())).x, next(iter(again.train_dataloader())).x)
    sent = pickle.loads(pickle.dumps(again.train_set))
    assert torch.equal(sent.__getitems__([0, 2]).x, again.train_set.__getitems__([0, 2]).x)


def test_missing_and_wrong_files_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"set data\.root to its folder"):
        dvs128gesture()
    with pytest.raises(FileNotFoundError, match=r"no trials_to_train\.txt and no ibmGestureTrain"):
        dvs128gesture(tmp_path)
    (tmp_path / "copy" / "ibmGestureTrain" / "user01_led").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"in .*ibmGestureTest"):
        dvs128gesture(tmp_path / "copy")
    write_release(tmp_path, train=2, test=1)
    labels = tmp_path / "user01_led_labels.csv"
    for content, says in {
        "class,start\n1,2\n": "must be a table of class, startTime_usec, endTime_usec",
        "class,startTime_usec,endTime_usec\n1,2,x\n": "must be a table",
        "class,startTime_usec,endTime_usec\n1,2\n": "must be a table",
        "class,startTime_usec,endTime_usec\n12,2,3\n": "has the class 12, classes are 1 to 11",
        "class,startTime_usec,endTime_usec\n": "holds no gesture",
    }.items():
        labels.write_text(content)
        with pytest.raises(ValueError, match=says):
            dvs128gesture(tmp_path, **SHORT)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=r"no user01_led_labels\.csv"):
        dvs128gesture(tmp_path, **SHORT)
    (tmp_path / "trials_to_train.txt").write_text("notes.pdf\n")
    with pytest.raises(ValueError, match=r"named userNN_light\.aedat, got notes\.pdf"):
        dvs128gesture(tmp_path, **SHORT)
    write_release(tmp_path, train=2, test=1)
    (tmp_path / "trials_to_test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no trials_to_test\.txt"):
        dvs128gesture(tmp_path, **SHORT)


def test_lengths_that_do_not_fit(tmp_path) -> None:
    for options in ({"slice_ms": 1700, "frame_ms": 30}, {"frame_ms": 0}, {"slice_ms": 0}):
        with pytest.raises(ValueError, match="slice_ms must be a multiple"):
            dvs128gesture(tmp_path, **options)
    write_release(tmp_path, train=2, test=1)
    with pytest.raises(ValueError, match="no gesture of 400 ms in train"):
        dvs128gesture(tmp_path, slice_ms=400, frame_ms=25)
    for options in ({"slice_ms": 201, "frame_ms": 1}, {"slice_ms": 100_000, "frame_ms": 25}):
        with pytest.raises(ValueError, match=r"at most 200 frames a slice, got .*; raise data\.frame_ms"):
            dvs128gesture(generated=True, **options)
    with pytest.raises(ValueError, match="both sides of 2"):
        dvs128gesture(tmp_path, val_fraction=0.1, **SHORT)


def test_the_stand_in_has_the_shape_of_the_data_and_can_be_learned() -> None:
    facts = dvs128gesture(generated=True, batch_size=4).facts()
    assert (facts["size"], facts["length"], facts["d_input"], facts["d_output"]) == ("generated", 4352, 64, 11)
    train, test = standin.bars(6, 64, 11)
    assert train.x.dtype == np.uint8
    columns = [rows.x.astype(float).mean(1) for rows in (train, test)]
    means = np.stack([columns[0][train.y == k].mean(0) for k in range(11)])
    assert (((columns[1][:, None] - means) ** 2).sum(-1).argmin(1) == test.y).mean() > 0.9
    with pytest.raises(ValueError, match="both set; drop one"):
        dvs128gesture("somewhere", generated=True)
