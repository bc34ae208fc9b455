"""Data of one's own as people have them: names for labels, tables, folders of recordings, numbers of any size."""

import numpy as np
import pytest
import soundfile
import torch

from spikingssm.datasets import arrays
from spikingssm.datasets.described import described
from spikingssm.datasets.inputs import Numbers
from spikingssm.datasets.interface import Interface
from spikingssm.datasets.sequences import read_sequences

DRAW = np.random.default_rng(7)
X = (DRAW.normal(size=(40, 9, 2)) * [3.0, 50.0] + [10.0, -4.0]).astype(np.float32)
Y = np.arange(40) % 4


def npz(path, **content):
    np.savez(path, **content)
    return path


def test_names_are_labels_in_the_order_of_the_alphabet(tmp_path):
    names = np.array(["walk", "run", "sit", "fall"])[Y]
    data = arrays(npz(tmp_path / "a.npz", x=X, y=names), batch_size=4)
    assert data.class_names == ("fall", "run", "sit", "walk")
    rows = data.test_set.rows
    assert data.d_output == 4
    whole = arrays(npz(tmp_path / "b.npz", x=X, y=names, x_test=X, y_test=names), batch_size=4)
    assert [whole.class_names[label] for label in whole.test_set.rows.y] == names.tolist()
    assert len(rows.y) == 4
    told = arrays(tmp_path / "b.npz", batch_size=4, classes=["walk", "sit", "run", "fall", "jump"])
    assert told.d_output == 5
    assert [told.class_names[label] for label in told.test_set.rows.y] == names.tolist()
    assert arrays(tmp_path / "b.npz", batch_size=4, classes=told.fitted["classes"]).class_names == told.class_names
    with pytest.raises(ValueError, match=r"y: there is no class 'fall'; the classes are walk, run"):
        arrays(tmp_path / "b.npz", classes=["walk", "run"])


