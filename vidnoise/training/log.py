"""The log of a training run: a CSV file, a row for each checkpoint."""

from __future__ import annotations

import csv
import os
from pathlib import Path


def append(row: dict[str, float | str], path: Path) -> None:
    """Add a row to a log, which is written anew if the row has columns that the log has not.

    Args:
        row: values by column; columns it lacks stay empty.
        path: the log; made if there is none.
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
    with part.open("w", newline="") as out:  # written anew: a run may go on with more columns than it had
        writer = csv.DictWriter(out, list(dict.fromkeys([*columns, *row])))
        writer.writeheader()
        writer.writerows([*earlier, row])
    os.replace(part, path)
