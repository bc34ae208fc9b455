"""What the site does with the pages that GitHub does by itself: links out of docs/, equations, notebooks, lists."""

import html
import json
import os
import re
from base64 import b64decode
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "dataset/README.md": "dataset.md"}
"""Pages outside of docs/, by their place in the repository, and where they are on the site."""
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^()\s]+)\)")
FENCE = re.compile(r"^ {0,3}(```|~~~)")
ITEM = re.compile(r"([-*+]|\d+[.)]) ")
PICTURES = {"image/png": "png", "image/gif": "gif", "image/jpeg": "jpg", "image/svg+xml": "svg"}


def on_config(config):
    """Headings get the anchors that they have on GitHub."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files, config):
    """Add the pages that lie outside of docs/, and a page for every notebook."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        name = file.src_uri.removesuffix(".ipynb")
        text, pictures = notebook(json.loads(Path(file.abs_src_path).read_text()), PurePosixPath(name).name)
        files.append(File.generated(config, f"{name}.md", content=text))
        for picture, content in pictures.items():
            files.append(File.generated(config, f"{PurePosixPath(name).parent}/{picture}", content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Mend links that leave docs/, and lists and tables that begin right below a line of text."""
    here = {target: source for source, target in PAGES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    lines, fenced = [], ""
    for line in markdown.split("\n"):
        fence = FENCE.match(line)
        if fence and not fenced:
            fenced, line = fence[1], line.replace("python no-run", "python")
        elif fence and line.strip() == fenced:
            fenced = ""
        elif not fenced and not line.startswith("    "):
            line = LINK.sub(lambda found: _link(found, here, page.file.src_uri, config, files), line)
            if lines and _begins(line) and not _continues(lines[-1]):
                lines.append("")
        lines.append(line)
    return "\n".join(lines)


def on_page_content(content, **_):
    """Equations become MathML, which browsers draw without a script."""
    found = r'<(div|span) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>'
    return re.sub(found, lambda part: _mathml(html.unescape(part[3]), part[2] == "["), content, flags=re.S)


def notebook(cells: dict, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by their names.

    Args:
        cells: what a file of format 4 holds.
        name: of the notebook, without its ending.
    """
    parts, pictures = [], {}
    for cell in cells["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source:
            parts.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            kind = next((kind for kind in PICTURES if kind in data), None)
            text = "".join(output.get("text", data.get("text/plain", []))).rstrip()
            if kind:
                picture = f"{name}-{len(pictures) + 1}.{PICTURES[kind]}"
                content = "".join(data[kind])
                pictures[picture] = content.encode() if kind.endswith("xml") else b64decode(content)
                parts.append(f"![output of the cell above]({picture})")
            elif text:
                parts.append(f"```text\n{text}\n```")
    heading = parts[:1] if parts and parts[0].startswith("#") else []
    first, *rest = parts[0].split("\n", 1) if heading else (f"# {name}",)
    told = f"This page is a notebook: [{name}.ipynb]({name}.ipynb)."
    return "\n\n".join([first, told, *rest, *parts[len(heading) :]]) + "\n", pictures


def _link(found: re.Match, here: str, uri: str, config, files) -> str:
    """A link of a page, as it is on the site.

    Args:
        found: the words, with their brackets, and the target.
        here: place of the page in the repository.
        uri: place of the page on the site.
        config: of the site.
        files: of the site; a file that is not among them is added.
    """
    words, target = found.groups()
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not parts.path:
        return found[0]
    place = os.path.normpath(f"{PurePosixPath(here).parent}/{unquote(parts.path)}").replace(os.sep, "/")
    path = ROOT / place
    if path.is_dir():
        return words[1:-1]
    there = PAGES.get(place, place.removeprefix("docs/") if place.startswith("docs/") else f"source/{place}")
    if there.endswith(".ipynb") and files.get_file_from_path(there) and uri != there.replace(".ipynb", ".md"):
        there = there.replace(".ipynb", ".md")
    known = files.get_file_from_path(there)
    if path.is_file() and (known is None or known.inclusion.is_excluded()):
        there = there if there.startswith("source/") else f"source/{place}"
        if files.get_file_from_path(there) is None:
            files.append(_copied(config, there, path))
    relative = os.path.relpath(there, PurePosixPath(uri).parent).replace(os.sep, "/")
    return f"{words}({relative}{'#' + parts.fragment if parts.fragment else ''})"


def _copied(config, there: str, path: Path) -> File:
    """A file that is copied as it is; a page of Markdown would become a page of the site."""
    return File.generated(config, f"{there}.txt" if there.endswith(".md") else there, content=path.read_bytes())


def _begins(line: str) -> bool:
    """Whether a line is the first of a list or a table, if it is not one in the middle."""
    return bool(ITEM.match(line)) or line.startswith("|")


def _continues(line: str) -> bool:
    """Whether the line before already parts a list or a table from the text, or belongs to it."""
    return not line.strip() or bool(ITEM.match(line)) or line.startswith(("|", " ", "<!--", "#"))


def _mathml(equation: str, block: bool) -> str:
    """An equation of LaTeX as MathML; ``aligned`` is what GitHub knows, and ``align*`` what the converter knows."""
    found = convert(equation.strip().replace("{aligned}", "{align*}"), display="block" if block else "inline")
    if "<mi>&</mi>" in found or "<mi>\\" in found:
        raise PluginError(f"an equation has something that latex2mathml does not know: {equation.strip()}")
    return found
