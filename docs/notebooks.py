"""Runs notebooks and keeps what they show: `python docs/notebooks.py docs/tutorials/plain_loop.ipynb`.

Without names it runs the tutorials. `--beside exp` copies a folder to where a notebook runs, such as the run that
convert.ipynb reads. Each runs from top to bottom in an empty folder, on one thread. Its text and its
figures are kept. Times, numbers of runs and what goes to standard error are left out, so that a second run changes
little.
"""

import argparse
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
MOST = 500_000
"""Bytes of a notebook with its figures."""


def run(path: Path, beside: Path | None = None) -> tuple[int, float]:
    """Run a notebook and write it again with its outputs.

    Args:
        path: of the notebook.
        beside: a folder that is copied to where it runs.

    Returns:
        its size in bytes, and the CPU seconds that it took.

    Raises:
        ValueError: it is too large, or an output names a folder of this machine.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        if beside is not None:
            shutil.copytree(beside, Path(folder) / beside.name)
        NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
        text = nbformat.writes(cleaned(book)) + "\n"
        for place in (folder, str(ROOT), str(Path.home()), sys.prefix):
            if place != "/" and place + "/" in text:
                raise ValueError(f"{path.name}: an output names {place}; print a name without its folder.")
    if len(text.encode()) > MOST:
        raise ValueError(f"{path.name}: {len(text.encode()):,} bytes, at most {MOST:,}; make its figures smaller.")
    path.write_text(text)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return len(text.encode()), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cleaned(book: Any) -> Any:
    """The notebook with outputs that any machine would have made: no times, no counts, no standard error."""
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(book.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        kept: list[Any] = []
        for out in cell.outputs:
            if out.get("name") == "stderr":
                continue
            if out.get("name") == "stdout" and kept and kept[-1].get("name") == "stdout":
                kept[-1].text += out.text
            else:
                kept.append(out)
        cell.outputs = kept
        for out in kept:
            if "execution_count" in out:
                out.execution_count = None
            out.pop("metadata", None)
            if out.output_type in ("display_data", "execute_result"):
                out.metadata = {}
    return book


def main() -> None:
    """Run the notebooks that are named, or the tutorials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="files; none means docs/tutorials/*.ipynb")
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="is copied to where they run")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for path in given.notebooks or sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        size, seconds = run(path, given.beside)
        print(f"{path.name}: {seconds:.0f} CPU seconds, {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
