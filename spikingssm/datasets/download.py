"""Fetch a published file once, check it against its published checksum, and keep it."""

from pathlib import Path

__all__ = ["fetch"]


def fetch(url: str, name: str, checksum: str, folder: str | Path) -> Path:
    """The path of ``folder/name``, downloaded if it is not there, with the given checksum.

    Args:
        url: folder of the file on the server, ending in a slash.
        name: file name, below ``url`` and below ``folder``.
        checksum: what the file must hash to: a sha256 digest, or ``md5:`` and a digest.
        folder: where it is kept.

    Raises:
        ImportError: pooch is not installed.
        OSError: no connection, or the server refused.
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
        return Path(pooch.retrieve(url + name, known_hash=known, fname=name, path=Path(folder)))
    except requests.exceptions.RequestException as error:
        raise OSError(
            f"could not download {url}{name} ({type(error).__name__}); with a copy on disk set data.root=FOLDER."
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{url}{name}: {' '.join(str(error).split())[:200]} Download it by hand and set data.root=FOLDER."
        ) from None
