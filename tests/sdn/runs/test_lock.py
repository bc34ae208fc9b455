"""One folder, one process: who holds a lock, when it is stale, and that nothing is left of it."""

import json
import os
import signal
import socket
import threading
import time

import pytest
from forked import Child, wait_until

from sdn.runs import lock
from sdn.runs.lock import LOCK, locked, owner


def write_lock(folder, **changes):
    """A lock file as this process would write it, but for the changes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOCK).write_text(json.dumps({**lock._myself(), "time": "2026-01-02 03:04:05", "job": None, **changes}))


def test_a_folder_is_made_and_the_lock_says_who(tmp_path):
    with locked(tmp_path / "runs" / "x"):
        held = json.loads((tmp_path / "runs" / "x" / LOCK).read_text())
        assert held["pid"] == os.getpid()
        assert held["host"].startswith(socket.gethostname())
        assert owner(tmp_path / "runs" / "x") == held
        (tmp_path / "runs" / "x" / "kept").touch()
    assert [path.name for path in (tmp_path / "runs" / "x").iterdir()] == ["kept"]


def test_a_folder_in_which_nothing_was_written_is_gone_again(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path / "runs" / "x"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


def test_the_same_process_may_take_it_again(tmp_path):
    with locked(tmp_path):
        with locked(f"{tmp_path}/../{tmp_path.name}"):
            pass
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()


def test_another_process_is_refused_in_one_line_and_changes_nothing(tmp_path):
    with locked(tmp_path):
        before = (tmp_path / LOCK).read_bytes()

        def second():
            with locked(tmp_path, "choose another run_dir=FOLDER"):
                pass

        code, err = Child(second).ended()
        assert code == 2
        assert err.startswith(f"error: {tmp_path} is in use by process {os.getpid()} since 20")
        assert err.endswith("; wait for it, or choose another run_dir=FOLDER.\n")
        assert (tmp_path / LOCK).read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_the_lock_of_a_killed_process_is_replaced(tmp_path):
    def first():
        with locked(tmp_path):
            time.sleep(30)

    child = Child(first)
    wait_until((tmp_path / LOCK).exists)
    assert owner(tmp_path)["pid"] == child.pid
    child.send(signal.SIGKILL)
    child.ended()
    assert (tmp_path / LOCK).exists()
    assert owner(tmp_path) is None
    with locked(tmp_path):
        assert owner(tmp_path)["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_process_that_got_the_number_of_a_killed_one_is_another(tmp_path):
    write_lock(tmp_path, start=lock._start_of(os.getpid()) + "0")
    assert owner(tmp_path) is None
    with locked(tmp_path):
        pass


def test_a_process_that_ended_but_was_not_waited_for_is_dead(tmp_path):
    if (pid := os.fork()) == 0:
        os._exit(0)
    wait_until(lambda: lock._start_of(pid) is None)
    os.waitpid(pid, 0)


def test_the_lock_of_another_machine_is_refused_and_named(tmp_path):
    folder = tmp_path / "a run"
    write_lock(folder, host="elsewhere pid:[1]", pid=77)
    with pytest.raises(BlockingIOError) as caught, locked(folder):
        pass
    assert str(caught.value) == (
        f"{folder} is in use by process 77 on elsewhere since 2026-01-02 03:04:05; wait for it, or choose another "
        f"folder. If it has ended, delete '{folder}/.lock'."
    )
    assert (folder / LOCK).exists()


def test_a_job_that_slurm_starts_again_takes_its_own_lock_from_another_machine(tmp_path, monkeypatch):
    write_lock(tmp_path, host="elsewhere", job="42")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    with pytest.raises(BlockingIOError), locked(tmp_path):
        pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with locked(tmp_path):
        pass
    write_lock(tmp_path, host="elsewhere", job="43")
    with pytest.raises(BlockingIOError), locked(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', "\x00" * 50])
def test_a_lock_that_says_nothing_is_waited_for_and_then_replaced(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(BlockingIOError, match="is being taken by another process"), locked(tmp_path):
        pass
    os.utime(tmp_path / LOCK, (1e9, 1e9))
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("pid", ["7", None, -1, [], 2**70, 0])
def test_a_number_that_no_process_has_is_stale(tmp_path, pid):
    write_lock(tmp_path, pid=pid)
    with locked(tmp_path):
        pass


def test_without_hard_links_the_file_is_made_exclusively(tmp_path, monkeypatch):
    def no_link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lock.os, "link", no_link)
    with locked(tmp_path):
        assert owner(tmp_path)["pid"] == os.getpid()
        lock._held.clear()  # as for another process that has looked before it was there
        monkeypatch.setattr(lock, "owner", lambda folder: None)
        monkeypatch.setattr(lock.Path, "unlink", lambda *_, **__: None)
        with pytest.raises(BlockingIOError, match="is being taken"), locked(tmp_path):
            pass


def test_of_many_that_find_a_stale_lock_one_takes_it(tmp_path):
    write_lock(tmp_path, start="long ago")
    go = tmp_path / "go"

    def take():
        wait_until(go.exists)
        with locked(tmp_path):
            time.sleep(0.5)

    children = [Child(take) for _ in range(6)]
    go.touch()
    codes = sorted(child.ended()[0] for child in children)
    assert codes == [0, 2, 2, 2, 2, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["go"]


def test_half_a_lock_that_a_kill_left_is_removed(tmp_path):
    left, fresh = tmp_path / f"{LOCK}.999999", tmp_path / f"{LOCK}.999998"
    left.touch()
    fresh.touch()
    os.utime(left, (1e9, 1e9))
    with locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [fresh.name]


def test_half_a_lock_of_a_killed_process_of_this_machine_is_removed_at_once(tmp_path, monkeypatch):
    """Found by `make kill`: after a SIGKILL before the link a file was left for ten seconds."""

    def take():
        monkeypatch.setattr(os, "link", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with locked(tmp_path):
            pass

    assert Child(take).ended()[0] == -signal.SIGKILL
    (left,) = tmp_path.glob(f"{LOCK}.*")
    other = tmp_path / f"{LOCK}.00000000.{left.name.split('.')[-1]}"  # of another machine
    other.touch()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [other]


def test_a_thread_of_the_process_shares_it(tmp_path):
    found = []

    def inside():
        with locked(tmp_path):
            found.append(True)

    with locked(tmp_path):
        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
    assert found == [True]
