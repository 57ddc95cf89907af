"""The saved views as plain data; `test_ui_browser.py` holds them against the UI."""

import json
import math
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sweeps.tracking.views import MAX_TAG_CHARS, limit_charts, saved_views, view_link

RANKING = "mlflow.sharedViewState.ranking"
CURVES = "mlflow.sharedViewState.curves"


def state_of(tag: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(json.loads(tag)["state"])
    return state


def test_the_same_arguments_give_the_same_tags() -> None:
    tags = saved_views(["n_embd"], ["stage"])
    assert tags == saved_views(["n_embd"], ["stage"])
    assert list(tags) == [RANKING, CURVES]


def test_the_ranking_shows_each_param_once_and_then_the_losses() -> None:
    state = state_of(saved_views(["pe_type", "n_embd", "pe_type"], ["stage"])[RANKING])
    assert state["selectedColumns"] == [
        "params.`pe_type`",
        "params.`n_embd`",
        "metrics.`val_loss`",
        "metrics.`best_val_loss`",
        "tags.`stage`",
    ]
    assert list(state["columnWidths"]) == state["selectedColumns"]


@pytest.mark.parametrize("name", ["a`b", 'a"b', "a'b", "a\\b", "a b/c.d", "größe", "{}"])
def test_odd_names_come_through_both_layers_of_json(name: str) -> None:
    tags = saved_views([name], [name], sweep=name)
    columns = state_of(tags[RANKING])["selectedColumns"]
    assert (columns[0], columns[-1]) == (f"params.`{name}`", f"tags.`{name}`")


@pytest.mark.parametrize(
    ("sweep", "clause"), [("it's", 'tags.sweep = "it\'s"'), ('"x"', "tags.sweep = '\"x\"'")]
)
def test_a_sweep_is_quoted_by_the_quotes_that_it_lacks(sweep: str, clause: str) -> None:
    for tag in saved_views([], sweep=sweep).values():
        assert state_of(tag)["searchFilter"].endswith(f" AND {clause}")


def test_a_sweep_with_both_quotes_is_refused() -> None:
    with pytest.raises(ValueError, match="one kind of quotes"):
        saved_views([], sweep="'\"")


def test_a_view_that_no_tag_can_hold_is_refused() -> None:
    fitting = saved_views([f"param_{i}" for i in range(100)])
    assert max(map(len, fitting.values())) <= MAX_TAG_CHARS
    with pytest.raises(ValueError, match=f"MLflow takes {MAX_TAG_CHARS}"):
        saved_views([f"param_{i}" for i in range(1_000)])


def limits(losses: list[float]) -> list[tuple[float, float]]:
    """What the charts of the curves show, in nats."""
    view = limit_charts(saved_views(["n_embd"])[CURVES], losses)
    ranges = [chart["range"] for chart in state_of(view)["compareRunCharts"]]
    return [(10 ** each["yMin"], 10 ** each["yMax"]) for each in ranges]


@pytest.mark.parametrize(
    ("losses", "low", "high"),
    [
        ([2.0, 2.1, 2.1, 2.2, 4.5], 1.94, 2.6),  # the third quarter is 0.2 above the best
        ([2.0], 1.996, 2.04),
        ([2.0, 2.0, math.nan, math.inf, -1.0], 1.996, 2.04),
        ([0.01, 1.0, 1.0], 0.009, 2.98),  # no logarithm of what is below zero
    ],
)
def test_charts_show_where_trials_end_and_not_where_one_is_far_off(
    losses: list[float], low: float, high: float
) -> None:
    assert limits(losses) == [pytest.approx((low, high), abs=2e-3)] * 2


def test_charts_are_whole_while_no_trial_has_ended() -> None:
    view = saved_views(["n_embd"])[CURVES]
    assert limit_charts(view, []) == limit_charts(view, [math.nan]) == view


def test_curves_are_not_grouped() -> None:
    for view in saved_views(["n_embd"], ["stage"]).values():
        assert "groupBy" not in state_of(view), "a mean over trials jumps where one of them ends"


def test_a_link_names_the_view_and_nothing_that_suppresses_it() -> None:
    link = urlsplit(view_link("http://127.0.0.1:5000/", "7", "curves"))
    assert (link.scheme, link.netloc, link.path) == ("http", "127.0.0.1:5000", "/")
    route, query = link.fragment.split("?")
    assert route == "/experiments/7/runs"
    assert parse_qs(query) == {
        "workflowType": ["machine_learning"],
        "compareRunsMode": ["CHART"],
        "viewStateShareKey": ["curves"],
    }


def test_a_link_to_no_view_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown view 'rank'; there are: ranking, curves"):
        view_link("http://127.0.0.1:5000", "1", "rank")
