"""docs/architecture.md says and shows what the code is: rooms, imports, and the ways of a call."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
architecture = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(architecture)
Station = architecture.Station

GRAPH = {"a.top": {"a.middle", "a.base"}, "a.middle": {"a.base"}, "a.base": set()}


def test_the_picture_has_every_room_and_its_arrows_point_down():
    graph = architecture.rooms()
    height, picture = architecture.heights(graph), architecture.PICTURE.read_text()
    assert len(graph) == len(set(graph)) > 20
    assert all(height[room] > height[to] for room, targets in graph.items() for to in targets)
    assert architecture.arrows_of(picture) == architecture.arrows(graph)
    assert architecture.list_of_rooms(graph) in architecture.PAGE.read_text(), "run python docs/architecture.py"
    for room in graph:
        name = "import sdn" if room == "sdn" else room.partition(".")[2]
        assert f">{name}</text>" in picture, room


def test_every_room_has_its_sentence_and_no_other_has():
    assert set(architecture.PURPOSE) == set(architecture.rooms())


def test_an_arrow_is_left_out_where_a_longer_way_leads_there():
    assert architecture.drawn(GRAPH) == {"a.top": {"a.middle"}, "a.middle": {"a.base"}, "a.base": set()}


def test_a_changed_import_is_seen_in_the_picture(tmp_path):
    graph = {room: set(targets) for room, targets in architecture.rooms().items()}
    graph["sdn.early"].add("sdn.runs")
    assert architecture.arrows(graph) - architecture.arrows_of(architecture.PICTURE.read_text())
    architecture.draw(tmp_path / "x.svg", graph)
    assert architecture.arrows_of((tmp_path / "x.svg").read_text()) == architecture.arrows(graph)


def test_stations_and_returns():
    every = [
        Station("sdn/neuron.py", ("forward",)), Station("sdn/checks/axes.py", ("mend",)),
        Station("sdn/neuron.py", ("_solved",)), Station("sdn/solvers/loop.py", ("run",)),
        Station("sdn/neuron.py", ("step",)),
    ]  # fmt: skip
    way = architecture.stations(every)
    assert [station.file for station in way] == ["sdn/neuron.py", "sdn/solvers/loop.py", "sdn/neuron.py"]
    assert way[0].functions == ("forward", "_solved")
    assert architecture.count(every) == "5 stations, 2 returns"
    assert architecture.count(way) == "3 stations, 1 returns"


def test_a_visit_is_a_call_into_a_file_of_the_project():
    def here():
        return architecture.returns([]), architecture.count([])

    found = architecture.visits(here)
    assert [station.file for station in found] == ["tests/project/test_architecture.py", "docs/architecture.py"]
    assert found[1].functions == ("returns", "count", "returns")


def test_what_is_left_out_exists():
    assert all((ROOT / file).exists() for file in architecture.LEFT_OUT)
