"""The run folder: status, lock, and files that are whole or not there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from udabench.engine.files import explain_full_disk, read_json, replacing, write_json
from udabench.engine.folder import RunFolder
from udabench.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from udabench.engine.folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by another process \(pid {holder.pid}\).*--runs"):
            RunFolder(tmp_path).lock().__enter__()
        holder.kill()
        holder.wait()
        with RunFolder(tmp_path).lock():
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_may_be_nested(tmp_path: Path) -> None:
    with RunFolder(tmp_path).lock(), RunFolder(tmp_path).lock():
        pass
    with RunFolder(tmp_path).lock():
        pass


def test_updates_keep_what_others_stored(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.status == "created"
    write_json(folder.run_json, {"config": {"seed": 1}})
    folder.update_run(status="running", iteration=3)
    assert folder.read_run() == {"config": {"seed": 1}, "status": "running", "iteration": 3}
    assert folder.status == "running"


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_a_damaged_run_json_is_named(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path)
    folder.run_json.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"run\.json"):
        folder.read_run()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1})

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(path) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_only_a_full_disk_is_explained_as_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No space is left"), explain_full_disk(tmp_path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    with pytest.raises(PermissionError), explain_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "no")
