"""The published network is read out of its archive number by number, and nothing in an archive is ever run."""

import dataclasses
import hashlib
import io
import os
import pickle
import pickletools
import struct
import warnings
import zipfile

import pytest
import torch
from torch import nn

import sdn
from sdn.surrogate.artifact import shipped_artifacts
from sdn.surrogate.published import import_published, of_published, read_published
from sdn.surrogate.torchscript import LARGEST, LARGEST_PICKLE, MOST_MEMBERS, named_tensors

PUBLISHED = "mem_pred_d8k8_c3(relu(c2(c1(x))+c1(x)))_125.pkl"
OURS = {"conv1": "spatial.0", "conv2": "feature.0", "conv3": "decoder"}


class PredModel(nn.Module):
    """The published module, written down from its name: c3(relu(c2(c1(x)) + c1(x))), c1 with its ReLU."""

    def __init__(self, channels=8, taps=8):
        super().__init__()
        self.conv1 = nn.Conv1d(1, channels, taps, padding=taps)
        self.conv2 = nn.Conv1d(channels, channels, 1)
        self.conv3 = nn.Conv1d(channels, 1, 1)
        self.relu = nn.ReLU()

    def forward(self, x):
        c1 = self.relu(self.conv1(x))
        return self.conv3(self.relu(self.conv2(c1) + c1))[..., : x.shape[-1]]


def traced(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch call tracing deprecated
        return torch.jit.trace(module, torch.randn(2, 1, 32).to(next(module.parameters()).dtype))


def archive_of(module):
    return traced(module).save_to_buffer()


def members(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files, method=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def changed(content, **files):
    """The archive with other members; ``data_pkl`` is data.pkl, and None takes it away."""
    named = {"archive/" + name.replace("_", ".").replace("..", "/"): value for name, value in files.items()}
    return zipped({k: v for k, v in {**members(content), **named}.items() if v is not None})


def sent(tmp_path, content, name=PUBLISHED):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.fixture
def module():
    return PredModel()


@pytest.fixture
def content(module):
    return archive_of(module)


@pytest.mark.parametrize(("channels", "taps"), [(8, 8), (4, 5), (1, 1), (16, 3)])
def test_the_numbers_and_the_function_are_those_of_the_archive(tmp_path, channels, taps):
    module = PredModel(channels, taps)
    traced(module).save(str(tmp_path / PUBLISHED))
    network = read_published(tmp_path / PUBLISHED)
    assert (network.d_model, network.kernel_size, network.n_layers) == (channels, taps, 1)
    theirs, ours = module.state_dict(), network.state_dict()
    assert len(ours) == len(theirs) == 6
    for name, value in theirs.items():
        part, kind = name.split(".")
        assert torch.equal(ours[f"{OURS[part]}.{kind}"], value), name
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    loaded = torch.jit.load(str(tmp_path / PUBLISHED))
    for length in (1, 7, 50):
        x = torch.randn(3, length)
        with torch.no_grad():
            expected = loaded(x.unsqueeze(1)).squeeze(1)
        assert expected.shape == (3, length)
        assert torch.allclose(network(x), expected, atol=1e-6)


def test_the_published_sizes_have_153_numbers(tmp_path, content):
    assert sum(p.numel() for p in read_published(sent(tmp_path, content)).parameters()) == 153


def extra_files(module, path):
    traced(module).save(str(path), _extra_files={"note.txt": "x", "data.pkl": "y"})


def shared(module, path):
    """All parameters in one storage, each at an offset of its own, one of them transposed."""
    flat, at = torch.randn(200), 0
    for p in module.parameters():
        p.data, at = flat[at : at + p.numel()].view_as(p), at + p.numel()
    module.conv2.weight.data = module.conv2.weight.data.transpose(0, 1)
    traced(module).save(str(path))


WAYS = {
    "trace": lambda module, path: traced(module).save(str(path)),
    "buffer": lambda module, path: path.write_bytes(archive_of(module)),
    "script": lambda module, path: torch.jit.script(module).save(str(path)),
    "mobile": lambda module, path: traced(module)._save_for_lite_interpreter(str(path)),
    "extra files": extra_files,
    "one storage": shared,
    "no gradient": lambda module, path: traced(module.requires_grad_(False)).save(str(path)),
    "zipped again": lambda module, path: path.write_bytes(zipped(members(archive_of(module)), zipfile.ZIP_DEFLATED)),
    "no byteorder": lambda module, path: path.write_bytes(changed(archive_of(module), byteorder=None)),
    "another device": lambda module, path: path.write_bytes(elsewhere(archive_of(module))),
    "big endian": lambda module, path: path.write_bytes(swapped(archive_of(module))),
}


def elsewhere(content):
    pickled = members(content)["archive/data.pkl"]
    assert pickled.count(b"\3\0\0\0cpu") == 1
    return changed(content, data_pkl=pickled.replace(b"\3\0\0\0cpu", b"\6\0\0\0cuda:0"))


def swapped(content):
    files = members(content)
    for name in [n for n in files if n.startswith("archive/data/")]:
        count = len(files[name]) // 4
        files[name] = struct.pack(f">{count}f", *struct.unpack(f"<{count}f", files[name]))
    return zipped({**files, "archive/byteorder": b"big"})


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_saving_is_read(tmp_path, module, way):
    path = tmp_path / PUBLISHED
    WAYS[way](module, path)
    found = named_tensors(path.read_bytes())
    assert [*found] == [*module.state_dict()]
    assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())
    assert torch.equal(read_published(path).feature[0].weight, module.conv2.weight)


def test_other_modules_are_read_by_their_names_too():
    module = nn.Sequential(nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3)), nn.Linear(3, 2, bias=False)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = torch.jit.trace(module, torch.randn(2, 1)).save_to_buffer()
    found = named_tensors(content)
    assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())
    assert len(found) == 8


