"""What a search for corrections is reported as: evidence for the card, JSON, and a page to read.

Cases are called by their shown names (`training.naming.shown_names`): reports travel.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from jinja2 import Environment

from model_core.postprocess import Step
from training.judge.find_corrections import Finding, Trial
from training.judge.scoreboard import Scoreboard, Scores

WARNING: Final = (
    "These cases chose the corrections: report scores on other cases, or the left-out column."
)
TITLES: Final = {"dice": "Dice", "lesion-dice": "lesion-wise Dice"}
Values = dict[str, Any]


def evidence_of(finding: Finding, board: Scoreboard, notes: Sequence[str] = ()) -> Values:
    """The short form, which goes into the corrections file and the card of an export."""
    return {
        "what": f"mean {TITLES[board.objective]} over {len(board)} cases that their models were "
        "not trained on",
        "verdict": finding.verdict,
        "warning": WARNING,
        "objective": board.objective,
        "cases": list(board.names),
        "before": _means(finding.before, board),
        "after": _means(finding.after, board),
        "left_out": None if finding.honest is None else _means(finding.honest, board),
        "searches_that_agree": finding.agreeing,
        "notes": list(notes),
    }


def report_of(finding: Finding, board: Scoreboard, notes: Sequence[str] = ()) -> Values:
    """The whole of it as JSON values: means, every candidate that was tried, every case."""
    report = evidence_of(finding, board, notes)
    if board.objective != "dice":
        report["dice_before"] = _means(board.dice(), board)
        report["dice_after"] = _means(board.dice(finding.found), board)
    return report | {
        "found": [step.model_dump() for step in finding.found],
        "kept": [step.model_dump() for step in finding.kept],
        "search": [_trial(trial, board) for trial in finding.trials],
        "per_case": [_case(finding, board, index) for index in range(len(board))],
    }


def say(step: Step) -> str:
    """``remove_small_components (region WT, min_mm3 100)``."""
    params = ", ".join(f"{name} {_number(value)}" for name, value in step.params.items())
    return f"{step.name} ({params})" if params else step.name


def page_of(finding: Finding, board: Scoreboard, notes: Sequence[str] = ()) -> str:
    """The report as one HTML file that needs no other."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
    return template.render(
        report=report_of(finding, board, notes),
        score=TITLES[board.objective],
        regions=board.regions,
        kept=[say(step) for step in finding.kept],
        found=[say(step) for step in finding.found],
        trials=[(t.stage, [(say(c.step), c.means, c.accepted) for c in t.tried], t.before)
                for t in finding.trials],
        picture=_picture(finding, board),
    )  # fmt: skip


def _means(scores: Scores, board: Scoreboard) -> dict[str, float]:
    """Per region and over all, to a ten-thousandth of a percent."""
    if not len(scores):
        return {}
    means = dict(zip(board.regions, scores.mean(axis=0).tolist(), strict=True))
    return {name: round(value, 6) for name, value in (means | {"mean": scores.mean()}).items()}


def _trial(trial: Trial, board: Scoreboard) -> Values:
    return {
        "stage": trial.stage,
        "before": dict(zip(board.regions, trial.before, strict=True)),
        "tried": [
            {
                **tried.step.model_dump(),
                "means": dict(zip(board.regions, tried.means, strict=True)),
                "accepted": tried.accepted,
            }
            for tried in trial.tried
        ],
    }


