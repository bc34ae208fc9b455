"""Fetch a published file once, check it against its published checksum, and keep it."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sdn.runs.signals import held

__all__ = ["fetch", "offline"]

_closed: list[bool] = []
"""One entry for each open `offline`."""


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Inside, nothing is downloaded: `fetch` gives what lies there already, and refuses the rest."""
    _closed.append(True)
    try:
        yield
    finally:
        _closed.pop()


def fetch(url: str, name: str, checksum: str, folder: str | Path) -> Path:
    """The path of ``folder/name``, downloaded if it is not there, with the given checksum.

    A download that was cut off goes on where it stopped at the next call: what came lies in ``folder/.name.download``.

    Args:
        url: folder of the file on the server, ending in a slash.
        name: file name, below ``url`` and below ``folder``.
        checksum: what the file must hash to: a sha256 digest, or ``md5:`` and a digest.
        folder: where it is kept.

    Raises:
        FileNotFoundError: the file is not there or another one, inside `offline`.
        ImportError: pooch is not installed.
        OSError: no connection, one that broke off, or a server that refused.
        ValueError: what came is not the published file.
    """
    try:
        import pooch
    except ImportError as error:
        raise ImportError("downloads need the extra `data`: pip install 'sdn-spikingssm[data]'.") from error
    import requests

    pooch.get_logger().setLevel("WARNING")
    known = checksum if ":" in checksum else f"sha256:{checksum}"
    try:
        get: Any = _refuse if _closed else _Resuming(Path(folder) / f".{name}.download")
        return Path(pooch.retrieve(url + name, known_hash=known, fname=name, path=Path(folder), downloader=get))
    except requests.exceptions.RequestException as error:
        again = "; the same command goes on from there" if get.partial.is_file() else ""
        raise OSError(
            f"could not download {url}{name} ({type(error).__name__}){again}; with a copy on disk set data.root=FOLDER."
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{url}{name}: {' '.join(str(error).split())[:200]} Download it by hand and set data.root=FOLDER."
        ) from None


def _refuse(url: str, *_: Any) -> None:
    """The downloader inside `offline`."""
    raise FileNotFoundError(f"{url} is not on this machine, and nothing is downloaded here.")


class _Resuming:
    """A downloader for pooch that keeps what it has when a connection breaks, and asks for the rest next time."""

    def __init__(self, partial: Path) -> None:
        self.partial = partial

    def __call__(self, url: str, output_file: Any, _pooch: Any) -> None:
        """Download into ``partial``, from its end on where the server can; hand it over when it is complete."""
        import requests

        have = self.partial.stat().st_size if self.partial.is_file() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, stream=True, timeout=30, headers=headers) as answer:
            if not (have and answer.status_code == 416):  # else there is nothing behind what we have
                answer.raise_for_status()
                onwards = answer.status_code == 206
                size = int(answer.headers.get("Content-Length", 0)) + (have if onwards else 0)
                how = {"total": size or None, "initial": have if onwards else 0, "unit": "B", "unit_scale": True}
                with held():  # a bar that is made by half cannot be removed
                    bar = tqdm(**how, desc=url.rsplit("/", 1)[-1], disable=not sys.stderr.isatty())
                with self.partial.open("ab" if onwards else "wb") as file, bar:
                    for chunk in answer.iter_content(2**16):
                        bar.update(file.write(chunk))
        self.partial.replace(output_file)
