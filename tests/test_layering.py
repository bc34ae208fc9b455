"""Imports point down and never up, and `import sdn` needs no extra."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each may import from itself and from what stands to its left.
LAYERS = [
    "shortage", "files", "logs", "lock", "signals", "events", "interrupts", "bar", "seals", "tensor_files", "weights",
    "resume", "tracing", "finite", "runs", "words", "arguments", "axes", "spike", "dynamics", "kernels", "scan",
    "resonate", "surrogate", "solvers", "recurrent", "neuron", "door",
]  # fmt: skip
EXTRAS = ["lightning", "loguru", "hydra", "matplotlib", "torchmetrics", "tensorboard", "omegaconf", "rich", "sklearn"]


def imports_of(path, package):
    """(name, whether at the top of the module) of everything that a file imports; relative names made absolute."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, node in tree.body) for name in names)


def modules(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, ".".join(path.relative_to(ROOT).parent.parts)


SOURCES = [pytest.param(p, pkg, id=str(p.relative_to(ROOT))) for p, pkg in modules("sdn")]


@pytest.mark.parametrize(("path", "package"), SOURCES)
def test_imports_point_down(path, package):
    parts = path.relative_to(ROOT / "sdn").with_suffix("").parts
    for name, at_top in imports_of(path, package):
        root, *rest = name.split(".")
        assert root != "spikingssm", f"{path}: sdn never imports spikingssm ({name})"
        if root != "sdn" or parts == ("__init__",):
            continue
        if not rest:
            assert not at_top, f"{path}: `import sdn` at the top is a circle"
            continue
        assert parts[0] in LAYERS, f"{path}: give {parts[0]!r} its place in LAYERS"
        assert rest[0] in LAYERS, f"{path}: imports {name}, which has no place in LAYERS"
        allowed = LAYERS[: LAYERS.index(parts[0]) + (len(parts) > 1)]
        assert rest[0] in allowed, f"{path}: {name} lies above it"


def test_the_reader_of_imports_sees_every_form(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\ndef h():\n    import i\n")
    found = list(imports_of(file, "sdn.solvers"))
    assert found == [
        ("a.b", True), ("c.d", True), ("sdn.solvers.e", True), ("sdn.f.g", True), ("i", False)
    ]  # fmt: skip


def test_import_sdn_needs_no_extra():
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            tried.append(name)
            raise ModuleNotFoundError(name)
tried = []
sys.meta_path.insert(0, Refuse())
import sdn, torch
assert sdn.Neuron(sdn.LIF(), 2)(torch.ones(1, 3, 2))[0].sum() == 6
print(sorted(tried))
try:
    sdn.fit
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    tried, lazy = done.stdout.strip().splitlines()
    assert tried == "[]", "import sdn tried to import an extra"
    assert "sdn.fit needs the package" in lazy
    assert "sdn-spikingssm[train]" in lazy


def test_import_sdn_brings_no_extra_along():
    import sdn

    later = ["spikingssm", *(f"sdn.surrogate.{module}" for module in sorted(set(sdn._LATER.values())))]
    code = f"import sys, sdn; print(sorted(set({[*EXTRAS, *later]!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists():
    import sdn

    assert len(sdn.__all__) == len(set(sdn.__all__))
    eager = set(sdn.__all__) - set(sdn._LATER)
    assert eager <= set(vars(sdn)), f"missing: {eager - set(vars(sdn))}"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sdn.nonsense
    pytest.importorskip("lightning")
    assert all(getattr(sdn, name) is not None for name in sdn.__all__)


@pytest.mark.parametrize("name", ["sdn", "spikingssm"])
def test_completion_shows_what_there_is(name):
    package = importlib.import_module(name)
    importlib.import_module("spikingssm.__main__")  # is an attribute of the package from then on
    shown = dir(package)
    assert set(package.__all__) <= set(shown)
    assert not {"Any", "TYPE_CHECKING", "importlib", "sys", "annotations"} & set(shown)
    assert not [word for word in shown if word.startswith("_") and word != "__version__"]
    for word in shown:
        assert getattr(package, word) is not None
    with pytest.raises(AttributeError, match="no attribute 'LIFF'") as raised:
        _ = package.LIFF
    assert (raised.value.name, raised.value.obj) == ("LIFF", package)  # from which Python makes "Did you mean"


def test_completion_leaves_out_what_cannot_be_imported(monkeypatch):
    import sdn

    monkeypatch.setattr(sdn.importlib.util, "find_spec", lambda name: None)
    assert not {"fit", "History", "load_sdn"} & set(dir(sdn))
    assert "LIF" in dir(sdn)


@pytest.mark.parametrize(
    ("name", "ours"), [("Leaky", "LIF(decay=0.9)"), ("LIFNode", "LIF.from_tau(2.0)"), ("ATan", "sdn.ArcTan()")]
)
def test_names_of_other_libraries_are_known(name, ours):
    import sdn

    with pytest.raises(AttributeError, match=f"no attribute '{name}'; write .*{re.escape(ours)}"):
        getattr(sdn, name)


def test_spike_gradients_are_not_looked_for_among_surrogate_networks():
    import sdn

    with pytest.raises(AttributeError, match=r"'sdn\.surrogate' has no attribute 'ATan'; .* such as sdn\.ArcTan\(\)"):
        _ = sdn.surrogate.ATan
    assert not hasattr(sdn.surrogate, "nonsense")
