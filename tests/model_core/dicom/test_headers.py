"""One file's header: facts and frames come out, whatever is unsafe or unreadable is refused."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    MPEG2MPML,
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from model_core.dicom.facts import SeriesFacts
from model_core.dicom.headers import KEYWORDS, read_header
from model_core.dicom.limits import DicomLimits
from model_core.errors import ImageError
from tests.dicom_series import (
    PLANTED,
    T1_FACTS,
    SeriesRecipe,
    enhanced_of,
    geometry_affine,
    series_uid,
    slices_of,
    study_uid,
    uid_of,
)

SHAPE = (8, 9, 5)
IMAGE = np.random.default_rng(0).integers(0, 2000, SHAPE)
AFFINE = geometry_affine("coronal", shape=SHAPE, spacing=(0.5, 0.75, 2.0))
ENOUGH = ("Rows", "Columns", "BitsAllocated")
RICH_FACTS = replace(
    T1_FACTS,
    scan_options=("PFP", "FS"),
    contrast_agent="an agent",
    b_value=1000.0,
    acquired=13 * 3600 + 7 * 60 + 5.25,
)


def one_slice(**extra: Any) -> Dataset:
    return slices_of(IMAGE, AFFINE, SeriesRecipe(extra=extra))[0]


def saved(path: Path, dataset: Dataset) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that no honest writer would write
        dataset.save_as(path, enforce_file_format=True)
    return path


def refusal(path: Path, limits: DicomLimits | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        read_header(path, limits=limits or DicomLimits())
    assert caught.value.argument == "dicom"
    assert str(path) not in str(caught.value)
    return str(caught.value)


def test_a_slice_says_its_facts_and_its_place(tmp_path: Path) -> None:
    recipe = SeriesRecipe(facts=RICH_FACTS, scaling=(2.0, -5.0))
    header = read_header(saved(tmp_path / "a", slices_of(IMAGE, AFFINE, recipe)[3]))
    assert header.facts == RICH_FACTS
    assert header.series_uid == series_uid(recipe)
    assert header.study_uid == study_uid(recipe)
    assert header.frame_of_reference_uid == uid_of("frame", "study")
    assert header.problems == header.warnings == ()
    (frame,) = header.frames
    assert frame.size == (9, 8)
    assert frame.spacing == (0.75, 0.5)
    assert frame.scaling == (2.0, -5.0)
    assert frame.orientation == (1, 0, 0, 0, 0, -1)
    place = np.diag([-1, -1, 1]) @ (AFFINE @ [0, 0, 3, 1])[:3]
    assert frame.position == pytest.approx(place, abs=1e-9)
    assert frame.traits.echo_time_ms == RICH_FACTS.echo_time_ms


def test_an_enhanced_file_says_the_same_of_all_its_frames(tmp_path: Path) -> None:
    facts = replace(RICH_FACTS, acquisition_contrast="T1")
    recipe = SeriesRecipe(facts=facts, scaling=(2.0, -5.0))
    header = read_header(saved(tmp_path / "a", enhanced_of(IMAGE, AFFINE, recipe)))
    told_elsewhere = {"scanning_sequence": (), "sequence_variant": (), "scan_options": ()}
    assert header.facts == replace(facts, **told_elsewhere)  # type: ignore[arg-type]
    assert [frame.index for frame in header.frames] == [0, 1, 2, 3, 4]
    places = {frame.position for frame in header.frames}
    expected = {
        tuple(np.round(np.diag([-1, -1, 1]) @ (AFFINE @ [0, 0, k, 1])[:3], 9)) for k in range(5)
    }
    assert {tuple(np.round(place, 9)) for place in places if place} == expected
    assert {frame.scaling for frame in header.frames} == {(2.0, -5.0)}
    assert {frame.spacing for frame in header.frames} == {(0.75, 0.5)}


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_byte_order_says_the_same(tmp_path: Path, syntax: str) -> None:
    dataset = one_slice()
    plain = read_header(saved(tmp_path / "plain", dataset))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = dataset.pixel_array.byteswap().tobytes()
    other = read_header(saved(tmp_path / "other", dataset))
    assert other.transfer_syntax == syntax
    assert other.facts == plain.facts
    assert other.frames[0].position == plain.frames[0].position


def test_what_is_absent_is_empty_and_zero_is_not_absent(tmp_path: Path) -> None:
    bare = one_slice()
    for element in list(bare):
        kept = element.keyword.endswith("UID") or element.keyword in ENOUGH
        if element.keyword in KEYWORDS and not kept:
            del bare[element.tag]
    assert read_header(saved(tmp_path / "bare", bare)).facts == SeriesFacts()
    zero = one_slice(EchoTime=0, ContrastBolusAgent="", DiffusionBValue=0.0)
    facts = read_header(saved(tmp_path / "zero", zero)).facts
    assert (facts.echo_time_ms, facts.b_value, facts.contrast_agent) == (0.0, 0.0, "")


def test_nothing_of_the_patient_is_kept(tmp_path: Path) -> None:
    recipe = SeriesRecipe(patient=PLANTED)
    header = read_header(saved(tmp_path / "a", slices_of(IMAGE, AFFINE, recipe)[0]))
    words = repr((header.facts, header.frames, header.problems, header.warnings, header.study_uid))
    assert not [value for value in PLANTED.values() if len(value) > 2 and value in words]
    assert not set(PLANTED) & set(KEYWORDS)


def test_a_report_has_no_frames_and_no_problem(tmp_path: Path) -> None:
    no_image = {"Rows": None, "Columns": None, "PixelData": None}
    report = one_slice(SOPClassUID=BasicTextSRStorage, **no_image)
    header = read_header(saved(tmp_path / "a", report))
    assert header.frames == header.problems == ()
    assert "without, or cut off" in refusal(saved(tmp_path / "b", one_slice(**no_image)))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "kind of image"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "dark and bright"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
        ({"BitsAllocated": 32, "PixelData": bytes(4 * 72)}, "bits"),
        ({"ModalityLUTSequence": [Dataset()]}, "lookup table"),
        ({"Rows": 4000, "Columns": 1, "PixelData": bytes(8000)}, "rows or columns"),
        ({"Rows": 10}, "cut off"),
        ({"PixelData": None}, "cut off, or holds no pixels"),
    ],
)
def test_what_makes_no_volume_is_said(tmp_path: Path, extra: dict[str, Any], words: str) -> None:
    header = read_header(saved(tmp_path / "a", one_slice(**extra)))
    (problem,) = header.problems
    assert words in problem


def test_an_object_that_can_make_no_volume_is_never_refused_for_what_it_says(
    tmp_path: Path,
) -> None:
    """A segmentation of a thousand frames among the images, for instance."""
    other = enhanced_of(IMAGE, AFFINE)
    other.SOPClassUID, other.NumberOfFrames, other.Rows = SegmentationStorage, 1000, 60_000
    header = read_header(saved(tmp_path / "a", other))
    assert len(header.frames) == 1
    assert header.problems == ("not a kind of image that can make a volume",)
    del other.SeriesInstanceUID
    assert read_header(saved(tmp_path / "b", other)).frames == ()


def test_loss_is_said(tmp_path: Path) -> None:
    header = read_header(saved(tmp_path / "a", one_slice(LossyImageCompression="01")))
    assert header.warnings == ("the images were compressed with loss at some time",)


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (DeflatedExplicitVRLittleEndian, "a deflated file"),
        (MPEG2MPML, "another encoding"),
        (HTJ2KLossless, "another encoding"),
        ("1.2.3.4", "another encoding"),
    ],
)
def test_other_encodings_are_refused(tmp_path: Path, syntax: str, words: str) -> None:
    path = saved(tmp_path / "a", one_slice())
    data = path.read_bytes()
    old = b"1.2.840.10008.1.2.1\0"
    place = data.index(old)
    new = syntax.encode() + b"\0" * (len(syntax) % 2)
    length = len(new).to_bytes(2, "little")
    path.write_bytes(data[: place - 2] + length + new + data[place + len(old) :])
    assert words in refusal(path)


def test_a_file_that_does_not_say_its_encoding_is_refused(tmp_path: Path) -> None:
    uid = b"1.2.840.10008.1.2.1\0"
    path = spoilt_file(tmp_path, lambda data: data.replace(uid, b" " * len(uid)))
    assert "another encoding" in refusal(path)


@pytest.mark.parametrize("mark", [b"MZ", b"\x7fELF", b"#!/bin/sh\n"])
def test_a_program_in_front_of_a_dicom_file_is_refused(tmp_path: Path, mark: bytes) -> None:
    path = saved(tmp_path / "a", one_slice())
    path.write_bytes(mark + path.read_bytes()[len(mark) :])
    assert "begins like a" in refusal(path)


def test_a_tiff_mark_in_front_of_a_dicom_file_is_allowed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", one_slice())
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])
    assert read_header(path).facts == T1_FACTS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"hello", "something else"),
        (b"PK\x03\x04" + bytes(400), "a zip archive"),
        (b"\x89PNG" + bytes(400), "a PNG picture"),
        (bytes(132), "something else"),
        (bytes(128) + b"DICM", "another encoding"),
    ],
)
def test_what_is_no_dicom_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert words in refusal(path)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_what_cannot_be_opened_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "missing" if kind == "missing" else tmp_path
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize(
    ("extra", "limits", "words"),
    [
        ({}, {"file_bytes": 500}, "at most 500 bytes"),
        ({}, {"voxels": 71}, "71 voxels"),
        ({"NumberOfFrames": 4}, {"files": 3}, "3 frames"),
        ({"NumberOfFrames": 0}, {}, "no number"),
        ({"Rows": 65535, "Columns": 65535}, {}, "voxels"),
        ({"SeriesDescription": "x" * 60}, {"header_bytes": 600}, "600 bytes"),
        ({}, {"header_reads": 50}, "50 pieces"),
        ({"SeriesInstanceUID": None}, {}, "0020,000E"),
    ],
)
def test_each_limit_holds(
    tmp_path: Path, extra: dict[str, Any], limits: dict[str, int], words: str
) -> None:
    assert words in refusal(saved(tmp_path / "a", one_slice(**extra)), DicomLimits(**limits))


def test_private_tags_before_the_pixels_cost_nothing(tmp_path: Path) -> None:
    dataset = one_slice()
    dataset.add_new(0x00290010, "LO", "SOMEBODY")
    dataset.add_new(0x00291001, "OB", bytes(2**20))
    path = saved(tmp_path / "a", dataset)
    assert read_header(path, limits=DicomLimits(header_bytes=2**14)).facts == T1_FACTS


def test_frames_and_their_groups_must_be_as_many(tmp_path: Path) -> None:
    dataset = enhanced_of(IMAGE, AFFINE)
    dataset.NumberOfFrames = 4
    assert "5 for 4 frames" in refusal(saved(tmp_path / "a", dataset))


def bad_values() -> list[tuple[str, bytes]]:
    return [
        ("a word for a number", b"abc"),
        ("two numbers for one", b"1\\2"),
        ("infinity", b"1e999"),
        ("no number", b"nan"),
        ("bytes", b"\xff\xfe\x00\x01"),
        ("a very long number", b"9" * 5000),
    ]


@pytest.mark.parametrize(("kind", "value"), bad_values())
@pytest.mark.parametrize("keyword", ["EchoTime", "RescaleSlope", "PixelSpacing", "SeriesNumber"])
def test_a_value_of_the_wrong_kind_counts_as_unreadable_and_nobody_hears_it(
    tmp_path: Path, keyword: str, kind: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = one_slice(RescaleSlope=1)
    place = dcmread(saved(tmp_path / "good", dataset)).get_item(keyword).value_tell  # type: ignore[union-attr]
    data = (tmp_path / "good").read_bytes()
    old = int.from_bytes(data[place - 2 : place], "little")
    value += b" " * (len(value) % 2)
    spoilt = data[: place - 2] + len(value).to_bytes(2, "little") + value + data[place + old :]
    (tmp_path / "bad").write_bytes(spoilt)
    with caplog.at_level(logging.DEBUG):
        header = read_header(tmp_path / "bad")
    assert not caplog.records
    frame = header.frames[0]
    readable = {
        "EchoTime": header.facts.echo_time_ms,
        "RescaleSlope": frame.scaling,
        "PixelSpacing": None if kind == "two numbers for one" else frame.spacing,
        "SeriesNumber": header.facts.number,
    }
    assert readable[keyword] is None


def spoilt_file(tmp_path: Path, change: Callable[[bytes], bytes]) -> Path:
    path = saved(tmp_path / "a", one_slice())
    path.write_bytes(change(path.read_bytes()))
    return path


def test_warnings_and_log_lines_of_the_reader_stay_inside_and_its_settings_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = spoilt_file(tmp_path, lambda data: data.replace(b"t1 native", b"t\xff\xfe\xfdative"))
    level = logging.getLogger("pydicom").level
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        read_header(path)
    assert not heard
    assert not caplog.records
    assert logging.getLogger("pydicom").level == level


def test_the_size_of_jpeg_2000_says_nothing_about_the_header(tmp_path: Path) -> None:
    dataset = one_slice()
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset["PixelData"].is_undefined_length = True
    dataset.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0\4\0\0\0\0\0\0\0"
    assert read_header(saved(tmp_path / "a", dataset)).frames[0].size == (9, 8)
