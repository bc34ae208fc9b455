"""`sdn notebooks FOLDER`: the notebooks of the project, to open with Jupyter."""

import argparse
import contextlib
import shutil
from pathlib import Path

from sdn.runs.files import writing

__all__ = ["add", "places", "run"]

PACKAGE = Path(__file__).parents[1]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Tell the parser of this command."""
    parser = commands.add_parser("notebooks", help="write the notebooks into a folder: reduction, tutorials")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write to, made where missing")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.set_defaults(run_command=run)


def places() -> list[Path]:
    """The notebooks: in the package where pip has installed it, else in the checkout."""
    inside, root = PACKAGE / "notebooks", PACKAGE.parent
    found = [inside] if inside.is_dir() else [root, root / "docs" / "tutorials"]
    return sorted(path for folder in found for path in folder.glob("*.ipynb"))


def run(args: argparse.Namespace) -> None:
    """Write them all; a failure leaves no new file and no new folder.

    Raises:
        FileExistsError: a file of that name is there already.
        FileNotFoundError: this installation has none.
    """
    found = places()
    if not found:
        raise FileNotFoundError(f"no notebooks beside {PACKAGE}; install the package anew.")
    if held := [path.name for path in found if (args.folder / path.name).exists() and not args.force]:
        raise FileExistsError(f"{args.folder / held[0]} exists; choose another folder, or --force.")
    to = [args.folder / path.name for path in found]
    new = [path for path in (*to, args.folder, *args.folder.parents) if not path.exists()]
    try:
        with contextlib.ExitStack() as stack:  # the renames come after the last copy
            for path, target in zip(found, to, strict=True):
                shutil.copyfile(path, stack.enter_context(writing(target)))
    except BaseException:
        for path in new:
            with contextlib.suppress(OSError):  # not there, or a folder that somebody else has written to
                path.rmdir() if path.is_dir() else path.unlink()
        raise
    for path in to:
        print(path)
