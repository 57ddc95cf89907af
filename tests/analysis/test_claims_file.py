"""A file of claims is read as sweep files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import check_claims, load_trials
from analysis.claims import load_claims
from analysis.errors import AnalysisError


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("claims: " + "[" * 3_000, "line 1: more than 50 lists and maps"),
        ("claims: &a [*a]", "line 1: an alias inside of what it stands for"),
        ("claims:\n  ? [a]\n  : b", "line 2: a list or a map cannot be a key"),
        ("claims: []\nclaims: []", "line 2: 'claims' is given twice"),
        ("claims: !!float abc", "line 1: 'abc' is no value of !!float"),
        ("margin: 001\nclaims: []", "line 1: readers of YAML disagree on leading zeros"),
        ("margin: " + "9" * 5_000, "too large"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str, part: str, tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(text)
    with pytest.raises(AnalysisError) as refused:
        load_claims(file)
    message = str(refused.value)
    assert message.startswith(f"{file}: ")
    assert part in message
    assert "\n" not in message


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(AnalysisError, match="cannot be read: it is not a file"):
            load_claims(path)


def test_words_stay_words_and_small_numbers_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(
        "margin: 1e-3\nclaims: [{claim: x, where: {bias: no}, factor: kind, best: 2024-01-01}]"
    )
    (claim,) = load_claims(file).claims
    assert (claim.margin, claim.where, claim.best) == (0.001, {"bias": "no"}, "2024-01-01")


def test_a_message_does_not_list_thousands(tmp_path: Path) -> None:
    table, file = tmp_path / "table.csv", tmp_path / "claims.yaml"
    table.write_text("word,val_loss\n" + "\n".join(f"w{i:04},{i}" for i in range(3_000)) + "\n")
    file.write_text("claims: [{claim: x, factor: word, best: absent}]")
    with pytest.raises(AnalysisError, match=r"there are: w0000, .*, w0019 and 2,980 more$"):
        check_claims(load_trials(str(table)), file)


def test_a_claim_compares_a_hundred_levels_at_most(tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(f"claims: [{{claim: x, factor: word, equal: {list(range(101))}}}]")
    with pytest.raises(AnalysisError, match=r"claims\[0\]\.equal: .* at most 100 items"):
        load_claims(file)
