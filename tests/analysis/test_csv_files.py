"""CSV files: what a spreadsheet makes of ours, what comes back, and what is no CSV file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from analysis import AnalysisError, load_trials, rankings, tables, write_tables
from analysis.command import main
from analysis.text.csv_files import csv_text, read_csv

FORMULAS = ["=cmd|'/c calc'!A0", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "'=1"]


def test_no_text_is_a_formula_and_each_comes_back(tmp_path: Path) -> None:
    table = pd.DataFrame({"=name": FORMULAS, "plain": ["a", "'b", "1", "-", "", "a=b", "x", "y"]})
    path = tmp_path / "table.csv"
    path.write_bytes(csv_text(table).encode())
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert cells.columns[0] == "'=name"
    assert list(cells["'=name"]) == [f"'{text}" for text in FORMULAS]
    assert list(cells["plain"]) == ["a", "'b", "1", "'-", "", "a=b", "x", "y"]
    again = read_csv(path)
    assert list(again["=name"]) == FORMULAS
    assert list(again["plain"].fillna("")) == list(table["plain"])


def test_a_number_stays_a_number() -> None:
    table = pd.DataFrame({"a": [-1.5, np.nan], "b": pd.array([-1, None], "Int64")})
    assert csv_text(table) == "a,b\n-1.5,-1\n,\n"
    assert csv_text(pd.DataFrame({"rate": ["-1e-3", "none"]})) == "rate\n-1e-3\nnone\n"


def test_a_ranking_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text("opt,n,val_loss\n'=1+1,8,1.0\n'@x,16,2.0\n")
    write_tables(tables(load_trials(str(path))), tmp_path)
    text = (tmp_path / "ranking.csv").read_text()
    assert "\n1,8,'=1+1,1,,1.0," in text
    again = rankings(load_trials(str(tmp_path / "ranking.csv")))
    assert list(again["opt"]) == ["=1+1", "@x"]
    assert list(again["n_setting_setting"]) == [8, 16]  # beside the column n of the ranking
    assert list(again["val_loss"]) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read: No columns"),
        (b"a,val_loss\n\xff,1\n", "cannot be read: 'utf-8' codec"),
        (b'a,val_loss\n"1,2\n', "cannot be read: Error tokenizing data"),
        (b"a,b,val_loss,a\n1,2,3,4\n", "column 'a' is there twice"),
        (b"a,val_loss\n1,2,3\n1,2,3\n", "a row has more cells than the first line"),
        (b"a,val_loss\n1,2\n1,2,3\n", "more cells than the first line|Expected 2 fields in line 3"),
        (b",".join(b"c%d" % i for i in range(5_000)), "has 5,000 columns; at most 1,000"),
        (b"a,val_loss\n1,two\n", "row 2: val_loss 'two' is no number"),
    ],
)
def test_what_is_no_table_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(AnalysisError, match=message) as refused:
        load_trials(str(path))
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_a_table_for_a_spreadsheet_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfval_loss,n_embd\r\n1.0,8\r\n2.0,16\r\n")
    assert list(load_trials(str(path)).table["n_embd"]) == [8, 16]


def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    os.mkfifo("pipe.csv")
    Path("zero.csv").symlink_to("/dev/zero")
    for name in ("folder.csv", "pipe.csv", "zero.csv"):
        done = CliRunner().invoke(main, ["rankings", name])
        assert (done.exit_code, done.output) == (2, f"analysis: {name} is not a file\n")
    with Path("large.csv").open("wb") as file:
        file.truncate(5 << 30)  # no byte of it is on the disk
    done = CliRunner().invoke(main, ["rankings", "large.csv"])
    assert (done.exit_code, "is too large: 5120 MiB" in done.output) == (2, True)
    done = CliRunner().invoke(main, ["rankings", "nul\0.csv"])
    assert (done.exit_code, done.output) == (
        2,
        "analysis: nul\\x00.csv cannot be read: embedded null byte\n",
    )


def test_settings_may_have_the_names_of_our_columns_and_what_follows_them(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("n,n_setting,group,mean,line,val_loss\n1,2,3,4,5,1.0\n2,3,4,5,6,2.0\n")
    trials = load_trials(str(path))
    assert trials.settings == (
        "group_setting", "line_setting", "mean_setting", "n_setting", "n_setting_setting",
    )  # fmt: skip
    assert list(rankings(trials)["n_setting_setting"]) == [2, 3]


def test_each_table_has_a_file_of_its_own_whatever_its_setting_is_called(tmp_path: Path) -> None:
    names = ["a/b", "a_b", "x" * 300, "x" * 299, "a\nb", "\u4e2d" * 100]
    runs = ",".join(f'"{name}"' for name in names)
    rows = "\n".join(",".join([str(i)] * len(names)) + f",{i}" for i in (1, 2))
    (tmp_path / "table.csv").write_text(f"{runs},val_loss\n{rows}\n")
    named = tables(load_trials(str(tmp_path / "table.csv")))
    assert len(named) == 1  # no pivot: all settings differ at once
    named |= {f"by_{name}": named["ranking"] for name in names}
    written = write_tables(named, tmp_path / "out")
    assert len(set(written)) == 2 * len(named)
    assert all(path.is_file() for path in written)
