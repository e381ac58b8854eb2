"""Leaderboards: pages generated from stored records alone, byte for byte the same at every rebuild."""

from udabench.leaderboard.render import to_markdown, to_rich
from udabench.leaderboard.rows import Row, group
from udabench.leaderboard.site import add, build, check, read_results
from udabench.leaderboard.table import Column, Line, Table
from udabench.leaderboard.tables import summary

__all__ = [
    "Column",
    "Line",
    "Row",
    "Table",
    "add",
    "build",
    "check",
    "group",
    "read_results",
    "summary",
    "to_markdown",
    "to_rich",
]
