"""The saved views of a sweep's MLflow experiment, and the links that open them.

Left alone, the MLflow UI shows a table without params or metrics and charts the first ten runs. A
saved view mends that. It is an experiment tag, `mlflow.sharedViewState.<key>`, in a format that is
internal to the UI. What is relied on here was read in the bundle of MLflow 3.17.2; the browser
test holds it.

- The tag's value is a JSON object: `name` (shown in the menu of saved views), `createdAt` and
  `updatedAt` (ms since the epoch), and `state`, which is JSON again, as a string. A key that
  `state` lacks has the UI's default.
- What is fetched: `searchFilter`, `orderByKey`, `orderByAsc`. Runs without the metric come last.
- The table: `selectedColumns`, `columnOrder` and `columnWidths` (pixels) name a column as
  ``params.`n_embd` ``, ``metrics.`val_loss` `` or `duration`, which cannot be hidden.
- The charts: `runsHiddenMode` is FIRST_10_RUNS unless SHOW_ALL is said; `groupBy` holds
  `aggregateFunction` (min, average, max) and `groupByKeys`; `compareRunSections` have a `uuid` that
  their cards in `compareRunCharts` name as `metricSectionId`.
- A line card that leaves out `lineSmoothness` and `useGlobalLineSmoothing` is smoothed by the UI:
  wrong numbers, silently. A grouped chart fills down to zero unless its `scaleType` is log.
- The link needs `workflowType` and `compareRunsMode`. With `searchFilter` or `orderByKey` beside
  it `viewStateShareKey` is ignored. The UI itself adds these to the address once the view is open,
  so reloading the page loses the columns and charts; the menu of saved views brings them back, but
  keeps table or charts as they were.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, urlencode

from analysis.messages import address_of

LOSSES = ("val_loss", "train_loss")  # metrics by step, nats per character
RANKED_BY = "val_loss"
TAG_PREFIX = "mlflow.sharedViewState."
MAX_TAG_CHARS = 20_000  # MLflow refuses a longer experiment tag
SAVED_AT_MS = 0  # the UI shows no dates of views; a constant keeps the tags reproducible

_WORKFLOW = {"workflowType": "machine_learning"}  # else a fresh browser shows pages for agents
_MODES: Mapping[str, str] = {"ranking": "TABLE", "curves": "CHART"}


def saved_views(
    params: Sequence[str], group_by: str | None, *, sweep: str | None = None
) -> dict[str, str]:
    """Experiment tags, name to value, that give an experiment its views `ranking` and `curves`.

    `ranking` is the table of trials by val_loss, best first; `curves` charts val_loss and
    train_loss of all trials by step. Each holds the other's layout too, for the buttons of the UI
    that turn a table into charts and back; only `curves` is grouped. Both leave out failed trials,
    whose last loss says nothing, and runs without the tag `role=trial`, such as the parent.

    Args:
        params: the ranking's first columns, in this order.
        group_by: a param; trials that share its value become one curve, their mean with the band
            from minimum to maximum. None draws each trial.
        sweep: only trials with this tag `sweep`; None takes every trial of the experiment.

    Raises:
        ValueError: a view is too long for a tag, or `sweep` cannot be quoted in a filter.
    """
    trials = {
        "searchFilter": _filter(sweep),
        "orderByKey": _metric(RANKED_BY),
        "orderByAsc": True,
        "runsHiddenMode": "SHOW_ALL",
    }
    state = trials | _table(params) | _charts()
    curves_name = "Curves" if group_by is None else f"Curves by {group_by}"
    return {
        TAG_PREFIX + "ranking": _tag(f"Ranking by {RANKED_BY}", state),
        TAG_PREFIX + "curves": _tag(curves_name, state | _grouping(group_by)),
    }


def view_link(base_url: str, experiment_id: str, view: str) -> str:
    """The address that opens an experiment on one of its saved views.

    Raises:
        ValueError: there is no such view.
    """
    if view not in _MODES:
        raise ValueError(f"unknown view {view!r}; there are: {', '.join(_MODES)}")
    query = {
        **_WORKFLOW,
        "compareRunsMode": _MODES[view],
        "viewStateShareKey": view,
    }
    experiment = quote(experiment_id, safe="")
    return f"{base_url.rstrip('/')}/#/experiments/{experiment}/runs?{urlencode(query)}"


def server_address(uri: str) -> str:
    """Where people open the server at a tracking URI: SWEEPS_UI_ADDRESS, if it says otherwise.

    In a network of containers the server has a name that no browser knows.
    """
    return os.environ.get("SWEEPS_UI_ADDRESS") or address_of(uri)


def artifact_link(experiment_id: str, run_id: str, artifact: str) -> str:
    """The address of an artifact's preview, for a page of the same UI."""
    experiment, run = quote(experiment_id, safe=""), quote(run_id, safe="")
    address = f"#/experiments/{experiment}/runs/{run}/artifacts/{quote(artifact)}"
    return f"{address}?{urlencode(_WORKFLOW)}"


def _filter(sweep: str | None) -> str:
    clauses = ["tags.role = 'trial'", "attributes.status != 'FAILED'"]
    if sweep is not None:
        clauses.append(f"tags.sweep = {_quoted(sweep)}")
    return " AND ".join(clauses)


def _quoted(value: str) -> str:
    """A string of MLflow's filter language, which has two kinds of quotes and no escapes."""
    for quote_mark in ("'", '"'):
        if quote_mark not in value:
            return f"{quote_mark}{value}{quote_mark}"
    raise ValueError(f"a sweep's name may have one kind of quotes, not both: {value}")


def _table(params: Iterable[str]) -> dict[str, object]:
    names = {f"params.`{name}`": name for name in params}
    names |= {_metric(name): name for name in (RANKED_BY, f"best_{RANKED_BY}")}
    return {
        "selectedColumns": list(names),
        "columnOrder": [*names, "duration"],
        "columnWidths": {column: _width_px(name) for column, name in names.items()},
    }


def _width_px(name: str) -> int:
    """As wide as the header needs: the columns of a small sweep fit beside the assistant panel."""
    return max(80, 28 + 8 * len(name))


def _charts() -> dict[str, object]:
    section = {"uuid": "losses", "name": "Loss by step", "display": True, "isReordered": False}
    layout = {"columns": len(LOSSES), "cardHeight": 520}  # pixels
    return {
        "compareRunSections": [section | layout],
        "compareRunCharts": [_line_chart(metric, "losses") for metric in LOSSES],
    }


def _grouping(param: str | None) -> dict[str, object]:
    if param is None:
        return {}
    key = {"mode": "param", "groupByData": param}
    return {"groupBy": {"aggregateFunction": "average", "groupByKeys": [key]}}


def _line_chart(metric: str, section: str) -> dict[str, object]:
    return {
        "uuid": f"{section}-{metric}",
        "type": "LINE",
        "metricSectionId": section,
        "isGenerated": False,
        "deleted": False,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "log",
        "lineSmoothness": 0,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _tag(name: str, state: Mapping[str, object]) -> str:
    view = {
        "name": name,
        "createdAt": SAVED_AT_MS,
        "updatedAt": SAVED_AT_MS,
        "state": json.dumps(state, ensure_ascii=False),
    }
    value = json.dumps(view, ensure_ascii=False)
    if len(value) > MAX_TAG_CHARS:
        raise ValueError(
            f"the saved view {name!r} has {len(value)} characters, MLflow takes {MAX_TAG_CHARS}: "
            "name fewer params"
        )
    return value
