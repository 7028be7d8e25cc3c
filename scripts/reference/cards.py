"""Model cards to read, one for each bundle in the package, from the card that the program obeys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from scripts.reference.markdown import table

MODELS: Final = Path(__file__).parents[2] / "model_core" / "models"
MEASURES: Final = {
    "dice": "Dice",
    "hd95_mm": "HD95, mm",
    "sensitivity": "sensitivity",
    "lesion_dice": "lesion-wise Dice",
    "lesion_hd95_mm": "lesion-wise HD95, mm",
}
Card = Mapping[str, Any]


def pages() -> dict[str, str]:
    """Every card's page by its file name."""
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in MODELS.glob("*/card.json")]
    return {f"{card['name']}.md": page(card) for card in cards}


def page(card: Card) -> str:
    """One card as a page."""
    return "\n\n".join(part.rstrip() for part in _parts(card)) + "\n"


def _parts(card: Card) -> Iterator[str]:
    path = f"../../model_core/models/{card['name']}/card.json"
    yield f"# {card['name']}, version {card['version']}"
    yield (
        f"Made by `make reference` from [its card]({path}), which the program itself obeys. "
        f"`segmamba models {card['name']}` shows all of it."
    )
    yield f"## Intended use\n\n{card['intended_use']}"
    yield f"## Limitations\n\n{card['limitations']}"
    yield f"## The network\n\n{table(('', ''), _network(card))}"
    yield f"## Training\n\n{table(('', ''), _training(card['training']))}"
    yield from _evaluation(card)
    yield f"## Licence and sources\n\n{card['licence']}.\n\n{card['citation']}"


def _network(card: Card) -> Iterator[tuple[str, str]]:
    weights = card["weights"]
    parameters = f"{weights['parameters']:,}".replace(",", " ")
    yield "family", f"`{card['family']}`, {parameters} parameters"
    yield "input channels", ", ".join(card["channels"])
    yield "outputs", f"{', '.join(card['outputs'])} ({card['heads']})"
    yield "grid", f"{card['orientation']}, {_times(card['spacing_mm'])} mm"
    yield "normalisation", card["normalisation"]
    yield "window", f"{_times(card['window'])} voxels, overlap {card['overlap']:g}"
    yield "mirrored passes", f"{card['tta']} by default"
    yield "corrections", "; ".join(map(_step, card["postprocess"])) or "none"
    yield "numbering", f"`{card['label_scheme']}` by default"
    yield "SHA-256 of the weights", f"`{weights['sha256']}`"


def _training(training: Card) -> Iterator[tuple[str, str]]:
    yield "data", training["data"]
    yield "recipe", f"`{training['recipe']}`"
    known = {"step": "steps", "minutes": "minutes", "torch": "torch", "code_version": "code"}
    for key, word in known.items():
        if key in training:
            yield word, str(training[key])
    yield "cases", ", ".join(training.get("cases", ())) or "not told"
    yield "cases kept aside", ", ".join(training.get("validation_cases", ())) or "none"


def _evaluation(card: Card) -> Iterator[str]:
    evaluation = card["metrics"].get("evaluation")
    if not evaluation:
        yield "## Evaluation\n\nNone is recorded in the card."
        return
    count = len(evaluation["cases"])
    corrected = "with" if evaluation["corrected"] else "without"
    yield (
        f"## Evaluation\n\nOn {count} cases kept aside, on their own grid, {corrected} the card's "
        "corrections: mean ± standard deviation over cases."
    )
    rows = [
        (region, *(_spread(figures[key]) for key in MEASURES))
        for region, figures in evaluation["summary"].items()
    ]
    yield table(("Region", *MEASURES.values()), rows)
    yield table(("Case", *(f"{r}, Dice / HD95" for r in evaluation["summary"])), _cases(evaluation))
    yield f"{count} cases tell where it fails, not how often. Scores of other data sets differ."


def _cases(evaluation: Card) -> Iterator[tuple[str, ...]]:
    for case in evaluation["cases"]:
        regions = (case["regions"][name] for name in evaluation["summary"])
        yield case["case"], *(f"{r['dice']:.3f} / {r['hd95_mm']:.1f} mm" for r in regions)


def _spread(figures: Mapping[str, float]) -> str:
    digits = 1 if figures["mean"] > 1 else 3
    return f"{figures['mean']:.{digits}f} ± {figures['sd']:.{digits}f}"


def _step(step: Card) -> str:
    params = ", ".join(f"{name} {value}" for name, value in step["params"].items())
    return f"`{step['name']}` ({params})"


def _times(numbers: list[float]) -> str:
    return " × ".join(f"{number:g}" for number in numbers)
