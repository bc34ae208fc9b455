"""Downloads from a server of our own: whole, cut off and gone on with, wrong, refused."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spikingssm.datasets.download import fetch, offline

CONTENT = bytes(range(256)) * 4096
RIGHT = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; ``cut`` breaks the connection after that many bytes, ``ranges`` says whether it can go on."""

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if self.path != "/file":
            self.send_error(404)
            return
        start = 0
        if server.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : server.cut])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.cut, made.ranges = [], None, True
    threading.Thread(target=made.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{made.server_port}/"
    yield made
    made.shutdown()
    made.server_close()


def test_a_file_is_fetched_once(server, tmp_path) -> None:
    path = fetch(server.url, "file", RIGHT, tmp_path)
    assert path == tmp_path / "file"
    assert path.read_bytes() == CONTENT
    assert fetch(server.url, "file", RIGHT, tmp_path) == path
    assert server.asked == [None]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("ranges", [True, False], ids=["server can go on", "server starts over"])
def test_a_download_that_broke_off_is_gone_on_with(server, tmp_path, ranges) -> None:
    server.cut, server.ranges = 300_000, ranges
    with pytest.raises(OSError, match=r"could not download .*/file .*the same command goes on from there"):
        fetch(server.url, "file", RIGHT, tmp_path)
    assert not (tmp_path / "file").exists()
    kept = (tmp_path / ".file.download").stat().st_size
    assert 0 < kept <= 300_000
    server.cut = None
    assert fetch(server.url, "file", RIGHT, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={kept}-"]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_is_complete_already_is_only_checked(server, tmp_path) -> None:
    (tmp_path / ".file.download").write_bytes(CONTENT)
    assert fetch(server.url, "file", RIGHT, tmp_path).read_bytes() == CONTENT


def test_another_file_is_refused_and_not_kept(server, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"hash .*Download it by hand and set data.root=FOLDER"):
        fetch(server.url, "file", RIGHT[::-1], tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".file.download").write_bytes(b"of another file")
    with pytest.raises(ValueError, match="hash"):
        fetch(server.url, "file", RIGHT, tmp_path)
    assert fetch(server.url, "file", RIGHT, tmp_path).read_bytes() == CONTENT, "the next try starts over"


def test_a_server_that_has_no_such_file(server, tmp_path) -> None:
    with pytest.raises(OSError, match=r"could not download .*/nothing \(HTTPError\); with a copy on disk"):
        fetch(server.url, "nothing", RIGHT, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_downloaded_offline(server, tmp_path) -> None:
    with (
        offline(),
        pytest.raises(FileNotFoundError, match=r"file is not on this machine, and nothing is downloaded here"),
    ):
        fetch(server.url, "file", RIGHT, tmp_path)
    assert server.asked == []
    path = fetch(server.url, "file", RIGHT, tmp_path)
    with offline():
        assert fetch(server.url, "file", RIGHT, tmp_path) == path
        path.write_bytes(CONTENT[1:])
        with pytest.raises(FileNotFoundError, match="nothing is downloaded here"):
            fetch(server.url, "file", RIGHT, tmp_path)
    assert len(server.asked) == 1
