"""A figure of matplotlib as inline SVG for a page: in the colours of the page, small, and ready to be zoomed."""

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["CURVE", "OPTIONS", "Drawing", "drawing", "new_figure"]

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
CURVE = "curve-"
"""Beginning of the gid of a line that the page may point at."""
OPTIONS: Any = {
    "svg.fonttype": "none", "text.parse_math": False, "path.simplify": False, "axes.formatter.useoffset": False,
    "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "legend.framealpha": 0.0,
}  # fmt: skip
"""Text stays text and is never read as mathematics; the ground is that of the page."""


class Drawing(NamedTuple):
    """A picture of the page.

    Args:
        svg: an ``<svg>`` element.
        axes: JSON for the page's script: of each axes its part, box and limits.
        series: JSON: of each curve its part, its name, and its values (x, y); "[]" for a picture without curves.
        caption: what it shows.
        numbers: a table that says the same in numbers, or None.
    """

    svg: str
    axes: str
    series: str
    caption: str
    numbers: Any = None


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches, to be made and drawn within ``rc_context(OPTIONS)``."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def drawing(
    figure: Figure,
    axes: Sequence[Axes],
    name: str,
    caption: str,
    words: str,
    series: Sequence[tuple[str, str, Sequence[float], Sequence[float]]] = (),
) -> Drawing:
    """Finish a figure.

    Args:
        figure: of `new_figure`.
        axes: those that can be zoomed; they share their x axis.
        name: a word of letters and digits that no other picture of the page has.
        caption: what it shows, in a line.
        words: the same for those who do not see it.
        series: of curves: gid, name, x and y.
    """
    for number, ax in enumerate(axes):
        ax.set_gid(f"axes-{number}")
    buffer = io.StringIO()
    with rc_context({**OPTIONS, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    points = 72 / figure.dpi
    places = [_place(ax, f"axes-{number}", points, figure) for number, ax in enumerate(axes)]
    titles = {gid: title for gid, title, _, _ in series}
    listed = [[gid, title, [*map(_short, x)], [*map(_short, y)]] for gid, title, x, y in series]
    svg = _finished(buffer.getvalue(), name, caption, words, titles)
    return Drawing(svg, json.dumps(places), json.dumps(listed, ensure_ascii=True), caption)


def _place(ax: Axes, part: str, points: float, figure: Figure) -> dict[str, Any]:
    """Where an axes stands in the picture, in points from its upper left corner, and what it shows."""
    box, high = ax.get_window_extent(), figure.bbox.height
    corners = [box.x0 * points, (high - box.y1) * points, box.x1 * points, (high - box.y0) * points]
    return {
        "part": part,
        "box": [round(corner, 2) for corner in corners],
        "limits": [*map(float, ax.get_xlim()), *map(float, ax.get_ylim())],
        "names": [ax.get_xlabel() or "step", ax.get_ylabel()],
    }


def _finished(text: str, name: str, caption: str, words: str, titles: Mapping[str, str]) -> str:
    """The SVG of matplotlib with titles, short numbers and the page's colour for black; one group zooms."""
    for prefix, space in (("", SVG), ("xlink", XLINK)):
        ET.register_namespace(prefix, space)
    root = ET.fromstring(text)
    for defs in root.iter(_tag("defs")):
        for style in defs.findall(_tag("style")):  # it would be of the whole page
            defs.remove(style)
    for metadata in root.findall(_tag("metadata")):
        root.remove(metadata)
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", text))
    for element in list(root.iter()):
        _shorten(element, name, used)
    for group in [group for group in root.iter() if str(group.get("data-part", "")).startswith("axes-")]:
        _gather(group)
    for group in root.iter():
        if (part := group.get("data-part")) in titles:
            title = ET.Element(_tag("title"))
            title.text = titles[str(part)]
            group.insert(0, title)
    root.attrib = {"viewBox": root.get("viewBox", ""), "role": "img", "aria-labelledby": f"{name}-title {name}-words"}
    for number, (kind, content) in enumerate((("title", caption), ("desc", words))):
        said = ET.Element(_tag(kind), {"id": f"{name}-{'title' if kind == 'title' else 'words'}"})
        said.text = content
        root.insert(number, said)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", ET.tostring(root, encoding="unicode"))


def _shorten(element: Any, name: str, used: set[str]) -> None:
    """Numbers of two digits, the page's colour, and an id only where it is asked for."""
    own = element.attrib.pop("id", None)
    if own is not None and own in used:
        element.set("id", f"{name}-{own}")
    elif own is not None and re.match(rf"axes-|{CURVE}", own):
        element.set("data-part", own)
    elif own is not None and re.match(r"[xy]tick_", own):
        element.set("class", "mark")
    for key, value in element.attrib.items():
        if key == "d" or key in ("x", "y", "transform", "width", "height"):
            value = " ".join(re.sub(r"(\.\d\d)\d+", r"\1", value).split())
        elif key == "style":
            value = re.sub(r"#000000|#7f7f7f|#737373|\bblack\b", "currentColor", value)
            value = re.sub(r"; *stroke-(linejoin|linecap): (miter|butt|square)|;? *font: [^;]*", _kept, value)
        value = re.sub(r"url\(#", f"url(#{name}-", value)
        element.set(key, f"#{name}-{value[1:]}" if key == f"{{{XLINK}}}href" and value.startswith("#") else value)


def _kept(match: re.Match[str]) -> str:
    return "" if match[0].lstrip("; ").startswith("stroke") else match[0]


def _gather(group: Any) -> None:
    """Put what an axes clips into one clipped group, inside which a group can be moved and stretched."""
    clip = None
    inner = ET.Element(_tag("g"), {"class": "content"})
    for child in list(group):
        found = [part for part in child.iter() if part.get("clip-path")]
        if not found:
            continue
        clip = clip or found[0].get("clip-path")
        for part in found:
            del part.attrib["clip-path"]
        group.remove(child)
        inner.append(child)
    if clip is not None:
        outer = ET.SubElement(group, _tag("g"), {"clip-path": clip})
        outer.append(inner)


def _tag(name: str) -> str:
    return f"{{{SVG}}}{name}"


def _short(value: float) -> float:
    return float(f"{value:.6g}")