def test_numbers_that_are_names_mean_the_same_in_every_kind_of_file(tmp_path):
    """Twelve folders 0 to 11 beside a file of integers: text would sort them 0, 1, 10, 11, 2."""
    for label in range(12):
        for number in range(3):
            path = tmp_path / "folders" / str(label) / f"{number}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(str(100 * label + step) for step in range(4)))
    y = np.arange(12).repeat(3)
    file = npz(tmp_path / "file.npz", x=(100.0 * y[:, None, None] + np.arange(4)[:, None]), y=y)
    for train, test in ((file, tmp_path / "folders"), (tmp_path / "folders", file)):
        data = arrays(train, test_path=test, batch_size=2)
        assert data.class_names == tuple(map(str, range(12)))
        for part in (data.train_set, data.test_set):
            np.testing.assert_array_equal(part.rows.y, part.rows.x[:, 0, 0] // 100)
    words = npz(tmp_path / "words.npz", x=X, y=np.array(["a", "b", "c", "d"])[Y])
    numbers = npz(tmp_path / "numbers.npz", x=X, y=Y)
    with pytest.raises(ValueError, match="some labels are names such as 'a' and others numbers such as 0"):
        arrays(words, test_path=numbers)
    told = arrays(words, test_path=numbers, classes=["d", "c", "b", "a"], batch_size=2)
    np.testing.assert_array_equal(told.test_set.rows.y, Y)
    with pytest.raises(ValueError, match=r"name 4 classes and data\.classes is 9; list all their names"):
        arrays(words, classes=9)


def test_standardised_and_unit_rows_by_hand_and_kept_for_other_rows(tmp_path):
    lengths = DRAW.integers(4, 10, 40)
    path = npz(tmp_path / "a.npz", x=X[:30], y=Y[:30], lengths=lengths[:30], x_test=X[30:], y_test=Y[30:])
    data = arrays(path, batch_size=4, scale="standardise")
    real = np.concatenate([row[:n] for row, n in zip(X[:30], lengths[:30], strict=True)]).astype(np.float64)
    wanted = (X[30:] - real.mean(0)) / real.std(0)
    np.testing.assert_allclose(data.inputs(torch.as_tensor(X[30:])), wanted, atol=1e-5)
    other = arrays(npz(tmp_path / "b.npz", x=9 * X, y=Y), batch_size=4, scale="standardise", **kept(data))
    assert other.inputs == data.inputs
    unit = arrays(path, batch_size=4, scale="unit")
    assert unit.inputs.divide == np.abs(real).max()
    flat = arrays(npz(tmp_path / "c.npz", x=np.ones((30, 5, 1)), y=Y[:30]), batch_size=4, scale="standardise")
    assert float(flat.train_set[0].x.abs().max()) == 0  # a channel that never changes
    factor = arrays(npz(tmp_path / "d.npz", x=9 * X, y=Y), batch_size=4, scale=2.0, **kept(data))  # it comes on top
    np.testing.assert_allclose(factor.inputs(torch.as_tensor(X[30:])), 2 * wanted, atol=1e-5)
    with pytest.raises(ValueError, match="scaling has 1 means for 2 channels"):
        arrays(path, scale="standardise", scaling={"mean": [0.0], "std": [1.0]})
    with pytest.raises(ValueError, match=r"scaling must be {mean, std} or {divide}"):
        arrays(path, scale="unit", scaling={"mean": [1.0]})


def kept(data):
    return {"scaling": data.fitted["scaling"]}


def test_spikes_stay_as_they_are_and_so_do_counts_behind_them(tmp_path):
    spikes = (DRAW.random((40, 9, 2)) < 0.2).astype(np.uint8)
    data = arrays(npz(tmp_path / "a.npz", x=spikes, y=Y), batch_size=4, scale="auto")
    counts = arrays(npz(tmp_path / "b.npz", x=3 * spikes, y=Y), batch_size=4, scale="auto", **kept(data))
    np.testing.assert_array_equal(counts.inputs(torch.as_tensor(3 * spikes)), 3 * spikes)
    assert arrays(tmp_path / "b.npz", batch_size=4, scale="auto").inputs.mean  # by themselves they are numbers


def test_a_table_with_a_row_a_step(tmp_path):
    lines = ["Sequence,LABEL,u,v"]
    wanted = []
    for row in range(12):
        steps = DRAW.normal(size=(3 + row % 3, 2)).round(3)
        wanted.append(steps)
        lines += [f"s{row},{'up' if row % 2 else 'down'},{u},{v}" for u, v in steps]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines))
    data = arrays(path, batch_size=2, test_fraction=0.5)
    assert data.class_names == ("down", "up")
    every = {**dict(zip(map(tuple, data.train_set.rows.x[:, 0]), zip(*data.train_set.rows, strict=True), strict=True))}
    every |= dict(zip(map(tuple, data.test_set.rows.x[:, 0]), zip(*data.test_set.rows, strict=True), strict=True))
    assert len(every) == 12
    for row, steps in enumerate(wanted):
        x, y, length = every[tuple(steps[0])]
        assert length == len(steps)
        np.testing.assert_array_equal(x[:length], steps)
        assert not x[length:].any()
        assert data.class_names[y] == ("up" if row % 2 else "down")
    labelled = "sequence,label,u\n0,1,5\n0,0,6\n1,1,7\n"
    path.write_text(labelled + "2,1,3\n3,0,4\n")
    steps = arrays(path, batch_size=1, test_fraction=0.5, val_fraction=0.5)
    assert steps.train_set.rows.y.shape[1] == 2
    path.write_text("sequence,label,u\na,up,5\na,down,6\nb,up,7\nc,up,3\nd,down,4\n")
    named = arrays(path, batch_size=1, test_fraction=0.5, val_fraction=0.5)
    assert named.class_names == ("down", "up")
    both = {
        float(x[0, 0]): y.tolist()
        for rows in (named.train_set.rows, named.test_set.rows)
        for x, y in zip(*rows[:2], strict=True)
    }
    assert both == {5.0: [1, 0], 7.0: [1, -100], 3.0: [1, -100], 4.0: [0, -100]}
    path.write_text("sequence,label,u\n0,1,5\n1,1,6\n0,1,7\n")
    with pytest.raises(ValueError, match="must follow one another"):
        arrays(path)
    path.write_text("label,u\n1,5\n")
    with pytest.raises(ValueError, match="none named sequence"):
        arrays(path)


