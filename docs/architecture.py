"""What docs/architecture.md says and shows, made of the code: `python docs/architecture.py` writes it anew.

The rooms and what they import are read from the files, see `tests/project/test_layering.py`. The ways of a current, a
trajectory and a batch are measured: every file of the project that a call visits is written down, in order.
`python docs/architecture.py --check` writes nothing and ends with 1 where page or picture differ from the code.
"""

import argparse
import contextlib
import importlib
import io
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs" / "architecture.md", ROOT / "docs" / "architecture.svg"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "project")]

Graph = dict[str, set[str]]
"""Rooms, such as ``sdn.ops``, and the rooms that each imports; ``sdn`` alone stands for its public names."""

PURPOSE = {
    "spikingssm.__main__": "reads `python -m spikingssm ...` and calls the room that does it",
    "spikingssm.commands": "does what a command asks that is no training: the demo, the studies",
    "spikingssm.export": "writes networks for other programs: ONNX, torch.export, NIR, C, a model hub",
    "spikingssm.published": "reads networks that others have published",
    "spikingssm.studies": "asks one question each of a trained network, such as its robustness",
    "spikingssm.reports": "writes tables, pages and an animation for people",
    "spikingssm.experiments": "makes a run folder of a configuration, and reads one back",
    "spikingssm.training": "trains a network: steps, callbacks, optimisers, resume",
    "spikingssm.tasks": "says what a network is asked for: its loss and its metrics",
    "spikingssm.measures": "counts what a network does: spikes, agreement, operations, energy",
    "spikingssm.streaming": "turns a network into one compiled step for streams",
    "spikingssm.models": "holds whole networks, from features to logits",
    "spikingssm.layers": "holds the parts of networks: state space layers, blocks, heads, encoders",
    "spikingssm.datasets": "gives each data set as one function that returns a `SequenceData`",
    "spikingssm.processes": "lets several processes work on one training",
    "sdn": "is what `import sdn` offers: its public names",
    "sdn.__main__": "reads `python -m sdn ...` and calls the room that does it",
    "sdn.doctor": "says what a machine has, which fast paths it runs, and what is wrong with it",
    "sdn.commands": "does what a command asks: trajectories, checks, warming up, the doctor",
    "sdn.migration": "makes a neuron of another library a dynamics with the same spikes",
    "sdn.recordings": "reads recordings of neurons, fits a known neuron to one, or learns a new one",
    "sdn.scoring": "says how far a surrogate is from the exact neuron",
    "sdn.plot": "draws what neurons do: traces, rasters, rates, phase planes",
    "sdn.sequential": "is for loops of one's own: modules one after another, membranes on record",
    "sdn.neuron": "is the layer: a neuron, a solver, and the parameters that are learned",
    "sdn.solvers": "offers the ways to run a whole sequence: fused, loop, parallel, surrogate",
    "sdn.surrogate": "makes a surrogate network: trajectories, training, reduction, artifact",
    "sdn.ops": "runs compiled loops, one folder an operation, on the CPU and on GPUs",
    "sdn.compiler": "turns the step of a neuron into source code, forward and backward",
    "sdn.dynamics": "says what one neuron does in a step, one file a neuron",
    "sdn.gradients": "holds the spike and the slopes that stand in for its derivative",
    "sdn.runs": "gives a run its files, folders, locks, signals and logs",
    "sdn.early": "answers a signal while torch is still being imported",
    "sdn.checks": "refuses what cannot be right, and says what to write instead",
}
"""What each room is for; the words of the page."""

LEFT_OUT = {
    "sdn/checks/": "looks at what is given, and changes nothing",
    "sdn/ops/common/place.py": "looks at the device, and finds the backend by its name",
    "sdn/ops/common/operator.py": "hands a call to torch, which hands it on",
    "sdn/ops/common/generated_cpu.py": "gives numbers the type of the arrays",
    "sdn/ops/neuron/layout.py": "gives the same memory another shape",
    "sdn/dynamics/fields.py": "gives a field the type of the current",
    "sdn/runs/": "gives files and locks to those that write",
    "spikingssm/layers/maps.py": "looks whether a map has hooks",
    "spikingssm/models/silence.py": "looks whether a network is silent",
}
"""Files that are no stations, and why."""


