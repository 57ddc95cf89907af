"""CSV files and files of claims: whatever they hold, a table comes out or `AnalysisError`."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as some

from analysis import check_claims, load_trials, markdown, tables, write_tables
from analysis.claims.claim_file import KNOWN, SHIPPED
from analysis.claims.tables import write_conclusions
from analysis.errors import AnalysisError
from analysis.reports.claim_texts import claims_overview, sentences
from analysis.results.published import PUBLISHED
from analysis.text.plain_yaml import parse_yaml
from analysis.trials.table import RESERVED
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


SHIPPED_CLAIMS = parse_yaml(SHIPPED.read_text(encoding="utf-8"))["claims"]
KEYS = [*KNOWN, "claims", "", "\u2028"]
LEVELS = ["rope", "sinpe", "attention", "bigram", 8, 64, 2**64, 1e308, -1e308, 1e-320, True, None,
          "", "nan", "inf", "8", "1e-2", "(a+)+$", ".*", "[", "\\", "\x00", "x" * 300,
          "seed"]  # fmt: skip
SETTINGS = ["variant", "pe_type", "n_embd", "block_size", "seed", "val_loss", "", "x"]

plain = some.one_of(some.sampled_from(LEVELS), some.integers(-99, 99), some.floats(), texts)
settings_of_trials = some.lists(some.sampled_from(SETTINGS), max_size=3)
values = some.recursive(
    some.one_of(plain, settings_of_trials),
    lambda inner: some.one_of(
        some.lists(inner, max_size=4),
        some.dictionaries(some.sampled_from(SETTINGS), inner, max_size=3),
    ),
    max_leaves=6,
)


@some.composite
def claim_files(draw: some.DrawFn) -> str:
    """Claims of the published study with some of their parts exchanged, as JSON, which is YAML."""
    claims = [
        dict(claim) for claim in draw(some.lists(some.sampled_from(SHIPPED_CLAIMS), max_size=3))
    ]
    for claim in claims:
        for _ in range(draw(some.integers(0, 3))):
            if draw(some.booleans()) and claim:
                claim[draw(some.sampled_from(sorted(claim)))] = draw(values)
            else:
                claim[draw(some.sampled_from(KEYS))] = draw(values)
    file: dict[str, Any] = {"claims": claims}
    if draw(some.booleans()):
        file["margin"] = draw(values)
    text = json.dumps(file)
    for _ in range(draw(some.integers(0, 2)) if draw(some.booleans()) else 0):
        at = draw(some.integers(0, len(text)))
        text = (
            text[:at]
            + draw(some.sampled_from(["[", "]", "&a ", "*a", "<<: ", "\x00", '"']))
            + text[at:]
        )
    return text


@guard.efforts
def test_a_file_of_claims(effort: settings, folder: Path) -> None:
    rows = "\n".join(
        f"attention,{pe_type},{n_embd},{block},{seed},{2 + block / 100 + seed / 1000}"
        for pe_type in ("rope", "sinpe", "randn")
        for n_embd in (64, 128)
        for block in (8, 16)
        for seed in (1, 2, 3)
    )
    table, path = folder / "trials.csv", folder / "claims.yaml"
    table.write_text(f"variant,pe_type,n_embd,block_size,seed,val_loss\n{rows}\n")
    trials = load_trials(str(table))
    conclude(trials, None, folder / "out")

    def check(text: str) -> None:
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        conclude(trials, path, folder / "out")

    fewer = settings(effort, max_examples=effort.max_examples // 4)  # each takes a while
    guard.fuzz(fewer, some.one_of(claim_files(), claim_files(), some.text()), check, AnalysisError)
