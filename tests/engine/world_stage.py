"""Processes that form one world, forked by a script that has imported everything."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from torch import distributed as dist

Scene = Callable[[Path], Any]


def play(folder: Path, scene: Scene, size: int = 2) -> None:
    """A scene in so many forked processes that form one world (alone: none)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "store").unlink(missing_ok=True)
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            enter(folder, scene, rank, size)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def enter(folder: Path, scene: Scene, rank: int, size: int) -> None:
    """One process, to its end."""
    os.environ["LOCAL_RANK"] = str(rank)
    result: Any = None
    try:
        with redirect_stderr(io.StringIO()):
            if size > 1:
                store = dist.FileStore(str(folder / "store"), size)
                dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
            result = scene(folder)
    except BaseException as error:
        result = {"error": type(error).__name__, "message": str(error)}
    (folder / f"{rank}.json").write_text(json.dumps(result))
    os._exit(0)