# ---- rooms and the picture of them
def rooms() -> Graph:
    """Every room of both packages and the rooms that its files import, without the front page of spikingssm."""
    layering = importlib.import_module("test_layering")
    found: Graph = {f"{package}.{room}": set() for package, names in layering.ROOMS.items() for room in names}
    found["sdn"] = set()
    for file, targets in layering.graph().items():
        here = _room(file)
        found.setdefault(here, set()).update({_room(target) for target in targets} - {here})
    found.pop("spikingssm", None)
    return found


def _room(file: str) -> str:
    return ".".join(file.split(".")[:2])


def drawn(graph: Graph) -> Graph:
    """The arrows of the picture: an import that a longer way also reaches is left out."""

    def below(room: str) -> set[str]:
        return {room}.union(*(below(other) for other in graph[room]))

    return {
        room: {to for to in targets if not any(to in below(other) for other in targets - {to})}
        for room, targets in graph.items()
    }


def heights(graph: Graph) -> dict[str, int]:
    """A height for each room, above all rooms that it imports; those of spikingssm lie above all of sdn."""
    found: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in found:
            least = found["sdn"] + 1 if room.startswith("spikingssm") else 0
            found[room] = max([least, *(1 + height(other) for other in sorted(graph[room]))])
        return found[room]

    for room in ["sdn", *sorted(graph)]:
        height(room)
    return found


COLUMNS = {
    "sdn.sequential": 1.0, "sdn.recordings": 2.0, "sdn.migration": 2.0,
    "sdn.runs": -1.0, "spikingssm.processes": -1.0, "spikingssm.reports": -1.0,
    "spikingssm.datasets": 1.0, "spikingssm.tasks": 1.0, "spikingssm.published": 1.0, "sdn.early": 2.0,
}  # fmt: skip
"""Rooms beside the middle of the picture."""
LANES = {
    ("spikingssm.processes", "sdn.runs"): -1.0, ("spikingssm.datasets", "sdn.ops"): 1.0,
    ("spikingssm.__main__", "spikingssm.published"): 1.0, ("spikingssm.measures", "spikingssm.processes"): -1.0,
    ("spikingssm.measures", "spikingssm.datasets"): 0.7,
}  # fmt: skip
"""Arrows that go around the rooms between, in this column."""


