"""A file of claims is read as sweep files are."""

from __future__ import annotations

import json
import re
import textwrap
from math import nan
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from click.testing import CliRunner

from analysis import check_claims, load_trials
from analysis.claims.claim import Scope
from analysis.claims.claim_file import load_claims
from analysis.claims.forms import FORMS
from analysis.command import main
from analysis.errors import AnalysisError
from benchmarks.edges import EDGES


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("claims: " + "[" * 3_000, "line 1: more than 50 lists and maps"),
        ("claims: &a [*a]", "line 1: an alias inside of what it stands for"),
        ("claims:\n  ? [a]\n  : b", "line 2: a list or a map cannot be a key"),
        ("claims: []\nclaims: []", "line 2: 'claims' is given twice"),
        ("claims: !!float abc", "line 1: 'abc' is no value of !!float"),
        ("margin: 001\nclaims: []", "line 1: readers of YAML disagree on leading zeros"),
        (f"margin: 0{'4' * 500}\nclaims: []", "write it without them for a number, or quotes"),
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


def test_a_file_without_claims_says_so(tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text("claims: []")
    with pytest.raises(AnalysisError, match=f"^{re.escape(str(file))}: no claims given$"):
        load_claims(file)


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


STUDY = Path(__file__).parents[2] / "docs" / "results" / "replicated" / "trials.csv"
WIDTH = {"claim": "x", "where": {"variant": "attention"}, "factor": "n_embd"}


def test_the_verdicts_of_the_documented_examples_are_so(tmp_path: Path) -> None:
    text = (STUDY.parents[2] / "claims.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    file = tmp_path / "claims.yaml"
    file.write_text(block)
    found = check_claims(load_trials(str(STUDY)), file)
    verdicts = re.findall(r"- claim: .* # ([A-Z ]+)\n", block)
    assert [each.verdict for each in found] == verdicts
    assert {type(each.claim) for each in found} == {*FORMS}
    assert {each.claim.holds for each in found} == set(get_args(Scope))


def test_claims_in_python_are_what_they_are_in_a_file(tmp_path: Path) -> None:
    trials, file = load_trials(str(STUDY)), tmp_path / "claims.yaml"
    asked = {**WIDTH, "order": [64, 128], "holds": "on average"}
    file.write_text(json.dumps({"margin": 0.004, "claims": [asked]}))
    (read,) = check_claims(trials, file)
    (given,) = check_claims(trials, {"margin": 0.004, "claims": [asked]})
    (listed,) = check_claims(trials, [{**asked, "margin": 0.004}])
    (made,) = check_claims(trials, [read.claim])
    (single,) = check_claims(trials, {**asked, "margin": 0.004})
    (alone,) = check_claims(trials, read.claim)
    found = (given, listed, made, single, alone)
    assert all(read.claim == each.claim for each in found)
    assert all(read.decision == each.decision for each in found)
    assert check_claims(trials, str(file))[0].claim == read.claim


@pytest.mark.parametrize("levels", [(64, 128), np.array([64, 128]), [np.int64(64), np.int64(128)]])
def test_tuples_and_numbers_of_numpy_are_levels(levels: Any) -> None:
    (found,) = check_claims(load_trials(str(STUDY)), [{**WIDTH, "order": levels}])
    assert found.claim.order == [64, 128]


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ([{**WIDTH, "best": 99}], r"claims\[0\]\.best: no trial of 'trials' has n_embd=99; there"),
        ([{**WIDTH, "best": [64, 128]}], r"claims\[0\]\.best: expected a level, `any` to ask"),
        ([{**WIDTH, "best": {}}], r"claims\[0\]\.best: expected a level, `any` to ask"),
        ([{**WIDTH, "best": 64}, {**WIDTH, "bets": 64}], r"claims\[1\]\.bets: unknown; known: "),
        ([{**WIDTH, "factor": "x", "best": 1}], r"claims\[0\]\.factor: no trial .* setting 'x'"),
        ([WIDTH], r"claims\[0\]: with a `factor` give one of order, monotone,"),
        ([{1: 2}], r"claims\[0\]\.claim: is missing$"),
        ([5], r"claims\[0\]: a claim is a map, such as {claim: .*}, not 5$"),
        (["text"], r"claims\[0\]: a claim is a map, such as {claim: .*}, not 'text'$"),
        ([[[[[[1]]]]]], r"claims\[0\]: a claim is a map"),
        ({"claims": [WIDTH], "margins": 1}, "unknown 'margins'; known: claims, margin"),
        ({"claims": [{**WIDTH, "best": 64}], "margin": -1}, "margin: should be greater than 0"),
        ({"claims": [{**WIDTH, "best": 64}], "margin": nan}, "margin: should be a finite .* nan$"),
        ([{**WIDTH, "order": [64]}], r"claims\[0\]\.order: should have at least 2 items, not 1$"),
        ([{**WIDTH, "order": 64}], r"claims\[0\]\.order: should be a valid list, not 64$"),
        ([{**WIDTH, "claim": ""}], r"claims\[0\]\.claim: should not be empty$"),
        ([{**WIDTH, "where": []}], r"claims\[0\]\.where: should be a map, name: value, not \[\]$"),
        ([{**WIDTH, "trend": "up"}], r"claims\[0\]\.trend: should be .* 'rising', not 'up'$"),
        ({**WIDTH, "bets": 64}, r"claims\[0\]\.bets: unknown; known: "),
        ([], "no claims given$"),
        ({"claims": []}, "no claims given$"),
        (WIDTH, r"claims\[0\]: with a `factor` give one of order, monotone,"),
        ({"claims": WIDTH}, "claims: expected a file or a list of claims"),
        (5, "claims: expected a file or a list of claims"),
        ("absent.yaml", "absent.yaml: cannot be read: No such file"),
    ],
)  # fmt: skip
def test_a_wrong_claim_in_python_is_refused_by_its_place(claims: Any, message: str) -> None:
    with pytest.raises(AnalysisError, match=f"^{message}"):
        check_claims(load_trials(str(STUDY)), claims)


def test_the_help_shows_forms_of_claims_that_are_read(tmp_path: Path) -> None:
    text = CliRunner().invoke(main, ["conclusions", "--help"]).output
    shown = textwrap.dedent(re.search(r"( +claims:\n.*?)\n\n", text, re.DOTALL)[1])  # type: ignore[index]
    file = tmp_path / "claims.yaml"
    alternatives = re.findall(r"# or   (\w+: [^#\n]*)", shown)
    forms = [line.split(":")[0] for line in alternatives]
    assert forms == ["best", "best", "equal", "monotone", "trend"]
    for form, line in zip(("order", *forms), ("order: [rope, sinpe]", *alternatives), strict=True):
        others = re.sub(r"\n( +)order: .*", rf"\n\1{line}", shown)
        if form in ("monotone", "trend"):
            others = others.replace("pe_type", "n_embd")
        file.write_text(others)
        assert len(check_claims(load_trials(str(STUDY)), file)) == 2, form


def test_every_form_is_tried_at_the_edge_of_its_truth() -> None:
    assert {load_claims([edge.claim | {"claim": "x"}]).claims[0].keys for edge in EDGES} == {
        form.keys for form in FORMS
    }


def test_a_form_has_keys_that_no_other_has() -> None:
    keys = [key for form in FORMS for key in form.keys]
    assert len(set(keys)) == len(keys)
    assert all(set(form.keys) <= form.model_fields.keys() for form in FORMS)