def test_no_reader_that_could_run_something_is_called(tmp_path, content, monkeypatch):
    def never(*_, **__):
        raise AssertionError("called")

    for owner, name in (
        (torch.jit, "load"), (torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"),
        (torch._C, "import_ir_module"), (torch._C, "import_ir_module_from_buffer"), (zipfile.ZipFile, "extract"),
        (zipfile.ZipFile, "extractall"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, never)
    assert read_published(sent(tmp_path, content)).d_model == 8


class Evil:
    """Makes a file when a pickle of it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def inst(path):
    return b"(X" + struct.pack("<I", len(str(path))) + str(path).encode() + b"ios\nmkdir\n."


def in_a_module(path):
    """Hidden in the state of a module that is otherwise as TorchScript writes it."""
    evil = pickle.dumps(Evil(path), 2)[2:-1]
    return b"\x80\x02c__torch__\nPredModel\nq\x00)\x81}(X\x05\0\0\0conv1" + evil.replace(b"q\x00", b"q\x63") + b"ub."


ATTACKS = {f"protocol {n}": lambda path, n=n: pickle.dumps(Evil(path), n) for n in range(2, 6)} | {
    "protocol 0": lambda path: pickle.dumps(Evil(path), 0), "INST": inst, "in a module": in_a_module,
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path, content, attack):
    made = tmp_path / "made"
    pickled = ATTACKS[attack](made)
    if attack != "in a module":  # which needs classes that do not exist
        pickle.loads(pickled)
        assert made.is_dir(), "the attack itself does not work"
        made.rmdir()
    path = sent(tmp_path, changed(content, data_pkl=pickled))
    with pytest.raises(ValueError, match=r"_125\.pkl: (asks for|has a pickle with the instruction|has a damaged)"):
        read_published(path)
    assert not made.exists()
    with pytest.raises(ValueError, match=r"_125\.pkl: is (a plain pickle|no zip archive).*torch\.jit\.save"):
        read_published(sent(tmp_path, pickled))
    assert not made.exists()


def test_the_attack_in_a_module_is_named(tmp_path, content):
    path = sent(tmp_path, changed(content, data_pkl=in_a_module(tmp_path / "made")))
    with pytest.raises(ValueError, match=r"asks for 'posix\.mkdir', which no network needs; nothing was run"):
        read_published(path)


SAFE = b"\x80\x02c__torch__\nPredModel\n)\x81"
BUILDS = {
    "state of a name": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",
    "slots": SAFE + b"N}\x86b.",
    "a class with arguments": b"\x80\x02c__torch__\nPredModel\nK\x01\x85\x81.",
    "a class called": b"\x80\x02c__torch__\nPredModel\n)R.",
    "an importable class": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "a tensor of text": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(X\x01\0\0\0aK\0)))tR.",
    "nothing on the stack": b"\x80\x02b.",
    "no mark": b"\x80\x02}u.",
    "two values": b"\x80\x02NN.",
    "an unknown memo": b"\x80\x02h\x05.",
    "numbers as names": SAFE + b"}(K\x01K\x02ub.",
    "an extension": b"\x80\x02\x82\x01.",
    "a huge string": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a huge memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a plain value": b"\x80\x02N.",
    "no end": b"\x80\x02N",
    "nothing": b"",
}


@pytest.mark.parametrize("case", BUILDS)
def test_pickles_that_torchscript_never_writes_are_refused(content, case):
    with pytest.raises(ValueError, match=r"^(has a damaged data\.pkl|asks for|has a pickle with the instruction)"):
        named_tensors(changed(content, data_pkl=BUILDS[case]))


def word(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def a_module_in_itself():
    return SAFE + b"q\x01}(" + word("a") + b"h\x01ub."


def a_bomb_of_modules():
    """Each module holds the one before it thirty times: 30^20 names in 5 kB."""
    inside = b""
    for i in range(1, 21):
        held = b"".join(word(str(k)) + b"h%c" % (i - 1) for k in range(30)) if i > 1 else b""
        inside += word(f"m{i}") + b"c__torch__\nM\n)\x81q%c}(" % i + held + b"ub"
    return SAFE + b"}(" + inside + b"ub."


@pytest.mark.parametrize("bomb_of", [a_module_in_itself, a_bomb_of_modules])
def test_modules_that_hold_each_other_over_and_over_end(content, bomb_of):
    with pytest.raises(ValueError, match=r"has over \d+ values or 60 modules inside each other"):
        named_tensors(changed(content, data_pkl=bomb_of()))


def with_tensor(content, old, new):
    """The archive with other bytes in its data.pkl, there exactly once or more."""
    pickled = members(content)["archive/data.pkl"]
    assert old in pickled
    return changed(content, data_pkl=pickled.replace(old, new, 1))


def bomb(size):
    """A few kB that unpack to many."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as member:
        for _ in range(size // 2**20 + 1):
            member.write(bytes(2**20))
    return out.getvalue()


def twice(content):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile itself says that a name is there already
        out = io.BytesIO(content)
        with zipfile.ZipFile(out, "a") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02N.")
    return out.getvalue()


def saved(value, **options):
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def encrypted(content):
    """The archive with the flag of encryption on its data.pkl."""
    at = content.index(b"archive/data.pkl", content.index(b"PK\1\2")) - 46
    return content[: at + 8] + b"\1" + content[at + 9 :]


REFUSED = {
    "a plain pickle": (lambda c: pickle.dumps({"conv1.weight": [1.0]}), r"is a plain pickle, which can run code"),
    "an old file of torch.save": (
        lambda c: saved(PredModel().state_dict(), _use_new_zipfile_serialization=False), r"is a plain pickle",
    ),
    "a state dict": (lambda c: saved(PredModel().state_dict()), r"is a file of torch\.save, .*weights_only=True"),
    "a whole module": (lambda c: saved(nn.Linear(1, 1)), r"is a file of torch\.save, not TorchScript"),
    "nothing": (lambda c: b"", r"is no zip archive"),
    "text": (lambda c: b"hello", r"is no zip archive"),
    "half": (lambda c: c[: len(c) // 2], r"damaged or cut off \(File is not a zip file\); get the file again"),
    "a changed number": (lambda c: c.replace(members(c)["archive/data/0"], bytes(256)), r"damaged .*Bad CRC-32"),
    "encrypted": (encrypted, r"damaged or cut off \(.*encrypted"),
    "another zip": (lambda c: zipped({"a/b.txt": b"x"}), r"with 0 data\.pkl in its folders, TorchScript has one"),
    "two folders": (lambda c: zipped({"a/data.pkl": b"", "b/data.pkl": b""}), r"with 2 data\.pkl"),
    "old TorchScript": (lambda c: zipped({"a/model.json": b"{}"}), r"of a torch before 1\.4.*torch\.jit\.save"),
    "a name twice": (twice, r"has \d+ members of \d+ names, at most 4096 are read, of different"),
    "many members": (lambda c: zipped({str(i): b"" for i in range(MOST_MEMBERS + 1)}), r"has 4097 .* at most 4096"),
    "a way out": (lambda c: zipped({**members(c), "a/../../x": b""}), r"'a/\.\./\.\./x', which points out of"),
    "an absolute name": (lambda c: zipped({**members(c), "/etc/x": b""}), r"'/etc/x', which points out of"),
    "a name of Windows": (lambda c: zipped({**members(c), "a\\..\\..\\x": b""}), r"which points out of the archive"),
    "a drive": (lambda c: zipped({**members(c), "C:/x": b""}), r"'C:/x', which points out of the archive"),
    "a bomb": (lambda c: bomb(LARGEST), rf"has \d+ bytes when unpacked, at most {LARGEST} are read"),
    "a large pickle": (
        lambda c: changed(c, data_pkl=bytes(LARGEST_PICKLE + 1)), rf"data\.pkl of {LARGEST_PICKLE + 1} bytes, at most",
    ),
    "packed otherwise": (lambda c: zipped(members(c), zipfile.ZIP_BZIP2), r"by the methods \[12\], 0 and 8 are read"),
    "a missing storage": (lambda c: changed(c, data__0=None), r"has no member data/0 for conv1\.weight; get the file"),
    "a short storage": (lambda c: changed(c, data__1=bytes(28)), r"conv1\.bias as \(8,\) out of 8 .* are 28 bytes"),
    "a long storage": (lambda c: changed(c, data__1=bytes(36)), r"conv1\.bias as \(8,\) out of 8 .* are 36 bytes"),
    "a view beyond it": (
        lambda c: with_tensor(c, b"K\0(K\x08t", b"K\1(K\x08t"), r"conv1\.bias as \(8,\) out of 8 numbers of 4 bytes",
    ),
    "doubles": (lambda c: archive_of(PredModel().double()), r"conv1\.weight holds torch\.float64, .*; cast"),
    "another kind": (
        lambda c: with_tensor(c, b"FloatStorage", b"ComplexFloatStorage"),
        r"holds conv\d\.\w+ as 'ComplexFloatStorage', known are \[.*cast it with",
    ),
    "frozen": (lambda c: torch.jit.freeze(traced(PredModel().eval())).save_to_buffer(), r"holds no tensors with names"),
    "another network": (lambda c: archive_of(nn.Conv1d(1, 2, 3)), r"holds bias, weight; .* has conv1"),
    "no bias": (
        lambda c: archive_of(with_parts(conv2=nn.Conv1d(8, 8, 1, bias=False))), r"holds conv1\.bias, .*; the",
    ),
    "a norm more": (
        lambda c: archive_of(with_parts(conv2=nn.Sequential(nn.Conv1d(8, 8, 1)))), r"holds .*conv2\.0\.weight.*conv2",
    ),
    "a wide second kernel": (
        lambda c: archive_of(with_parts(conv2=nn.Conv1d(8, 8, 3, padding=1))),
        r"conv2\.weight has the shape \(8, 8, 3\), beside this conv1\.weight it must have \(8, 8, 1\)",
    ),
    "two outputs": (
        lambda c: archive_of(with_parts(conv3=nn.Conv1d(8, 2, 1))),
        r"conv3\.weight has the shape \(2, 8, 1\), beside this conv1\.weight it must have \(1, 8, 1\)",
    ),
    "NaN": (lambda c: archive_of(not_finite()), r"conv2\.bias is NaN or infinite in 2 of 8 places; get the file again"),
}  # fmt: skip


def with_parts(**parts):
    module = PredModel()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


def not_finite():
    module = PredModel()
    module.conv2.bias.data[:2] = torch.tensor([float("nan"), float("inf")])
    return module


@pytest.mark.filterwarnings("ignore:.*deprecated.*", "ignore:.*Trace had nondeterministic.*", "ignore:.*Tracer.*")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_and_why(tmp_path, content, case):
    make, reason = REFUSED[case]
    with pytest.raises(ValueError, match=r"_125\.pkl: .*" + reason) as found:
        read_published(sent(tmp_path, make(content)))
    assert str(found.value).endswith(".")
    assert "\n" not in str(found.value)
    assert sorted(tmp_path.iterdir()) == [tmp_path / PUBLISHED]


def test_tensors_that_show_one_storage_over_and_over_are_refused(content):
    """A few bytes must not become many: 8 million numbers, each tensor a view of all of them."""
    count = 2**21
    size = b"J" + struct.pack("<i", count)
    storage = b"(" + word("storage") + b"ctorch\nFloatStorage\n" + word("z") + word("cpu") + size + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0(" + size + b"t(K\1ttR"
    pickled = SAFE + b"}(" + b"".join(word(f"t{k}") + tensor for k in range(10)) + b"ub."
    files = {**members(content), "archive/data.pkl": pickled, "archive/data/z": bytes(4 * count)}
    with pytest.raises(ValueError, match=rf"announces tensors of {80 * count} bytes, at most {LARGEST} are read"):
        named_tensors(zipped(files, zipfile.ZIP_DEFLATED))


def test_a_file_that_is_not_there_or_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.pkl: no such file; give the archive"):
        read_published(tmp_path / "x.pkl")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe or a device"):
        read_published(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ValueError, match=rf"has {LARGEST + 1} bytes, at most {LARGEST} are read"):
        read_published(tmp_path / "large")


def test_damage_anywhere_is_a_value_error(content):
    """1,500 archives with bytes changed in the zip or in the pickle, or cut off."""
    generator = torch.Generator().manual_seed(5)

    def draw(n):
        return int(torch.randint(n, (), generator=generator))

    whole = members(content)
    refused = 0
    for i in range(1500):
        damaged = bytearray(content if i % 2 else whole["archive/data.pkl"])
        for _ in range(1 + draw(4)):
            damaged[draw(len(damaged))] = draw(256)
        damaged = bytes(damaged[: draw(len(damaged))] if draw(8) == 0 else damaged)
        try:
            named_tensors(damaged if i % 2 else zipped({**whole, "archive/data.pkl": damaged}))
        except ValueError:
            refused += 1
    assert 700 < refused < 1500


def test_of_published_takes_the_tensors_of_a_state_dict(tmp_path, module):
    torch.save(module.state_dict(), tmp_path / "x.pt")
    network = of_published(torch.load(tmp_path / "x.pt", weights_only=True))
    before = network.decoder.weight.clone()
    assert torch.equal(before, module.conv3.weight)
    module.conv3.weight.data.zero_()
    assert torch.equal(network.decoder.weight, before)
    with pytest.raises(ValueError, match=r"conv1\.weight has the shape \(8, 2, 8\), expected \(C, 1, K\)"):
        of_published({**module.state_dict(), "conv1.weight": torch.zeros(8, 2, 8)})


@pytest.fixture(scope="module")
def shipped():
    return next(a for a in map(sdn.load_artifact, shipped_artifacts()) if a.dynamics == sdn.LIF(0.125))


@pytest.fixture
def archive(tmp_path, shipped):
    """The network that we ship, as the published one was saved."""
    module = PredModel()
    ours = shipped.network.state_dict()
    module.load_state_dict({name: ours[f"{OURS[name[:5]]}{name[5:]}"] for name in module.state_dict()})
    return sent(tmp_path, archive_of(module))


def test_import_makes_an_artifact_that_says_where_it_came_from(tmp_path, archive, shipped):
    out = tmp_path / "published.safetensors"
    artifact = import_published(archive, out, samples=300, length=512)
    assert artifact == sdn.load_artifact(out)
    assert artifact.weights == shipped.weights
    assert artifact.dynamics == sdn.LIF(0.125)
    facts, content = artifact.facts, archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert facts["imported"] == {"file": PUBLISHED, "bytes": len(content), "sha256": digest}
    assert facts["distribution"] == {"family": "normal", "mean": 0.0, "std": 1.0}
    fresh = sdn.generate(sdn.LIF(0.125), 300, 512, seed=facts["seeds"]["test"])
    assert facts["metrics"]["test"] == dataclasses.asdict(sdn.evaluate(shipped.network, fresh, sdn.LIF(0.125)))
    assert facts["metrics"]["test"]["agreement"] > 0.9998
    neuron = sdn.Neuron(sdn.LIF(0.125), 3, solver=sdn.Surrogate(artifact))
    assert neuron(torch.randn(2, 20, 3))[0].shape == (2, 20, 3)


def test_import_refuses_what_stands_for_another_neuron_or_would_replace_its_source(tmp_path, archive, content):
    before = archive.read_bytes()
    with pytest.raises(ValueError, match=r"would replace the archive it is made of; give another `out`"):
        import_published(archive, tmp_path / "." / PUBLISHED)
    assert archive.read_bytes() == before
    out = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match=r"of the steps of LIF\(.*\) right, where mem = 0 gets .* the `dynamics` that"):
        import_published(sent(tmp_path, content, "untrained.pkl"), out, samples=50, length=128)
    assert not out.exists()


def test_the_attacks_are_what_their_names_say(tmp_path):
    codes = {name: {c.name for c, *_ in pickletools.genops(make(tmp_path))} for name, make in ATTACKS.items()}
    assert "INST" in codes["INST"]
    assert "STACK_GLOBAL" in codes["protocol 4"]
    assert {"GLOBAL", "REDUCE", "BUILD"} <= codes["in a module"]