def _case(finding: Finding, board: Scoreboard, index: int) -> Values:
    rows = {"before": finding.before, "after": finding.after, "left_out": finding.honest}
    return {
        "case": board.names[index],
        **{
            when: dict(zip(board.regions, scores[index].tolist(), strict=True))
            for when, scores in rows.items()
            if scores is not None
        },
    }


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _picture(finding: Finding, board: Scoreboard) -> str:
    """Change of every case in every region, on cases left out, as a base64 PNG."""
    if finding.honest is None:
        return ""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(board.regions) + 0.6, 2.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(board.regions), sharey=True, squeeze=False)[0]
    for axes, name, before, after in zip(
        panels, board.regions, finding.before.T, finding.honest.T, strict=True
    ):
        change = np.sort(after - before)
        axes.bar(np.arange(len(change)), change, width=0.9, color="#0072b2")
        axes.set_xticks([])
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_title(name)
        axes.set_xlabel(f"{len(change)} cases, sorted")
    panels[0].set_ylabel(f"change of {TITLES[board.objective]}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Corrections</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; }
table { border-collapse: collapse; margin: 0.6rem 0 1.6rem; }
th, td { padding: 0.2rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
.kept td { background: #e3f1e6; font-weight: 600; }
.note { color: #8a4b00; }
img { max-width: 100%; }
</style></head><body>
<h1>Corrections of label maps</h1>
<p><strong>{{ report.verdict }}</strong></p>
<p>{{ report.what[0] | upper }}{{ report.what[1:] }}.</p>
{% for note in report.notes %}<p class="note">{{ note }}</p>
{% endfor %}
<h2>Before and after</h2>
<table>
<tr><th>{{ score }}</th>{% for name in report.before %}<th>{{ name }}</th>{% endfor %}</tr>
<tr><td>without corrections</td>
{% for value in report.before.values() %}<td>{{ "%.4f" % value }}</td>{% endfor %}</tr>
{% if report.found %}
<tr><td>with them, on the cases that chose them</td>
{% for value in report.after.values() %}<td>{{ "%.4f" % value }}</td>{% endfor %}</tr>
{% endif %}
{% if report.left_out %}
<tr class="kept"><td>each case with what the others chose (honest)</td>
{% for value in report.left_out.values() %}<td>{{ "%.4f" % value }}</td>{% endfor %}</tr>
{% endif %}
{% if report.dice_before %}
<tr><td>Dice without corrections</td>
{% for value in report.dice_before.values() %}<td>{{ "%.4f" % value }}</td>{% endfor %}</tr>
<tr><td>Dice with them</td>
{% for value in report.dice_after.values() %}<td>{{ "%.4f" % value }}</td>{% endfor %}</tr>
{% endif %}
</table>
{% if report.left_out %}
<p>{{ report.searches_that_agree }} of {{ report.cases | length }} searches with one case left
out chose the same steps. {{ report.warning }}</p>
<img alt="change of each case" src="data:image/png;base64,{{ picture }}">
{% endif %}
<h2>Steps</h2>
{% if kept %}<ol>{% for step in kept %}<li>{{ step }}</li>{% endfor %}</ol>
{% else %}<p>None.</p>{% endif %}
{% if found and not kept %}
<p>Found, but not confirmed: {{ found | join(", then ") }}.</p>
{% endif %}
{% if trials %}
<h2>What was tried</h2>
<p>Each stage goes on from what the stages before it accepted.</p>
{% for stage, tried, before in trials %}
<table>
<tr><th>{{ stage }}</th>{% for name in regions %}<th>{{ name }}</th>{% endfor %}</tr>
<tr><td>as it was</td>{% for value in before %}<td>{{ "%.4f" % value }}</td>{% endfor %}</tr>
{% for step, means, accepted in tried %}
<tr{% if accepted %} class="kept"{% endif %}><td>{{ step }}</td>
{% for value in means %}<td>{{ "%.4f" % value }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endfor %}
{% endif %}
<h2>Cases</h2>
<table>
<tr><th>case</th>{% for name in regions %}<th>{{ name }}</th>{% endfor %}</tr>
{% for case in report.per_case %}
<tr><td>{{ case.case }}</td>{% for name in regions %}<td>{{ "%.4f" % case.before[name] }}
{% if case.left_out %} &rarr; {{ "%.4f" % case.left_out[name] }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</table>
</body></html>
"""
