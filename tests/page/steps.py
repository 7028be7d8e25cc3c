"""What a person does on the page, in steps that several tests share."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from PIL import Image

from model_core.labels import LABEL_COLOURS
from tests.page.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Page

LONG = 90_000
COLOURS = {label.name: colour for label, colour in LABEL_COLOURS.items()}


def choose(page: Page, files: list[Path]) -> None:
    """Choose files by the button, until the service has looked at them."""
    page.locator("#files").set_input_files([str(path) for path in files])
    page.locator("#run:enabled").wait_for()


def drop(page: Page, files: dict[str, bytes]) -> None:
    """Drop files onto the page."""
    sent = {name: base64.b64encode(content).decode() for name, content in files.items()}
    page.evaluate(
        """files => {
          const transfer = new DataTransfer();
          for (const [name, text] of Object.entries(files)) {
            const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
          }
          const said = {dataTransfer: transfer, bubbles: true, cancelable: true};
          const event = new DragEvent("drop", said);
          document.getElementById("drop").dispatchEvent(event);
        }""",
        sent,
    )


def run(page: Page, **options: str) -> str:
    """Set options by their selects and segment; returns the job's id from the address."""
    for name, value in options.items():
        page.locator(f"#{name}").select_option(value)
    page.locator("#run").click()
    page.locator("#state").wait_for()
    return job_of(page)


def job_of(page: Page) -> str:
    """The id in the address."""
    found = re.search(r"#job=([0-9a-f]{32})$", page.url)
    assert found, page.url
    return found[1]


def wait_for(page: Page, state: str) -> None:
    """Until the job is in that state."""
    page.locator(f"#state[data-state={state}]").wait_for(timeout=LONG)


def wait_for_picture(page: Page) -> None:
    """Until the viewer shows the result, or the page says why it cannot."""
    trouble = page.locator(".wait.failed, #problem:not([hidden])")
    page.locator("#readout[data-voxel]").or_(trouble).first.wait_for(timeout=LONG)
    assert trouble.count() == 0, trouble.first.inner_text()
    page.locator(".wait").wait_for(state="hidden", timeout=LONG)


def picture(page: Page) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The canvas as it is seen, rows by columns by RGB."""
    page.wait_for_timeout(300)  # the next frame, on a slow machine
    shot = page.locator("#gl").screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))


def pixels_of(shot: np.ndarray[Any, Any], label: str) -> int:
    """How many pixels have the colour of a label."""
    away = np.abs(shot.astype(int) - np.array(COLOURS[label])).max(axis=2)
    return int((away <= 14).sum())


def slide(page: Page, slider: str, value: int) -> None:
    """Move a slider as a drag or the keyboard does."""
    page.locator(f"#{slider}").evaluate(
        "(node, value) => { node.value = value; node.dispatchEvent(new Event('input')); }",
        value,
    )


def under_crosshair(page: Page) -> dict[str, Any]:
    """What the page says of the voxel under the crosshair."""
    data = page.locator("#readout").evaluate("node => ({...node.dataset})")
    return {
        "voxel": tuple(int(part) for part in data["voxel"].split(",")),
        "label": float(data["label"]),
        "value": float(data["value"]),
    }


def served(site: Site, job: str, name: str) -> nib.Nifti1Image:
    """A file of a result, opened by another reader than the page's."""
    content = site.client.get(f"/jobs/{job}/files/{name}").raise_for_status().content
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def shown_rows(page: Page, selector: str) -> list[list[str]]:
    """The cells of a table's body."""
    text = page.locator(f"{selector} tbody").first.evaluate(
        """body => JSON.stringify(
          [...body.rows].map(row => [...row.cells].map(cell => cell.innerText)))"""
    )
    rows: list[list[str]] = json.loads(text)
    return rows
