"""The saved views of a sweep's MLflow experiment, and the links that open them.

By default the MLflow UI shows a table without params or metrics, and charts of the first ten runs.
A saved view corrects that. It is an experiment tag, `mlflow.sharedViewState.<key>`, in a format
that is internal to the UI. The following was read in the bundle of MLflow 3.17.2; the browser test
checks it.

- The tag's value is a JSON object: `name` (shown in the menu of saved views), `createdAt` and
  `updatedAt` (ms since the epoch), and `state`, a string of JSON. A key that `state` lacks has the
  UI's default.
- Which runs: `searchFilter`, `orderByKey`, `orderByAsc`. Runs without the metric come last.
- The table: `selectedColumns`, `columnOrder` and `columnWidths` (pixels) name a column as
  ``params.`n_embd` ``, ``tags.`stage` ``, ``metrics.`val_loss` `` or `duration`, which cannot be
  hidden.
- The charts: `runsHiddenMode` is FIRST_10_RUNS unless it is SHOW_ALL; `compareRunSections` have a
  `uuid` that their cards in `compareRunCharts` name as `metricSectionId`. Lines are not grouped:
  the mean of a group jumps wherever one of its trials ends.
- A line card that leaves out `lineSmoothness` and `useGlobalLineSmoothing` is smoothed by the UI,
  which shows wrong numbers without a notice. Its `range` counts if it has both `yMin` and `yMax`:
  decimal logarithms where `scaleType` is log.
- A run's tag `mlflow.runColor` (#rrggbb) is the colour of its lines.
- The browser alone decides where the home page leads (`mlflow.workflowType` in its local
  storage, which is "genai" at first): traces, until "Model training" is chosen. No tag and no
  setting of the server changes it.
- The link needs `workflowType` and `compareRunsMode`. With `searchFilter` or `orderByKey` beside
  it `viewStateShareKey` is ignored. The UI itself adds these to the address once the view is open,
  so reloading the page loses the columns and charts; the menu of saved views brings them back, but
  keeps table or charts as they were.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, urlencode

from analysis.text.links import WORKFLOW
from analysis.text.messages import address_of

LOSSES = ("val_loss", "train_loss")  # metrics by step, nats per character
RANKED_BY = "val_loss"
TAG_PREFIX = "mlflow.sharedViewState."
MAX_TAG_CHARS = 20_000  # MLflow refuses a longer experiment tag
SPAN = 3.0  # how far charts reach above the best, of the distance to the third quarter
MIN_SPAN = 0.02  # of the best loss
SAVED_AT_MS = 0  # the UI shows no dates of views; a constant keeps the tags reproducible

_MODES: Mapping[str, str] = {"ranking": "TABLE", "curves": "CHART"}


def saved_views(
    params: Sequence[str], tags: Sequence[str] = (), *, sweep: str | None = None
) -> dict[str, str]:
    """Return the experiment tags, name to value, of the views `ranking` and `curves`.

    `ranking` is the table of trials by val_loss, best first; `curves` charts val_loss and
    train_loss by step, one line for each trial. Each contains the other's layout too, for the
    buttons of the UI that turn a table into charts and back. Both leave out failed trials, whose
    last loss means nothing, and runs without the tag `role=trial`, such as the parent.

    Args:
        params: the ranking's first columns, in this order.
        tags: its last columns.
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
    state = trials | _table(params, tags) | _charts()
    names = {"ranking": f"Ranking by {RANKED_BY}", "curves": "Curves"}
    return {TAG_PREFIX + view: _tag(name, state) for view, name in names.items()}


def limit_charts(view: str, losses: Sequence[float]) -> str:
    """Return a saved view whose charts show the losses at which trials ended, not the first ones.

    Args:
        view: the value of its tag.
        losses: the last losses of trials, nats per character. A loss far above the others, as of a
            trial that learnt little, is outside the charts, because it would flatten them.
    """
    known = sorted(loss for loss in losses if 0 < loss < math.inf)
    if not known:
        return view
    best, usual = known[0], known[3 * (len(known) - 1) // 4]
    span = max(SPAN * (usual - best), MIN_SPAN * best)
    limits = max(best - 0.1 * span, 0.9 * best), best + span
    low, high = map(math.log10, limits)
    tag = json.loads(view)
    state = json.loads(tag["state"])
    for chart in state["compareRunCharts"]:
        chart["range"] = {"yMin": round(low, 6), "yMax": round(high, 6)}
    return _tag(tag["name"], state)


def view_link(base_url: str, experiment_id: str, view: str) -> str:
    """Return the address that opens an experiment with one of its saved views.

    Raises:
        ValueError: there is no such view.
    """
    if view not in _MODES:
        raise ValueError(f"unknown view {view!r}; there are: {', '.join(_MODES)}")
    query = {
        **WORKFLOW,
        "compareRunsMode": _MODES[view],
        "viewStateShareKey": view,
    }
    experiment = quote(experiment_id, safe="")
    return f"{base_url.rstrip('/')}/#/experiments/{experiment}/runs?{urlencode(query)}"


def server_address(uri: str) -> str:
    """Return the address of a tracking server for browsers: SWEEPS_UI_ADDRESS if that is set.

    In a network of containers the server has a name that no browser can resolve.
    """
    return os.environ.get("SWEEPS_UI_ADDRESS") or address_of(uri)


def _filter(sweep: str | None) -> str:
    clauses = ["tags.role = 'trial'", "attributes.status != 'FAILED'"]
    if sweep is not None:
        clauses.append(f"tags.sweep = {_quoted(sweep)}")
    return " AND ".join(clauses)


def _quoted(value: str) -> str:
    """Return a string of MLflow's filter language, which has two kinds of quotes and no escapes."""
    for quote_mark in ("'", '"'):
        if quote_mark not in value:
            return f"{quote_mark}{value}{quote_mark}"
    raise ValueError(f"a sweep's name may have one kind of quotes, not both: {value}")


def _table(params: Iterable[str], tags: Iterable[str]) -> dict[str, object]:
    names = {f"params.`{name}`": name for name in params}
    names |= {_metric(name): name for name in (RANKED_BY, f"best_{RANKED_BY}")}
    names |= {f"tags.`{name}`": name for name in tags}
    return {
        "selectedColumns": list(names),
        "columnOrder": [*names, "duration"],
        "columnWidths": {column: _width_px(name) for column, name in names.items()},
    }


def _width_px(name: str) -> int:
    """Return the width that the header needs: few columns fit beside the assistant panel."""
    return max(80, 28 + 8 * len(name))


def _charts() -> dict[str, object]:
    section = {"uuid": "losses", "name": "Loss by step", "display": True, "isReordered": False}
    layout = {"columns": len(LOSSES), "cardHeight": 520}  # pixels
    return {
        "compareRunSections": [section | layout],
        "compareRunCharts": [_line_chart(metric, "losses") for metric in LOSSES],
    }


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