def draw(path: Path, graph: Graph) -> None:
    """Write the picture; each arrow has its rooms as its id."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Line

    height = heights(graph)
    with matplotlib.rc_context({"svg.hashsalt": "architecture", "svg.fonttype": "none", "font.family": "sans-serif"}):
        top = max(height.values())
        figure = Figure(figsize=(7.2, 0.52 * (top + 1)))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(-1.6, 2.6), ylim=(-0.6, top + 0.6))
        axes.axis("off")
        for room, level in height.items():
            x, y = COLUMNS.get(room, 0.0), level
            colour = "#dbe9f6" if room.startswith("sdn") else "#fde6cd"
            box = FancyBboxPatch(
                (x - 0.38, y - 0.2), 0.76, 0.4, boxstyle="round,pad=0,rounding_size=0.08", fc=colour, ec="#555555"
            )
            axes.add_patch(box)
            name = "import sdn" if room == "sdn" else room.partition(".")[2]
            axes.text(x, y - 0.02, name, ha="center", va="center", fontsize=10)
        for room, targets in drawn(graph).items():
            for to in sorted(targets):
                start, end = (COLUMNS.get(room, 0.0), height[room] - 0.2), (COLUMNS.get(to, 0.0), height[to] + 0.22)
                lane = LANES.get((room, to))
                points = [start, end]
                if lane is not None:
                    points[1:1] = [(lane, height[room] - 0.9), (lane, height[to] + 0.9)]
                line = Line(points)
                arrow = FancyArrowPatch(
                    path=line, arrowstyle="-|>", mutation_scale=9, color="#555555", lw=0.9, zorder=0
                )
                arrow.set_gid(f"{room}->{to}")
                axes.add_patch(arrow)
        for text, y, colour in (("spikingssm", top, "#b3640a"), ("sdn", height["sdn"], "#28619c")):
            axes.text(-1.55, y, text, ha="left", va="center", fontsize=13, weight="bold", color=colour)
        axes.plot([-1.55, 2.55], [height["sdn"] + 0.5] * 2, ls=":", color="#999999", lw=1)
        figure.savefig(path, format="svg", metadata={"Date": None})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


# ---- ways
class Station(NamedTuple):
    """A file that a call visits, and the functions that run there."""

    file: str
    functions: tuple[str, ...]


def visits(run: Callable[[], object], counted: Callable[[str, str, str], bool] | None = None) -> list[Station]:
    """Every file of the project and every generated one that a call visits, in order.

    Args:
        run: what is called.
        counted: (file, function, file of the caller) -> whether it is a visit; None for all.
    """
    from sdn.compiler.sources import folder

    made, found = str(folder()), []

    def name(file: str) -> str | None:
        if file.startswith(made):
            return "generated: " + re.sub(r"-[0-9a-f]{12}.*", "", Path(file).name)
        ours = file.startswith(f"{ROOT}{os.sep}") and "site-packages" not in file
        return str(Path(file).relative_to(ROOT)) if ours else None

    def seen(frame: object, event: str, _: object) -> None:
        code, back = frame.f_code, frame.f_back  # type: ignore[attr-defined]
        file = name(code.co_filename) if event == "call" and not code.co_name.startswith("<") else None
        caller = name(back.f_code.co_filename) if back else None
        if file is None or (counted and not counted(file, code.co_name, caller or "")):
            return
        if found and found[-1].file == file:
            found[-1] = Station(file, (*found[-1].functions, code.co_name))
        else:
            found.append(Station(file, (code.co_name,)))

    sys.setprofile(seen)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


def stations(every: list[Station]) -> list[Station]:
    """Visits without those of `LEFT_OUT`."""
    found: list[Station] = []
    for station in every:
        if station.file.startswith(tuple(LEFT_OUT)):
            continue
        if found and found[-1].file == station.file:
            found[-1] = Station(station.file, found[-1].functions + station.functions)
        else:
            found.append(station)
    return found


def returns(way: list[Station]) -> int:
    """How many stations lie in a file that was visited before."""
    return len(way) - len({station.file for station in way})


def way_of_a_current(with_gradient: bool = False) -> list[Station]:
    """The second call of ``sdn.Neuron(sdn.LIF(), 4)`` on the CPU."""
    import torch

    import sdn

    neuron = sdn.Neuron(sdn.LIF(), 4)
    x = torch.linspace(-1, 1, 2 * 8 * 4).reshape(2, 8, 4).requires_grad_(with_gradient)
    with torch.set_grad_enabled(with_gradient):
        neuron(x)
        return visits(lambda: neuron(x))


HANDED = ("generate", "save_trajectories", "load_trajectories", "fit", "evaluate", "reduce", "save_artifact")
"""The functions that hand the data of a surrogate on; a user may call them one by one."""


def way_of_a_trajectory() -> list[Station]:
    """`generate.py` and `train.py --save`, by the functions of `HANDED`."""
    import generate
    from sdn.surrogate import command

    hosts = {"generate.py", "sdn/surrogate/command.py"}
    mains = {("main", file) for file in hosts}

    def make(split: str) -> None:
        sys.argv = ["generate.py", "data", "-N", "64", "-T", "64", "-n", split]
        generate.main()

    def run() -> None:
        make("training")
        training, test = sorted(str(path) for path in Path("data").iterdir())[::-1]
        words = ["--training", training, "--test", test, "--epochs", "1", "--steps_per_epoch", "2"]
        command.main(["--save", "exp", "--batch_size", "8", "--members", "1", *words])

    before = sys.argv
    silent = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stderr(silent),
        contextlib.redirect_stdout(silent),
    ):
        make("test")
        found = visits(run, lambda file, name, host: host in hosts if name in HANDED else (name, file) in mains)
    sys.argv = before
    return found


def way_of_a_batch() -> list[Station]:
    """One validation step of a SpikingSSM, from the batch to the update of its metrics."""
    import torch

    from spikingssm import SpikingSSM
    from spikingssm.datasets import Batch
    from spikingssm.tasks import Classification
    from spikingssm.training.module import SequenceModule

    network = SpikingSSM(d_input=1, d_output=10, d_model=8, n_layers=1, solver="fused")
    module = SequenceModule(network, Classification(), classes=10).eval()
    batch = Batch(torch.rand(4, 32, 1), torch.zeros(4, dtype=torch.long))
    with torch.no_grad():
        module.validation_step(batch, 0)
        return visits(
            lambda: module.validation_step(batch, 0),
            lambda file, *_: file.startswith("spikingssm/") or file == "sdn/neuron.py",
        )


# ---- the page
def list_of_rooms(graph: Graph) -> str:
    """Rooms from top to bottom, what each is for and what it imports."""
    height = heights(graph)
    lines = []
    for room in sorted(graph, key=lambda room: (-height[room], room)):
        package = room.partition(".")[0]
        below = [to.removeprefix(f"{package}.") for to in sorted(graph[room])]
        imports = f"It imports {', '.join(below)}." if below else "It imports nothing of ours."
        lines.append(_wrapped(f"- `{room}` {PURPOSE[room]}. {imports}"))
    return "\n".join(lines)


def list_of_a_way(way: list[Station]) -> str:
    """Stations with their numbers, and the functions that run there."""
    lines, seen = [], set()
    for number, (file, functions) in enumerate(way, 1):
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(functions))
        lines.append(_wrapped(f"{number}. {'back in ' if file in seen else ''}`{file}`: {names}"))
        seen.add(file)
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    indent = " " * (text.index(" ") + 1)
    return textwrap.fill(text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def count(way: list[Station]) -> str:
    """Stations and returns, in words."""
    return f"{len(way)} stations, {returns(way)} returns"


def blocks() -> Iterator[tuple[str, str]]:
    """The parts of the page that are made of the code, by their names."""
    yield "rooms", list_of_rooms(rooms())
    yield "left out", "\n".join(f"- `{file}` {why}." for file, why in LEFT_OUT.items())
    plain, learning = way_of_a_current(), way_of_a_current(with_gradient=True)
    yield "current", list_of_a_way(stations(plain))
    rows = [("without a gradient", plain), ("with a gradient", learning)]
    numbers = [f"| {what} | {count(stations(way))} | {count(way)} |" for what, way in rows]
    yield "current counted", "\n".join(["| call | by the rule | every file |", "|---|---|---|", *numbers])
    for name, way in (("trajectory", way_of_a_trajectory()), ("batch", way_of_a_batch())):
        yield name, f"{list_of_a_way(stations(way))}\n\n{count(stations(way))}."


def written(page: str) -> str:
    """The page with its parts made anew."""
    for name, text in blocks():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end {name} -->"
        before, _, rest = page.partition(begin)
        _, mark, after = rest.partition(end)
        if not mark:
            raise ValueError(f"{PAGE.name} has no part {begin.strip()} ... {end.strip()}.")
        page = f"{before}{begin}{text}{end}{after}"
    return page


def arrows_of(picture: str) -> set[str]:
    """The arrows of a picture by their ids."""
    return set(re.findall(r'<g id="([\w.]+-&gt;[\w.]+)"', picture))


def arrows(graph: Graph) -> set[str]:
    """The ids of the arrows that a picture must have."""
    return {f"{room}-&gt;{to}" for room, targets in drawn(graph).items() for to in targets}


def main() -> None:
    """Write page and picture, or compare them with the code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where something differs")
    check = parser.parse_args().check
    page = PAGE.read_text()
    new = written(page)
    if not check:
        PAGE.write_text(new)
        draw(PICTURE, rooms())
        return
    lines = [f"page: {line}" for line in new.splitlines() if line not in page.splitlines()]
    lines += [f"picture: {arrow}" for arrow in sorted(arrows_of(PICTURE.read_text()) ^ arrows(rooms()))]
    if new != page or lines:
        sys.exit("\n".join([*lines, "docs/architecture.md is old; run python docs/architecture.py"]))


if __name__ == "__main__":
    main()
