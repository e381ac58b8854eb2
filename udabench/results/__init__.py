"""Records: what a run measured, written once, validated at every reading, and enough to recompute every metric."""

from udabench.results.assemble import Scored, make_record
from udabench.results.matrices import Matrices
from udabench.results.record import (
    SCHEMA_VERSION,
    AncestorInfo,
    Cost,
    Flags,
    InitialWeights,
    NetworkInfo,
    Record,
    Revision,
    Score,
    TaskInfo,
)
from udabench.results.store import Recomputed, matrices_path, read_matrices, read_record, recompute, write_record

__all__ = [
    "SCHEMA_VERSION",
    "AncestorInfo",
    "Cost",
    "Flags",
    "InitialWeights",
    "Matrices",
    "NetworkInfo",
    "Recomputed",
    "Record",
    "Revision",
    "Score",
    "Scored",
    "TaskInfo",
    "make_record",
    "matrices_path",
    "read_matrices",
    "read_record",
    "recompute",
    "write_record",
]
