"""The functions of `analysis` in Python: what they take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import analysis
from analysis import AnalysisError

OF_TRIALS = [
    *("best_so_far", "check_claims", "configurations", "importance", "judged", "load_curves"),
    *("pareto_front", "pivot", "rankings", "suggestions", "tables", "winners"),
]
MORE = {"pivot": ["n_embd"]}


@pytest.mark.parametrize("name", OF_TRIALS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tiny", "not text: give it load_trials('tiny')"),
        (Path("a.csv"), "not text: give it load_trials('a.csv')"),
        (
            pd.DataFrame(),
            "not DataFrame: give it load_trials(NAME)",
        ),
        (None, "not NoneType: give it load_trials(NAME)"),
    ],
)
def test_what_is_no_trials_is_refused_with_the_remedy(name: str, given: Any, message: str) -> None:
    function, said = (
        getattr(analysis, name),
        re.escape(f"{name} takes the trials of a sweep, {message}"),
    )
    with pytest.raises(AnalysisError, match=said):
        function(given, *MORE.get(name, []))
    with pytest.raises(AnalysisError, match=said):
        function(trials=given, **({"by": "n_embd"} if name == "pivot" else {}))


def test_each_function_that_takes_trials_is_tried_above() -> None:
    functions = {name: getattr(analysis, name) for name in analysis.__all__}
    taking = [
        name
        for name, function in functions.items()
        if next(iter(getattr(function, "__annotations__", {})), "") == "trials"
    ]
    assert sorted(taking) == sorted(OF_TRIALS)
