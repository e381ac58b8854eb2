"""What a study leaves behind: for each analysis a table (CSV), a picture (PNG), and how it was made (JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from udabench.analysis.study import Study
from udabench.analysis.walk import Finding
from udabench.engine.files import replacing, write_json, write_text


def write_report(study: Study, findings: Sequence[Finding], folder: Path) -> None:
    """Write all files. Raises DiskFull."""
    classes = study.runs[0].trained.plan.task.classes
    for finding in findings:
        place = folder / finding.name
        write_text(place.with_suffix(".csv"), table_of(finding).to_csv(index=False))
        with replacing(place.with_suffix(".png")) as path:
            finding.analysis.draw(finding.tables, classes).savefig(path, bbox_inches="tight")
        write_json(place.with_suffix(".json"), how_made(study, finding))


def table_of(finding: Finding) -> pd.DataFrame:
    """The rows of all runs, their titles in the first column."""
    tables = [table.assign(run=title)[["run", *table.columns]] for title, table in finding.tables.items()]
    return pd.concat(tables, ignore_index=True)


def how_made(study: Study, finding: Finding) -> dict[str, object]:
    """The JSON file: what the numbers are, of what, and by which settings."""
    request = study.request
    features = "logits before upsampling" if request.features == "logits" else "last map of the encoder"
    return {
        "analysis": finding.name,
        "about": " ".join((finding.analysis.__doc__ or "").split()),
        "settings": finding.config.model_dump(mode="json"),
        "features": features,
        "labels on the grid of the features": "nearest; 255 dropped",
        "inference": "whole images, float32, networks in evaluation mode",
        "runs": finding.notes,
    }
