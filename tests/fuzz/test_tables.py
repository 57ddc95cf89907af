"""CSV files and files of claims: whatever they hold, a table comes out or `AnalysisError`."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as some

from analysis import check_claims, load_trials, markdown, tables, write_tables
from analysis.claim_texts import claims_overview, sentences
from analysis.conclusions import write_conclusions
from analysis.errors import AnalysisError
from analysis.published import PUBLISHED
from analysis.runs import RESERVED
from tests.fuzz import guard

OURS = sorted({*RESERVED, "seed", "variant", "pe_type", "n_embd", "block_size", "corpus", "loss"})
NUMBERS = ["0", "1", "2.5", "-0.5", "1e308", "-1e308", "1e999", "nan", "inf", "-inf", "1e-320",
           "9" * 400, "0x10", "1_000", "00", "true"]  # fmt: skip
WORDS = ["", "NA", "None", "null", "<NA>", "=cmd|x", "'=1", "+1", "@a", "\t", "\r", "a\nb", "|",
         "<b>", "[x](y)", "`", "$x$", "_a", "\u202e", "\x00", "\x1b[2J", "\u4e2d", "FINISHED",
         "FAILED", "search", "confirm", "rope"]  # fmt: skip

texts = some.text(max_size=8)
names = some.one_of(some.sampled_from(OURS), some.sampled_from(WORDS), texts)
cells = some.one_of(some.sampled_from(NUMBERS), some.sampled_from(WORDS), texts)
likely_cells = some.one_of(some.sampled_from(NUMBERS[:4]), some.sampled_from(WORDS), cells)


@some.composite
def csv_texts(draw: some.DrawFn) -> bytes:
    """Rows of cells that are mostly of equal length and mostly have a val_loss."""
    columns = draw(some.lists(names, max_size=6))
    if draw(some.integers(0, 9)):
        columns.append("val_loss")
    rows = draw(some.integers(0, 6))
    lines = [[draw(likely_cells) for _ in columns] for _ in range(rows)]
    if columns and columns[-1] == "val_loss" and draw(some.booleans()):
        for line in lines:
            line[-1] = draw(some.sampled_from(NUMBERS[:6]))
    if lines and draw(some.integers(0, 9)) == 0:
        lines[-1] = lines[-1][:-1] if draw(some.booleans()) else [*lines[-1], "1"]
    text = io.StringIO()
    csv.writer(text, lineterminator=draw(some.sampled_from(["\n", "\r\n", "\r"]))).writerows(
        [columns, *lines]
    )
    start = draw(some.sampled_from([b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\x00"]))
    return start + text.getvalue().encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        use(PUBLISHED, None, Path(folder))  # what is imported and reserved once is no input's fault
        yield Path(folder)


def use(path: Path, claims: Path | None, out: Path) -> None:
    trials = load_trials(str(path))
    named = tables(trials)
    for table in named.values():
        markdown(table)
    write_tables(named, out)
    load_trials(str(out / "ranking.csv"))
    conclude(trials, claims, out)


def conclude(trials: Any, claims: Path | None, out: Path) -> None:
    found = check_claims(trials, claims)
    claims_overview(found)
    for each in found:
        " ".join(sentences(each))
    write_conclusions(found, out)


@guard.efforts
def test_a_table_of_trials(effort: settings, folder: Path) -> None:
    path = folder / "table.csv"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        use(path, None, folder / "out")

    guard.fuzz(effort, some.one_of(csv_texts(), some.binary(max_size=200)), read, AnalysisError)