def table(path, label, rows=12, steps=3):
    """A row a step, with the label that ``label`` gives for a row and a step."""
    lines = [f"s{row},{label(row, step)},{row + step}" for row in range(rows) for step in range(steps - row % 2)]
    path.write_text("\n".join(["sequence,label,u", *lines]))
    return path


def test_decimals_that_recur_are_names_of_classes_and_others_are_for_regression(tmp_path):
    path = table(tmp_path / "a.csv", lambda row, step: "0.5" if row % 2 else "1.50")
    data = arrays(path, batch_size=2)
    assert data.class_names == ("0.5", "1.50")
    assert set(data.train_set.rows.y) == {0, 1}
    again = arrays(path, batch_size=2, classes=["0.5", "1.50"])  # as a run keeps them
    np.testing.assert_array_equal(again.train_set.rows.y, data.train_set.rows.y)
    inputs = data.interface.inputs
    np.testing.assert_array_equal(data.interface.numbers(read_sequences(path, inputs).labels), [1, 0] * 6)
    numbers = arrays(path, batch_size=2, targets="numbers")
    assert set(numbers.train_set.rows.y.ravel()) == {0.5, 1.5}
    asked = numbers.interface.asked(read_sequences(path, inputs).labels, np.zeros((12, 3, 1)), None)
    assert asked.ravel().tolist() == [1.5, 0.5] * 6
    steps = table(tmp_path / "b.csv", lambda row, step: (0.5, 1.5)[(row + step) % 2])
    assert arrays(steps, batch_size=2).class_names == ("0.5", "1.5")
    behind = arrays(steps, batch_size=2, targets="numbers").train_set.rows
    assert (np.isnan(behind.y[..., 0]) == (np.arange(3) >= behind.lengths[:, None])).all()
    few = table(tmp_path / "c.csv", lambda row, step: row % 7 + 0.5)
    with pytest.raises(ValueError, match="got 7 different decimals in 12 labels; numbers are for task=regression"):
        arrays(few, batch_size=2)
    assert arrays(table(few, lambda row, step: row % 6 + 0.5), batch_size=2).d_output == 6


def test_whole_numbers_beside_decimals_are_refused_with_both_kinds(tmp_path):
    path = npz(tmp_path / "a.npz", x=X, y=Y, x_test=X[:4], y_test=Y[:4].astype(float))
    with pytest.raises(ValueError, match="y for training holds int64 and y for testing float64; whole numbers are cla"):
        arrays(path, batch_size=4)


def test_a_table_with_a_row_a_sequence(tmp_path):
    """The form of the UCR archive: the label first."""
    rows = np.concatenate([Y[:, None], X[:, :, 0]], 1)
    np.savetxt(tmp_path / "ucr.csv", rows, delimiter=",", fmt="%.6f")
    data = arrays(tmp_path / "ucr.csv", batch_size=4, test_path=tmp_path / "ucr.csv")
    assert data.class_names is None
    np.testing.assert_array_equal(data.test_set.rows.y, Y)
    np.testing.assert_allclose(data.test_set.rows.x[:, :, 0], X[:, :, 0], atol=1e-5)


