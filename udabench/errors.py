"""Errors that are the user's to mend: printed without a traceback. Anything else is a bug and keeps its own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MANY = 25
"""Names; more of them are not read."""


class UserError(Exception):
    """What went wrong, with which value, and the remedy. Ends the program with exit code 1."""

    exit_code = 1


class UsageError(UserError):
    """The command line or a configuration asks for what does not exist or is not allowed. Exit code 2."""

    exit_code = 2


class DataError(UserError):
    """A data set's file is missing, unreadable or holds what it should not. Names the file."""


class PluginError(UserError):
    """A plugin cannot be loaded or breaks its contract."""


class CheckpointError(UserError):
    """A checkpoint or a weight file is damaged or belongs to something else."""


class RecordError(UserError):
    """A record is damaged, or was written by a newer schema."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a misspelt name: offers the nearest and lists the known ones (of many, the ten nearest)."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listing = ", ".join(names) if names else "none"
    if len(names) > MANY:
        nearest = difflib.get_close_matches(name, names, n=10, cutoff=0)
        listing = f"{', '.join(nearest)}, and {len(names) - len(nearest)} others"
    return UsageError(f"Unknown {kind} '{name}'.{hint} Known: {listing}.")
