"""The saved views as plain data; `test_ui_browser.py` holds them against the UI."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sweeps.views import MAX_TAG_CHARS, saved_views, view_link

RANKING = "mlflow.sharedViewState.ranking"
CURVES = "mlflow.sharedViewState.curves"


def state_of(tag: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(json.loads(tag)["state"])
    return state


def test_the_same_arguments_give_the_same_tags() -> None:
    tags = saved_views(["n_embd"], "pe_type")
    assert tags == saved_views(["n_embd"], "pe_type")
    assert list(tags) == [RANKING, CURVES]


def test_the_ranking_shows_each_param_once_and_then_the_losses() -> None:
    state = state_of(saved_views(["pe_type", "n_embd", "pe_type"], None)[RANKING])
    assert state["selectedColumns"] == [
        "params.`pe_type`",
        "params.`n_embd`",
        "metrics.`val_loss`",
        "metrics.`best_val_loss`",
    ]
    assert list(state["columnWidths"]) == state["selectedColumns"]


@pytest.mark.parametrize("name", ["a`b", 'a"b', "a'b", "a\\b", "a b/c.d", "größe", "{}"])
def test_odd_names_come_through_both_layers_of_json(name: str) -> None:
    tags = saved_views([name], name, sweep=name)
    assert state_of(tags[RANKING])["selectedColumns"][0] == f"params.`{name}`"
    assert state_of(tags[CURVES])["groupBy"]["groupByKeys"] == [
        {"mode": "param", "groupByData": name}
    ]
    assert json.loads(tags[CURVES])["name"] == f"Curves by {name}"


@pytest.mark.parametrize(
    ("sweep", "clause"), [("it's", 'tags.sweep = "it\'s"'), ('"x"', "tags.sweep = '\"x\"'")]
)
def test_a_sweep_is_quoted_by_the_quotes_that_it_lacks(sweep: str, clause: str) -> None:
    for tag in saved_views([], None, sweep=sweep).values():
        assert state_of(tag)["searchFilter"].endswith(f" AND {clause}")


def test_a_sweep_with_both_quotes_is_refused() -> None:
    with pytest.raises(ValueError, match="one kind of quotes"):
        saved_views([], None, sweep="'\"")


def test_a_view_that_no_tag_can_hold_is_refused() -> None:
    fitting = saved_views([f"param_{i}" for i in range(100)], None)
    assert max(map(len, fitting.values())) <= MAX_TAG_CHARS
    with pytest.raises(ValueError, match=f"MLflow takes {MAX_TAG_CHARS}"):
        saved_views([f"param_{i}" for i in range(1_000)], None)


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