def test_a_table_as_a_data_frame_is_written(tmp_path):
    """Columns with names, a row a sequence, and the label among them."""
    path = tmp_path / "frame.csv"
    steps = X[:, np.arange(27) % 9, 0]
    names = [*(f"v{step}" for step in range(27)), "label"]
    lines = [",".join([*(f"{v:.6f}" for v in row), f"class{label}"]) for row, label in zip(steps, Y, strict=True)]
    path.write_text("\n".join([",".join(names), *lines]))
    data = arrays(path, batch_size=4, test_path=path)
    assert data.class_names == ("class0", "class1", "class2", "class3")
    np.testing.assert_array_equal(data.test_set.rows.y, Y)
    np.testing.assert_allclose(data.test_set.rows.x[:, :, 0], steps, atol=1e-5)
    asked = read_sequences(path, Numbers(), 1)
    np.testing.assert_allclose(asked.x[:, :, 0], steps, atol=1e-5)
    assert list(asked.labels) == [f"class{label}" for label in Y]
    path.write_text("a,label\n0.5,1\n0.25,0\n")
    with pytest.raises(ValueError, match="1 columns beside label and none named sequence; a row a step needs one"):
        arrays(path, batch_size=4)


def clips(folder, rate=8000, part=""):
    for label, tone in (("high", 0.9), ("low", 0.2)):
        for number in range(8):
            samples = DRAW.integers(300, 600)
            sound = 0.3 * np.sin(tone * np.arange(samples)) + DRAW.normal(0, 0.01, samples)
            path = folder / part / label / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, sound, rate, subtype="PCM_16")
    return folder


def test_a_folder_of_recordings(tmp_path):
    data = arrays(clips(tmp_path), batch_size=2, test_fraction=0.25)
    assert data.class_names == ("high", "low")
    assert data.inputs.hertz == 8000
    batch = next(iter(data.train_dataloader()))
    assert batch.lengths is not None
    real = torch.cat([row[:n] for row, n in zip(batch.x, batch.lengths, strict=True)])
    assert float(real.square().mean()) == pytest.approx(1, rel=0.1)  # of its root mean square
    data.interface.write(tmp_path)
    assert Interface.read(tmp_path) == data.interface
    first = soundfile.read(tmp_path / "low" / "0.wav", dtype="int16")[0]
    lengths = data.inputs.rows(first, 1)[1]
    assert lengths.tolist() == [min(len(first), data.length)]
    again = arrays(tmp_path, batch_size=2, test_fraction=0.25, **{k: data.fitted[k] for k in ("samples", "scaling")})
    assert again.inputs == data.inputs
    slow = arrays(tmp_path, batch_size=2, hertz=4000)
    assert slow.length < 0.6 * data.length
    with pytest.raises(ValueError, match="samples is for folders of sound"):
        arrays(npz(tmp_path / "a.npz", x=X, y=Y), samples=5)


def test_folders_train_and_test(tmp_path):
    clips(clips(tmp_path, part="train"), part="test")
    data = arrays(tmp_path, batch_size=2)
    assert (len(data.train_set.rows.x), len(data.test_set.rows.x)) == (16, 16)
    assert "the folder test" in data.facts()["split"]
    only = arrays(tmp_path, batch_size=2, test_only=True)
    np.testing.assert_array_equal(only.test_set.rows.y, data.test_set.rows.y)


def test_one_line_says_what_the_data_are(tmp_path):
    x = np.concatenate([np.full((30, 5, 2), -2.0), np.full((10, 5, 2), 4.0)])
    path = npz(tmp_path / "a.npz", x=x, y=np.repeat([0, 1], [30, 10]), x_test=x, y_test=np.repeat([0, 1], [30, 10]))
    said = described(arrays(path, batch_size=4, val_fraction=0.1))
    assert "36 training rows of 5 steps x 2 channels" in said
    assert "the network reads -2 to 4" in said
    assert "2 classes: 0 7" in said
    assert "at 8000 Hz, " in described(arrays(clips(tmp_path / "c"), batch_size=2))
