"""The log of a training run: a CSV file with a row per checkpoint."""

from __future__ import annotations

import csv
import os
from pathlib import Path


def append(row: dict[str, float | str], path: Path) -> None:
    """Append a row to a log, rewriting the log if the row has new columns.

    Args:
        row: Values by column; missing columns stay empty.
        path: The log; created if it does not exist.
    """
    columns, earlier = [], []
    if path.is_file():
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            earlier = list(reader) if row.keys() - set(columns) else []
    if row.keys() <= set(columns):
        with path.open("a", newline="") as out:
            csv.DictWriter(out, columns).writerow(row)
        return
    part = path.with_suffix(".part")
    with part.open("w", newline="") as out:  # rewritten: a resumed run may have more columns than before
        writer = csv.DictWriter(out, list(dict.fromkeys([*columns, *row])))
        writer.writeheader()
        writer.writerows([*earlier, row])
    os.replace(part, path)
