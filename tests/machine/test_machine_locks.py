from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ralr_tune.machine.locks import FileLock, locked
from tests.waiting import LONG_S

COUNT = """
import sys
from pathlib import Path
from ralr_tune.machine.locks import locked
counter = Path(sys.argv[1]) / "counter"
for _ in range(200):
    with locked(counter.with_name("x.lock")):
        counter.write_text(str(int(counter.read_text()) + 1))
"""

HOLD = """
import sys
from pathlib import Path
from ralr_tune.machine.locks import FileLock
lock = FileLock(Path(sys.argv[1]))
assert lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time_although_each_removes_the_file(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    started = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(LONG_S) for process in started] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "600"
    assert not (tmp_path / "x.lock").exists()


def test_one_thread_at_a_time(tmp_path: Path) -> None:
    counted = [0]

    def count() -> None:
        for _ in range(50):
            with locked(tmp_path / "x.lock"):
                seen = counted[0]
                threading.Event().wait(0.0001)  # lets another thread run
                counted[0] = seen + 1

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(count) for _ in range(4)]:
            done.result(LONG_S)
    assert counted == [200]


def test_a_held_lock_cannot_be_acquired(tmp_path: Path) -> None:
    holder, late = (FileLock(tmp_path / "x.lock") for _ in range(2))
    assert holder.acquire()
    assert not late.acquire()
    late.release()
    assert not late.acquire()
    holder.release()
    assert late.acquire()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "x.lock")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "x.lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert not lock.acquire()
        holder.send_signal(signal.SIGKILL)
    assert lock.acquire()


@pytest.mark.parametrize(("remove", "left"), [(True, []), (False, ["x.lock"])])
def test_remove_decides_whether_the_file_stays(tmp_path: Path, remove: bool, left: list[str]) -> None:
    lock = FileLock(tmp_path / "x.lock", remove=remove)
    assert lock.acquire()
    lock.release()
    lock.release()
    assert [path.name for path in tmp_path.iterdir()] == left


def test_another_thread_may_release(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "x.lock")
    assert lock.acquire()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(lock.release).result(LONG_S)
    assert FileLock(tmp_path / "x.lock").acquire()


def test_a_file_system_without_locks_is_an_error_and_marker_files_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match="not implemented"), locked(tmp_path / "x.lock"):
        pass
