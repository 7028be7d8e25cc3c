"""What is known of a run beside its label map, in words: preparation, model, versions, sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from model_core.report.cuts import CONTRAST_TITLES
from model_core.report.words import Pairs, listed, told

_STEPS: Final[Mapping[str, str]] = {
    "bias": "Bias field corrected",
    "register": "Registered, rigid",
    "resample": "Resampled",
    "strip": "Skull taken off",
}
_DIGITS: Final = 16
"""Of a checksum, where the whole one stands in run.json."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """The accounts that came with a label map, as plain JSON values; each may be empty.

    Attributes:
        run: ``run.json``.
        report: ``report.json``.
        card: of the model.
        notes: what was done since to lay images on the label map, and what was left out.
    """

    run: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def flags(self) -> Sequence[Mapping[str, Any]] | None:
        """Quality flags; None where nobody checked, or nothing is known of it."""
        found: Sequence[Mapping[str, Any]] | None = self.run.get(
            "flags", self.report.get("quality")
        )
        return found

    def warnings(self) -> list[str]:
        """What was odd about the images."""
        told = self.run.get("warnings", self.report.get("warnings", ()))
        return [*(str(one) for one in told), *self.notes]


def facts_of(account: Account) -> Pairs:
    """When and with what the label map was made."""
    run, report = account.run, account.report
    model = run.get("model", {})
    name = model.get("name", report.get("model"))
    version = model.get("version", report.get("model_version"))
    return told(
        [
            ("Computed", str(run.get("started", "")).replace("T", " ").replace("Z", " UTC")),
            ("Model", f"{name}, version {version}" if name else ""),
            ("Program", _program(account)),
        ]
    )


def preparation_of(account: Account) -> list[str]:
    """What was done to the images before the network saw them, step by step."""
    done = account.report.get("preparation")
    if done is None:
        done = (account.run.get("preparation") or {}).get("account")
    if done is None:
        known = bool(account.run or account.report)
        return ["The images were taken as they came."] if known else []
    return [_step(one) for one in done.get("steps", ())]


def computing_of(account: Account) -> Pairs:
    """How the network was run."""
    engine: Mapping[str, Any] = account.run.get("engine", {})
    report = account.report
    window = report.get("window", {})
    tta: Mapping[str, Any] = engine.get("tta", report.get("tta", {}))
    choice = engine.get("window_choice", window.get("choice", ""))
    sides = engine.get("window", window.get("shape", ()))
    steps = [str(one.get("name", "?")).replace("_", " ") for one in report.get("postprocess", ())]
    return told(
        [
            ("Window", f"{choice}, {' × '.join(map(str, sides))} voxels" if choice else ""),
            ("Mirrored passes", f"{tta['passes']} ({tta.get('mode')})" if "passes" in tta else ""),
            ("Agreement of passes", _agreement(report.get("agreement"))),
            ("Corrections", ", ".join(steps)),
            ("Memory ran out", ", ".join(engine.get("memory_steps", ()))),
            ("Device", str(engine.get("device", report.get("device", "")))),
            ("Scan backend", str(engine.get("backend", report.get("backend", "")))),
            ("Arithmetic", str(engine.get("precision", report.get("precision", "")))),
        ]
    )


def model_of(account: Account) -> Pairs:
    """The card of the model: what it is for, what it was trained on, where it fails."""
    card = account.card
    training: Mapping[str, Any] = card.get("training", {})
    return told(
        [
            ("Intended use", str(card.get("intended_use", ""))),
            ("Limits", str(card.get("limitations", ""))),
            ("Trained on", str(training.get("data", ""))),
            ("Licence", str(card.get("licence", ""))),
            ("Cite", str(card.get("citation", ""))),
        ]
    )


def versions_of(account: Account) -> Pairs:
    """What computed the result."""
    packages = account.run.get("packages") or account.report.get("software") or {}
    engine: Mapping[str, Any] = account.run.get("engine", {})
    return told(
        [
            ("Program", _program(account)),
            ("Packages", listed(packages)),
            ("Machine", str(engine.get("machine", ""))),
        ]
    )


def checksums_of(account: Account) -> Pairs:
    """The beginnings of the SHA-256 sums that tie the report to its files."""
    run = account.run
    result, model = run.get("result", {}), run.get("model", {})
    weights = model.get("weights_sha256", account.report.get("weights_sha256", ""))
    pairs = [
        (f"Image {CONTRAST_TITLES.get(contrast, contrast)}", one.get("decoded_sha256", ""))
        for contrast, one in run.get("inputs", {}).items()
    ]
    pairs += [
        ("Weights", weights),
        ("Model card", model.get("card_sha256", "")),
        ("Label map, file", result.get("file", {}).get("sha256", "")),
        ("Label map, voxels", result.get("voxels_sha256", "")),
    ]
    return told([(name, str(digest)[:_DIGITS]) for name, digest in pairs])


def _program(account: Account) -> str:
    code: Mapping[str, Any] = account.run.get("code", {})
    version = code.get("version", account.report.get("software", {}).get("segmamba-service"))
    if version is None:
        return ""
    commit = f", commit {code['commit'][:12]}" if code.get("commit") else ""
    return f"segmamba-service {version}{commit}"


def _step(one: Mapping[str, Any]) -> str:
    name = _STEPS.get(str(one.get("step")), str(one.get("step", "?")))
    contrast = CONTRAST_TITLES.get(one.get("contrast", ""), "")
    return f"{name}{f': {contrast}' if contrast else ''}{_figures(one)} ({one.get('tool', '?')})."


def _figures(one: Mapping[str, Any]) -> str:
    """The numbers of a step that say something to a person."""
    if one.get("kept_headers"):
        return ", left where its header puts it"
    if "displacement_mm" in one:
        return f", moved by {one['displacement_mm']:.1f} mm and {one['rotation_deg']:.1f}°"
    if "brain_ml" in one:
        return f", brain of {one['brain_ml']:.0f} mL"
    return f", onto {one['grid']}" if "grid" in one else ""


def _agreement(found: Mapping[str, float] | None) -> str:
    return ", ".join(f"{region} {value:.2f}" for region, value in (found or {}).items())
