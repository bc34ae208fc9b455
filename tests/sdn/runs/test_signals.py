"""A signal ends a script in order: one line that says how to go on, and the exit code of the signal."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from forked import Child, wait_until
from scripts import QUICK, ROOT, ended, files, script

from sdn.runs import lock, signals
from sdn.runs.folder import load_checkpoint
from sdn.runs.signals import Stopped, check, explained, held, listening, pending

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
every_signal = pytest.mark.parametrize("number", CODES, ids=lambda n: n.name)


def waiting(mark):
    """A script that says it is there and then waits."""
    mark.touch()
    time.sleep(30)


@every_signal
def test_one_line_and_the_exit_code_of_the_signal(tmp_path, number):
    mark = tmp_path / "there"
    child = Child(lambda: waiting(mark))
    wait_until(mark.exists)
    child.send(number)
    code, err = child.ended()
    assert code == CODES[number]
    line = f"stopped by {number.name}; nothing half written is left behind, start again with the same command\n"
    assert err == line


def test_the_innermost_advice_is_said(tmp_path):
    mark = tmp_path / "there"

    def main():
        with explained(lambda: "outer"), explained(lambda: "go on with resume=x", lambda: "in epoch 3"):
            waiting(mark)

    child = Child(main)
    wait_until(mark.exists)
    child.send(signal.SIGTERM)
    assert child.ended() == (143, "stopped by SIGTERM in epoch 3; go on with resume=x\n")


def test_a_second_signal_ends_at_once(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"

    def main():
        try:
            waiting(first)
        finally:
            waiting(second)

    child = Child(main)
    wait_until(first.exists)
    child.send(signal.SIGTERM)
    wait_until(second.exists)
    child.send(signal.SIGINT)
    assert child.ended(5) == (130, "stopped at once by a second signal, SIGINT\n")


def test_an_error_that_comes_of_the_signal_is_not_shown(tmp_path):
    """Ending in the middle makes libraries raise what they like."""
    mark = tmp_path / "there"

    def main():
        try:
            waiting(mark)
        finally:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. ")

    child = Child(main)
    wait_until(mark.exists)
    child.send(signal.SIGTERM)
    code, err = child.ended()
    assert (code, err.count("\n")) == (143, 1)
    assert err.startswith("stopped by SIGTERM;")


def test_a_signal_that_is_held_waits_for_a_good_moment(tmp_path):
    mark, kept = tmp_path / "there", tmp_path / "kept"

    def main():
        with held():
            mark.touch()
            wait_until(pending)
            kept.touch()  # the checkpoint
            check()
            kept.unlink()

    child = Child(main)
    wait_until(mark.exists)
    child.send(signal.SIGTERM)
    assert child.ended()[0] == 143
    assert kept.exists()


def test_behind_the_block_it_waits_no_longer(tmp_path):
    mark, kept = tmp_path / "there", tmp_path / "kept"

    def main():
        with held():
            mark.touch()
            wait_until(pending)
        kept.touch()

    child = Child(main)
    wait_until(mark.exists)
    child.send(signal.SIGTERM)
    assert child.ended()[0] == 143
    assert not kept.exists()


def test_a_signal_is_not_held_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "GRACE", 0.05)
    mark = tmp_path / "there"

    def main():
        with held():
            waiting(mark)

    child = Child(main)
    wait_until(mark.exists)
    child.send(signal.SIGTERM)
    assert child.ended(10)[0] == 143


def test_a_signal_that_is_not_heard_is_sent_again(tmp_path, monkeypatch):
    """Right before a call that waits, Python keeps a signal until the call is over."""
    monkeypatch.setattr(signals, "GRACE", 0.05)
    mark, calls = tmp_path / "there", []
    real = signal.pthread_kill

    def deaf(thread, number):
        calls.append(number)
        if len(calls) > 1:
            real(thread, number)

    def main():
        with held(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(signal, "pthread_kill", deaf)
            waiting(mark)

    child = Child(main)
    wait_until(mark.exists)
    child.send(signal.SIGTERM)
    code, err = child.ended(10)
    assert code == 143
    assert err.startswith("stopped by SIGTERM; ")


def test_a_program_that_waits_for_itself_ends_all_the_same(tmp_path, monkeypatch):
    """Raised between taking a lock and giving it back, as inside of a queue, the exception leaves it taken."""
    monkeypatch.setattr(signals, "GRACE", 0.05)
    mark = tmp_path / "there"

    def main():
        with explained(lambda: "go on with resume=x"):
            try:
                waiting(mark)
            finally:
                lock = threading.Lock()
                lock.acquire()
                lock.acquire()

    child = Child(main)
    wait_until(mark.exists)
    child.send(signal.SIGTERM)
    assert child.ended(10) == (143, "stopped by SIGTERM; go on with resume=x\n")


def test_a_lost_exception_is_raised_again(tmp_path):
    """Python drops what is raised in a destructor, say."""
    mark = tmp_path / "there"

    class Lossy:
        def __del__(self):
            mark.touch()
            wait_until(pending)

    def main():
        sys.unraisablehook = lambda _: None
        Lossy()
        check()

    child = Child(main)
    wait_until(mark.exists)
    child.send(signal.SIGTERM)
    assert child.ended(10)[0] == 143


@pytest.mark.parametrize("heard", [True, False], ids=["in a program", "in a notebook"])
def test_a_clip_that_is_being_read_is_not_cut_short(tmp_path, monkeypatch, heard):
    """A C library asks Python for the bytes, and what is raised there is lost."""
    import io

    import numpy as np
    import soundfile

    from spikingssm.datasets import audio

    wav = io.BytesIO()
    soundfile.write(wav, np.arange(9000, dtype=np.int16), 8000, format="WAV", subtype="PCM_16")

    class Interrupted(io.BytesIO):
        def readinto(self, buffer):
            if len(buffer) > 1000 and not seen:
                seen.append(1)
                if not heard:
                    raise KeyboardInterrupt
                signal.raise_signal(signal.SIGTERM)
            return super().readinto(buffer)

    seen = []
    monkeypatch.setattr(audio.io, "BytesIO", Interrupted)
    if heard:
        child = Child(lambda: audio.read_wav(wav.getvalue(), "x.wav", 8000))
        code, err = child.ended()
        assert (code, err.count("\n")) == (143, 1)
        assert err.startswith("stopped by SIGTERM; ")
    else:
        monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
        with pytest.raises(ValueError, match=r"x.wav: only 0 of 9000 samples could be read; read it again"):
            audio.read_wav(wav.getvalue(), "x.wav", 8000)


def test_what_is_ignored_stays_ignored(tmp_path):
    """As under nohup, and for Ctrl-C behind `&` in a shell script."""
    mark = tmp_path / "there"

    def main():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signals, "_listener", None)
            with listening():
                mark.touch()
                time.sleep(0.2)

    child = Child(main)
    wait_until(mark.exists)
    child.send(signal.SIGHUP)
    assert child.ended() == (0, "")


def test_a_forked_part_leaves_ctrl_c_to_the_first_process(tmp_path):
    marks = [tmp_path / "one", tmp_path / "other"]

    def part(mark, seconds):
        if (process := os.fork()) == 0:
            mark.touch()
            time.sleep(seconds)
            os._exit(0)
        wait_until(mark.exists)
        return process

    def exit_code(process):
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def main():
        one, other = part(marks[0], 0.3), part(marks[1], 10)
        os.kill(one, signal.SIGINT)
        os.kill(other, signal.SIGTERM)
        assert (exit_code(one), exit_code(other)) == (0, -signal.SIGTERM)

    assert Child(main).ended() == (0, "")


def test_only_the_first_process_of_a_training_speaks(tmp_path, monkeypatch):
    mark = tmp_path / "there"
    monkeypatch.setenv("SLURM_PROCID", "1")
    child = Child(lambda: waiting(mark))
    wait_until(mark.exists)
    child.send(signal.SIGTERM)
    assert child.ended() == (143, "")


def test_handlers_are_those_of_before_afterwards_and_threads_have_none():
    before = signal.getsignal(signal.SIGTERM)
    with listening():
        assert signal.getsignal(signal.SIGTERM) is not before
        with listening():  # nested: nothing changes
            pass
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    found = []

    def inside():
        with listening():
            found.append(signals._listener)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [None]


def test_stopped_is_a_system_exit_for_who_does_not_know_it():
    with pytest.raises(SystemExit) as caught:
        raise Stopped(signal.SIGTERM)
    assert caught.value.code == 143


@pytest.mark.parametrize(
    "words", [["train.py"], ["generate.py"], ["-m", "spikingssm"], ["-m", "sdn"]], ids=lambda w: w[-1]
)
def test_a_signal_while_torch_is_imported_is_one_line_too(tmp_path, words):
    """A module named torch waits instead."""
    (tmp_path / "torch.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'there')!r}).touch()\ntime.sleep(30)\n"
    )
    words = [str(ROOT / words[0])] if words[0] != "-m" else words
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, *words], cwd=tmp_path, env=env, text=True, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    wait_until((tmp_path / "there").exists)
    process.send_signal(signal.SIGINT)
    assert ended(process)[::2] == (130, "stopped by SIGINT; nothing had begun yet\n")


def long_training(folder, **options):
    """The process of a small network that trains for 300 epochs into a folder."""
    words = [
        "experiment=spikingssm/digits", "+tier=smoke", "model.solver=loop", "model.d_model=8", "model.d_state=4",
        "trainer.accelerator=cpu", "trainer.max_epochs=300", f"run_dir='{folder}'",
    ]  # fmt: skip
    return script("train.py", *words, **options)


def test_a_network_stopped_inside_an_epoch_keeps_what_it_has(tmp_path):
    """The signal gets a checkpoint of its own, behind the batch that it fell into."""
    folder = tmp_path / "a run"
    process = long_training(folder, cwd=tmp_path)
    last = folder / "checkpoints" / "last.ckpt"
    wait_until(last.exists, 180)
    time.sleep(0.3)
    process.terminate()
    code, _, err = ended(process)
    assert code == 143
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("stopped by SIGTERM")
    assert line.endswith(f"go on with 'resume='\"'\"'{folder}'\"'\"''")
    assert load_checkpoint(last)["place"]["epoch"] > 0
    assert not (folder / "summary.json").exists()
    assert not list(folder.rglob("*.partial"))


def test_an_sdn_that_is_stopped_says_how_to_go_on(folder):
    process = script("train.py", "--save", "stopped", *files(folder), *QUICK, "--epochs", 400, cwd=folder)
    wait_until((folder / "stopped" / "checkpoints" / "last.ckpt").exists, 180)
    process.terminate()
    code, _, err = ended(process)
    assert code == 143
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("stopped by SIGTERM in epoch ")
    assert line.endswith("; go on with --resume stopped")


def test_ctrl_c_without_a_door_stays_a_keyboard_interrupt(tmp_path):
    """In a notebook or a program of the user; Lightning makes a SystemExit of it and ignores the next one."""
    from lightning import LightningModule

    from sdn.runs.interrupts import interruptible
    from spikingssm.training.fit import make_trainer

    trainer = make_trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)

    class Interrupted(LightningModule):
        def configure_optimizers(self):
            raise KeyboardInterrupt

        def train_dataloader(self):
            return [0]

        def training_step(self, batch, batch_idx):
            return None

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible(trainer):
        trainer.fit(Interrupted())
    assert signal.getsignal(signal.SIGINT) is before


def test_lightning_leaves_sigterm_alone(tmp_path):
    """Its own handler ends a run with exit code 0."""
    from lightning import LightningModule

    from sdn.runs.interrupts import interruptible
    from spikingssm.training.fit import make_trainer

    seen = []

    class Looks(LightningModule):
        def on_train_start(self):
            seen.append(signal.getsignal(signal.SIGTERM))

        def configure_optimizers(self):
            return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])

        def train_dataloader(self):
            return [0]

        def training_step(self, batch, batch_idx):
            raise KeyboardInterrupt

    options = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = make_trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, **options)
    with pytest.raises(KeyboardInterrupt), interruptible(trainer):
        trainer.fit(Looks())
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_a_finished_sdn_says_so_whenever_it_is_stopped(tmp_path, trained, monkeypatch):
    """Even while its lock is given back, the last thing that it does."""
    import shutil

    from sdn.surrogate import command

    run = shutil.copytree(trained, tmp_path / "run")
    assert command._go_on(run) == f"the run had finished, its results are in {run}/summary.json"
    monkeypatch.setattr(command, "_train", lambda *_: None)
    unlink = type(run).unlink

    def stopped(path, **options):
        if path.name == ".lock" and path.parent.resolve() == run.resolve() and (run / ".lock").exists():
            signal.raise_signal(signal.SIGTERM)
        unlink(path, **options)

    def main():
        monkeypatch.setattr(type(run), "unlink", stopped)
        command.main(["--resume", str(run)])

    assert Child(main).ended() == (
        143,
        f"stopped by SIGTERM; the run had finished, its results are in {run}/summary.json\n",
    )
    (run / "summary.json").unlink()
    assert command._go_on(run).startswith("go on with --resume")


def test_a_finished_network_is_rid_of_the_lock_of_a_killed_process(tmp_path):
    from omegaconf import OmegaConf

    from spikingssm.experiments.run import run

    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / ".lock").write_text(json.dumps({"host": lock._host(), "pid": 7, "start": None}))
    run(OmegaConf.create({"resume": str(tmp_path), "run_dir": None}))
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize(("begun", "says"), [(False, "nothing had begun yet"), (True, "the work had ended")])
def test_a_signal_beside_the_work_says_so(monkeypatch, begun, says):
    from sdn import early
    from sdn.runs import cli

    def main():
        monkeypatch.setattr(cli, "begun", begun)
        early.listen()
        signal.raise_signal(signal.SIGTERM)

    assert Child(main).ended() == (143, f"stopped by SIGTERM; {says}\n")


def test_a_signal_waits_until_a_bar_is_made(tmp_path, monkeypatch):
    """One that is made by half prints a traceback when it is removed."""
    import tqdm

    import generate

    place = tqdm.tqdm._get_free_pos

    def stopped(instance=None):
        signal.raise_signal(signal.SIGTERM)
        sys.stderr.write("made\n")
        return place(instance)

    def main():
        monkeypatch.setattr(tqdm.tqdm, "_get_free_pos", staticmethod(stopped))
        monkeypatch.setattr(sys, "argv", ["generate.py", str(tmp_path), "-N", "20", "-T", "20"])
        generate.main()

    code, err = Child(main).ended()
    assert code == 143
    assert "made" in err.splitlines()
    assert err.splitlines()[-1].startswith("stopped by SIGTERM; ")


def test_a_second_signal_while_a_script_is_taken_down_changes_nothing(tmp_path):
    """Taking torch down takes a second, in which Python has no handlers any more."""
    folder = tmp_path / "run"
    hears = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    process = long_training(folder, cwd=tmp_path, **hears)
    wait_until((folder / "checkpoints" / "last.ckpt").exists, 180)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    line = ""
    while not line.startswith("stopped by"):
        line = process.stderr.readline()
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert ended(process)[::2] == (130, "")


@pytest.mark.parametrize(
    ("argv", "whole", "ours"),
    [
        (["-m", "check", "brf"], ["python", "-m", "sdn", "check", "brf"], True),
        (["-m"], ["python", "-u", "-mspikingssm"], True),
        (["-m", "check"], ["python", "-Bmsdn", "check"], True),
        (["/home/me/sdn"], ["python", "/home/me/sdn"], False),
        (["-m", "sdn"], ["python", "-m", "theirs", "sdn"], False),
        (["-m", "-m", "sdn"], ["python", "-m", "theirs", "-m", "sdn"], False),
        (["/usr/bin/sdn", "check"], ["python", "/usr/bin/sdn", "check"], True),
        (["C:/Scripts/spikingssm.exe"], ["python"], True),
        (["sdn.py"], ["python", "sdn.py"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
    ids=str,
)
def test_only_our_own_commands_listen_from_the_start(argv, whole, ours):
    from sdn import early

    assert early.is_command(argv, whole) is ours
