"""The report of a sweep: its conclusions with their evidence, made from its runs alone."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from analysis.claims.conclusions import Conclusion
from analysis.claims.evidence import evidence_table
from analysis.claims.tables import contrasts_table
from analysis.figures.report_figures import SEARCH_FIGURES, figures
from analysis.reports.claim_texts import Link, claim_section, claims_overview
from analysis.reports.looks_text import looks_section
from analysis.reports.methods_text import methods
from analysis.reports.search_texts import basis, search_section
from analysis.results.published import PROTOCOL, comparison
from analysis.results.ranking import markdown
from analysis.text.document import Figure, Report, as_text, in_short, markdown_table
from analysis.trials.confirmed import judged, not_begun_note, studies_of
from analysis.trials.table import Trials

MOST_ROWS = 60  # of a table; the CSV files have all
MOST_CURVES = 60  # configurations, the best ones
STAGES = {  # titles
    "confirm": "Confirmed on fresh seeds",
    "": "Plain trials",
    "search": "Suggested by the search (optimistic: chosen by these losses)",
}


@dataclass(frozen=True)
class Evidence:
    """Trials, tables, curves and conclusions that a report shows."""

    trials: Trials
    tables: Mapping[str, pd.DataFrame]  # their `tables`
    curves: pd.DataFrame  # from `load_curves`
    conclusions: Sequence[Conclusion]
    tracking_uri: str = ""  # of a server, for links to its run pages
    valid: Sequence[str] = ()  # for which looks and claims the conclusions hold, in sentences
    on_text: Sequence[str] = ()  # of each conclusion: whether it would hold on other text
    looks: pd.DataFrame = field(default_factory=pd.DataFrame)  # of a sweep that stops by them


def runs_with_curves(ranking: pd.DataFrame) -> list[str]:
    """Return the runs whose learning curves a report shows."""
    return [run for runs in ranking["run_ids"].head(MOST_CURVES) for run in runs.split()]


def report(evidence: Evidence) -> Report:
    """Write the report; the same runs give the same text and figures."""
    trials = evidence.trials
    found = evidence.conclusions
    drawn = figures(trials, evidence.curves, contrasts_table(found), evidence_table(found))
    searched = search_section(trials, drawn)
    sections = [
        f"# Sweep {as_text(trials.experiment)}\n",
        _summary(evidence),
        *_conclusions(evidence, drawn),
        *searched,
        *_rankings(evidence.tables),
        *_figures(drawn, len(evidence.tables["ranking"]), bool(searched)),
        *_published(trials),
        *_left_out(trials),
        *_provenance(trials),
        *_caveats(evidence),
        "## Methods\n",
        methods(found),
        _libraries(),
    ]
    return Report(f"Sweep {trials.experiment}", "\n".join(sections), drawn)


def _summary(evidence: Evidence) -> str:
    trials = evidence.trials
    whole = judged(trials).comparable
    statuses = ", ".join(f"{n} {as_text(outcome)}" for outcome, n in trials.outcomes.items())
    settings = list(trials.settings)
    configured = len(trials.table.drop_duplicates(settings)) if settings else 1
    seeds = sorted(whole["seed"].unique()) if "seed" in trials.params else []
    about = trials.sweep.get("description", "")
    lines = [
        *(f"{as_text(part)}\n" for part in about.split("\n\n") if part),
        f"{len(trials.table)} trials ({statuses}) of {configured} configurations."
        f" Seeds: {', '.join(map(str, seeds[:20])) or 'not given'}.",
        "",
        _best(evidence.tables["ranking"], settings),
    ]
    if note := not_begun_note(trials):
        lines += [f"**{note}**", ""]
    if trials.sweep and not trials.plan_known:
        lines += [
            "Which trials the sweep planned is not known: its run does not have its plan.",
            "",
        ]
    if trials.status != "FINISHED":
        lines += [
            f"**The sweep is {trials.status}: what follows is about the trials so far.**",
            "",
        ]
    return "\n".join(lines)


def _best(ranking: pd.DataFrame, settings: Sequence[str]) -> str:
    """Return the first row of the ranking as a sentence."""
    first = ranking.iloc[0]
    known = " ".join(f"{n}={in_short(first[n])}" for n in settings if pd.notna(first[n]))
    seeds = "one seed" if first["n"] == 1 else f"mean over {first['n']} seeds"
    return (
        f"Lowest val_loss: **{first['val_loss']:.4f}** nats per character ({seeds})"
        f"{f' with {as_text(known)}' if known else ''}.\n"
    )


def _conclusions(evidence: Evidence, drawn: Mapping[str, Figure]) -> list[str]:
    conclusions = evidence.conclusions
    if not conclusions:
        return []
    link = Link(evidence.tracking_uri, evidence.trials.sweep.get("experiment_id", ""))
    valid = as_text(" ".join(evidence.valid))
    sections = ["## Conclusions\n", f"{valid}\n", claims_overview(conclusions)]
    sections += looks_section(evidence.looks)
    if figure := drawn.get("evidence"):
        sections.append(figure.markdown)
    if text := basis(evidence.trials):
        sections.insert(1, f"{as_text(text)}\n")
    for index, conclusion in enumerate(conclusions, start=1):
        on_text = evidence.on_text[index - 1] if evidence.on_text else ""
        sections.append(claim_section(index, conclusion, link, MOST_ROWS, on_text))
        if figure := drawn.get(f"differences_{index}"):
            sections.append(figure.markdown)
    return sections


def _rankings(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    sections = [
        "## Rankings\n",
        "val_loss in nats per character: the mean over n seeds; low and high bound its 95 %"
        " interval.\n",
    ]
    for name, table in tables.items():
        title = "All configurations" if name == "ranking" else f"By {name.removeprefix('by_')}"
        parts = {title: table}
        if name == "ranking" and "stage" in table:
            parts = {
                STAGES.get(str(stage), str(stage)): part.drop(columns="stage").dropna(
                    axis="columns", how="all"
                )
                for stage, part in table.groupby("stage", sort=False)
            }
        for heading, part in parts.items():
            shown = _shortened(markdown(part.head(MOST_ROWS)), len(part))
            sections += [f"### {as_text(heading)}\n", shown]
    return sections


def _figures(drawn: Mapping[str, Figure], configured: int, has_studies: bool) -> list[str]:
    elsewhere = ("differences_", "evidence", *(SEARCH_FIGURES if has_studies else ()))
    shown = [f.markdown for name, f in drawn.items() if not name.startswith(elsewhere)]
    if shown and configured > MOST_CURVES:
        shown.append(
            f"Learning curves: of the {MOST_CURVES} best of {configured} configurations.\n"
        )
    return ["## Figures\n", *shown] if shown else []


def _published(trials: Trials) -> list[str]:
    table = comparison(trials)
    if table.empty:
        return []
    text = [
        "## Against the published numbers\n",
        "The published losses are single runs, measured on 200 random batches, which by itself"
        " scatters them by about 0.004. `difference` is ours less theirs; `low` and `high` bound"
        " where one more run of ours would lie with 95 % probability.\n",
    ]
    unknown = [name for name in PROTOCOL if name not in trials.params]
    if unknown:
        text.append(f"Whether the protocol was the study's is not known ({', '.join(unknown)}).\n")
    known = table["within"].dropna()
    if len(known):
        apart = table["difference"].abs()
        text.append(
            f"Within that range lie {int(known.sum())} of {len(known)} published losses. The"
            f" differences are {apart.mean():.4f} on average and {apart.max():.4f} at most.\n"
        )
    else:
        text.append("With one seed there is no spread to hold them against.\n")
    shown = table.assign(within=table["within"].map({True: "yes", False: "no"}))
    decimals = dict.fromkeys(["published", "val_loss", "difference", "low", "high"], 5)
    return [*text, markdown_table(shown, decimals)]


def _left_out(trials: Trials) -> list[str]:
    rows = trials.other_than(judged(trials).comparable)
    if rows.empty:
        return []
    title = ["## Not counted in the conclusions\n"]
    if trials.search:
        suggested = rows["stage"] == "search"
        rows = rows[~suggested]
        number = int(suggested.sum())
        text = f"{number} trial{'s' * (number > 1)} that the search suggested"
        if rows.empty:
            return [*title, f"{text}.\n"]
        title += [f"{text}, and:\n"] if number else []
    shown = rows[["run_id", *trials.varying, "val_loss", "why"]].head(MOST_ROWS)
    return [*title, _shortened(markdown_table(shown, {"val_loss": 5}), len(rows))]


def _provenance(trials: Trials) -> list[str]:
    rows = {
        "experiment": trials.experiment,
        "command": trials.sweep.get("command"),
        "corpus": _values(trials, "corpus"),
        "corpus sha256": _values(trials, "corpus_digest"),
        "code version": _values(trials, "code_version"),
        "versions": trials.sweep.get("versions"),
        "hardware": _values(trials, "hardware"),
        "training": _training_time(trials),
    }
    known = [(name, value) for name, value in rows.items() if value]
    return ["## Provenance\n", markdown_table(pd.DataFrame(known, columns=["what", "value"]))]


def _values(trials: Trials, column: str) -> str:
    """Return the values of a column, with the number of trials of each where they differ."""
    if column not in trials.table:
        return ""
    counts = trials.table[column].replace("", pd.NA).dropna().value_counts().sort_index()
    if len(counts) == 1:
        return str(counts.index[0])
    return "; ".join(f"{value} ({number} trials)" for value, number in counts.items())


def _training_time(trials: Trials) -> str:
    seconds = trials.finished["training_seconds"].sum()
    spent = f"{seconds / 3600:.2f} hours" if seconds >= 3600 else f"{seconds:.0f} seconds"
    return f"{spent} of steps, added over trials" if seconds else ""


def _caveats(evidence: Evidence) -> list[str]:
    trials = evidence.trials
    fixed = [name for name in trials.params if name not in (*trials.varying, "seed")]
    held = ", ".join(f"{name}={trials.table[name].iloc[0]}" for name in fixed) or "nothing known"
    tuned = trials.search is not None and studies_of(trials)
    lines = [
        f"- Held fixed: {as_text(held)}. Another value of these may order the configurations"
        " otherwise;"
        + (
            " what was tuned is the best that the search saw, not the best that there is."
            if tuned
            else " a learning rate that suits one may not suit another."
        ),
        "- One text, split once. The intervals are about other seeds, not about other texts.",
        "- A claim about every cell is about the cells of this sweep.",
    ]
    for index, conclusion in enumerate(evidence.conclusions, start=1):
        for name, number in conclusion.differs.items():
            lines.append(
                f"- Claim {index} compares trials that also differ in {as_text(name)}, in {number}"
                f" of {len(conclusion.contrasts)} differences. That is fair only where their"
                " losses do not depend on it."
            )
    return ["## Caveats\n", "\n".join(lines) + "\n"]


def _libraries() -> str:
    names = ("scipy", "statsmodels", "pandas", "matplotlib", "optuna")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"Computed with {versions}.\n"


def _shortened(table: str, rows: int) -> str:
    if rows <= MOST_ROWS:
        return table
    return f"{table}\nThe first {MOST_ROWS} of {rows} rows; the CSV files have all.\n"
