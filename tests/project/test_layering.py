"""Imports point down and never up, file by file, and `import sdn` needs no extra."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {
    "sdn": [
        "early", "checks", "runs", "gradients", "dynamics", "compiler", "ops", "surrogate", "solvers", "neuron",
        "sequential", "plot", "scoring", "recordings", "migration", "doctor", "commands", "__main__",
    ],
    "spikingssm": [
        "processes", "datasets", "layers", "streaming", "models", "tasks", "measures", "training", "experiments",
        "published", "export", "reports", "studies", "commands", "__main__",
    ],
}  # fmt: skip
"""Folders and single files of each package: one may import from itself and from what stands before it."""
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


def graph():
    """Every file of both packages and the files that it imports, at its top or later."""
    files = {}
    for root in ROOMS:
        for path, package in modules(root):
            files[package if path.stem == "__init__" else f"{package}.{path.stem}"] = path, package
    edges = {}
    for name, (path, package) in files.items():
        found = {nearest(target, files) for target, _ in imports_of(path, package)}
        if "kernels(" in path.read_text() and path.stem == "operator":  # which are imported by their names
            found |= {f"{package}.{backend}" for backend in ("cpu", "gpu")}
        edges[name] = {other for other in found if other and other != name and not name.startswith(f"{other}.")}
    return edges


def nearest(target, files):
    """The file that a name stands in, or None for what is not ours."""
    while target and target not in files:
        target = target.rpartition(".")[0]
    return target


def circle(edges):
    """Files that import each other in a ring, or nothing."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        path.append(name)
        rings = (visit(other) for other in sorted(edges[name]))
        ring = next((ring for ring in rings if ring), None)
        path.pop()
        done.add(name)
        return ring

    return next((ring for name in edges if (ring := visit(name))), None)


def test_no_file_imports_itself_by_way_of_others():
    edges = graph()
    assert len(edges) > 150
    assert circle(edges) is None


def test_a_circle_is_found():
    edges = graph()
    assert "sdn.ops.scan.cpu" in edges["sdn.ops.scan.operator"]
    edges["sdn.ops.scan.cpu"].add("sdn.ops.scan.operator")
    assert circle(edges) == ["sdn.ops.scan.operator", "sdn.ops.scan.cpu", "sdn.ops.scan.operator"]


def test_rooms_point_down():
    for name, targets in graph().items():
        root, *rest = name.split(".")
        for target in targets:
            other, *place = target.split(".")
            if other != root:
                assert root == "spikingssm", f"{name}: sdn never imports spikingssm ({target})"
                continue
            if not rest or not place:
                continue
            rooms = ROOMS[root]
            assert rest[0] in rooms, f"{name}: give {rest[0]!r} its place in ROOMS"
            assert rooms.index(place[0]) <= rooms.index(rest[0]), f"{name}: {target} lies above it"


def test_no_file_imports_its_own_package_from_above():
    for path, package in modules("sdn"):
        for name, at_top in imports_of(path, package):
            assert not (at_top and name == "sdn"), f"{path}: `import sdn` at the top is a circle"


def test_the_reader_of_imports_sees_every_form(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\ndef h():\n    import i\n")
    found = list(imports_of(file, "sdn.solvers"))
    assert found == [
        ("a.b", True), ("c.d", True), ("sdn.solvers.e", True), ("sdn.f.g", True), ("i", False)
    ]  # fmt: skip


def test_no_public_name_hides_a_module():
    import sdn

    for name in ("gradients", "neuron"):
        assert getattr(sdn, name).__name__ == f"sdn.{name}"
    places = {path.stem for path in (ROOT / "sdn").iterdir()}
    assert not places & set(sdn.__all__)


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


@pytest.mark.parametrize("name", ["sdn", "spikingssm"])
def test_an_import_leaves_the_compilers_out(name):
    """numba takes a second to import; the kernels bring it in when the first of them runs."""
    code = f"import sys, {name}; print([x for x in ('numba', 'llvmlite', 'triton', 'scipy') if x in sys.modules])"
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


def test_pictures_are_there_without_an_import_and_matplotlib_comes_with_the_first():
    code = """
import sys, sdn
assert "plot" in dir(sdn) and "sdn.plot" not in sys.modules
assert sdn.plot is sys.modules["sdn.plot"] and "matplotlib" not in sys.modules
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
try:
    sdn.plot.membrane([0.0, 1.0])
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "sdn.plot needs the package matplotlib; install the extra `train`" in done.stdout


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
