"""The site: every page has its place, every public name its entry, and what is built needs no network."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
ELSEWHERE = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "dataset.md": "dataset/README.md"}
BUILDERS = ("mkdocs", "material", "mkdocstrings", "latex2mathml")


def listed(entries) -> list[str]:
    """The pages of a navigation, in their order."""
    if isinstance(entries, str):
        return [entries]
    inner = entries.values() if isinstance(entries, dict) else entries
    return [page for entry in inner for page in listed(entry)]


def test_the_navigation_has_every_page_once():
    pages = listed(CONFIG["nav"])
    assert len(pages) == len(set(pages))
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    notebooks = {path.relative_to(DOCS).with_suffix(".md").as_posix() for path in DOCS.rglob("*.ipynb")}
    assert set(pages) == written | notebooks | set(ELSEWHERE)
    assert all((ROOT / source).is_file() for source in ELSEWHERE.values())


def public(package: str) -> list[str]:
    """``__all__`` of a package, read without importing it."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    return [f"{package}.{name}" for name in ast.literal_eval(assigned["__all__"])]


@pytest.mark.parametrize("package", ["sdn", "spikingssm", "spikingssm.datasets", "spikingssm.layers"])
def test_the_reference_has_every_public_name_once(package):
    text = "\n".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    entries = re.findall(r"^::: ([\w.]+)$", text, re.M)
    assert len(entries) == len(set(entries))
    taken = {entry.replace("spikingssm.layers.", "spikingssm.") for entry in entries}
    names = {name.replace("spikingssm.layers.", "spikingssm.") for name in public(package)}
    assert len(names) > 10
    assert names <= taken, f"without an entry in docs/reference: {sorted(names - taken)}"


def test_the_bug_log_has_every_fault_of_the_changelog():
    """As many rows as the changelog has faults of ours, and each with a commit of this repository."""
    _, _, faults = (ROOT / "CHANGELOG.md").read_text().partition("### Numbers of ours that were wrong\n")
    faults = re.findall(r"^- ", faults.partition("\n### ")[0], re.M)
    _, _, log = (DOCS / "limits.md").read_text().partition("### Faults of ours\n")
    rows = re.findall(r"^\| .+ \| ([^|]*\d{4}-\d\d-\d\d) \| .+ \|$", log, re.M)
    assert len(faults) > 5
    assert len(rows) == len(faults)
    assert all(re.match(r"[0-9a-f]{7}, ", row) for row in rows)


class Page(HTMLParser):
    """What a page points at, and what it loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.loads, self.names = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Sort one tag."""
        known = dict(attrs)
        self.names |= {known.get("id"), known.get("name")}
        loaded = [known.get("src"), known.get("poster"), known.get("data") if tag == "object" else None]
        loaded += [known.get("href")] if tag == "link" and known.get("rel") != "canonical" else []
        self.loads += [target for target in loaded if target]
        self.links += [known["href"]] if tag == "a" and known.get("href") else []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    absent = [name for name in BUILDERS if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}; `make docs` installs it and builds the site")
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def pages(site):
    """Every page of the site by its path."""
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def test_every_page_of_the_navigation_is_built(site):
    assert {page.replace(".md", ".html") for page in listed(CONFIG["nav"])} <= {
        path.relative_to(site).as_posix() for path in site.rglob("*.html")
    }
    assert not list(site.rglob("*.py")) or {path.relative_to(site).parts[0] for path in site.rglob("*.py")} == {
        "source"
    }


def test_every_link_and_picture_is_there(site, pages):
    broken, seen = [], 0
    for path, page in pages.items():
        for target in page.links + page.loads:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = site if target == "." else there
            seen += 1
            if path.name == "404.html":
                there = site / unquote(parts.path).lstrip("/")
            if not there.exists() or (parts.fragment and there in pages and not _has(pages[there], parts.fragment)):
                broken.append(f"{path.relative_to(site)}: {target}")
    assert seen > 1000
    assert not broken, broken[:10]


def _has(page: Page, fragment: str) -> bool:
    return unquote(fragment) in page.names or fragment.startswith("__")


def test_no_page_loads_anything_from_the_network(site, pages):
    loaded = {target for page in pages.values() for target in page.loads}
    assert len(loaded) > 10
    assert not [target for target in loaded if target.startswith(("http:", "https:", "//"))]
    styles = [path.read_text() for path in site.rglob("*.css")]
    assert styles
    assert not [found for style in styles for found in re.findall(r"(?:@import|url\()\s*[\"']?https?:[^)]*", style)]
    assert not [path for path in pages if 'class="mermaid"' in path.read_text()]  # drawn by a script from the network


def test_equations_are_mathml(site):
    text = (site / "neurons" / "lif.html").read_text()
    assert "<math" in text
    assert "\\(" not in text
    assert "arithmatex" not in text


def test_notebooks_are_pages_and_files_that_pages_link_to_are_copied(site):
    for notebook in (DOCS / "tutorials").glob("*.ipynb"):
        text = (site / "tutorials" / f"{notebook.stem}.html").read_text()
        assert f'href="{notebook.name}"' in text
        assert (site / "tutorials" / notebook.name).is_file()
        outputs = [output for cell in json.loads(notebook.read_text())["cells"] for output in cell.get("outputs", [])]
        pictures = [output for output in outputs if "image/png" in output.get("data", {})]
        assert text.count("output of the cell above") == len(pictures)
    assert (site / "source" / "docs" / "results" / "fuzz.json").is_file()
    assert not (site / "results").exists()
