"""Names are planted wherever a DICOM file can hold one, and looked for in all that comes out."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import config, dcmread
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, RLELossless

from model_core.dicom.deidentify import Deidentifier, deidentify
from model_core.dicom.deidentify_rules import DUMMY, MACHINE_WORDS, TEXTS, rule_of
from model_core.dicom.headers import facts_of
from model_core.dicom.series import list_series
from model_core.dicom.volume import read_series
from model_core.errors import ImageError, OptionError
from tests.dicom_series import (
    PLAIN,
    PLANTED,
    SeriesRecipe,
    enhanced_of,
    geometry_affine,
    slices_of,
    with_facts,
    write_series,
)

SHAPE = (9, 8, 3)
AFFINE = geometry_affine("coronal", shape=SHAPE, spacing=(1.0, 1.25, 3.0), oblique=True)
KEY = b"sixteen bytes or more"
TOKEN = "Qxj7^Plantov"
NAME = "ZQVORNAM"
"""A surname that is a word of a code string too; it is the patient's."""
DATES = {"DA": "19330227", "TM": "235958.71", "DT": "19330227235958.71", "AS": "093Y"}
BINARY = ("OB", "OW", "OD", "OF", "OL", "OV", "UN")
NEEDED = (
    "Modality", "ImageType", "PhotometricInterpretation", "SpecificCharacterSet",
    "BurnedInAnnotation", "PatientIdentityRemoved",
)  # fmt: skip
STRUCTURE = ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@cache
def disguises(token: str) -> frozenset[bytes]:
    """A text as it looks after what might happen to it."""
    found: set[bytes] = set()
    for word in (token, token.lower(), token.upper()):
        found |= {word.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be")}
        found.add(word.encode().hex().encode())
    for before in range(3):
        whole = base64.b64encode(bytes(before) + token.encode())
        found.add(whole[-(-before * 8 // 6) : (before + len(token)) * 8 // 6])
    return frozenset(found)


def found_in(data: bytes, *tokens: str) -> list[str]:
    return [token for token in tokens if any(one in data for one in disguises(token))]


def image(recipe: SeriesRecipe = PLAIN, index: int = 0) -> Dataset:
    values = np.random.default_rng(3).integers(0, 4000, SHAPE)
    return slices_of(values, AFFINE, recipe)[index]


def as_bytes(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def cleaned(dataset: Dataset | bytes, key: bytes = KEY) -> Dataset:
    data = dataset if isinstance(dataset, bytes) else as_bytes(dataset)
    return dcmread(BytesIO(Deidentifier(key).clean(data).data))


def refused(dataset: Dataset | bytes) -> str:
    with pytest.raises(ImageError) as caught:
        cleaned(dataset)
    assert caught.value.argument == "dicom"
    return caught.value.got


def planted_value(vr: str) -> Any:
    if vr in BINARY:
        return b"".join(disguises(TOKEN)) + bytes(8 - len(b"".join(disguises(TOKEN))) % 8)
    if vr == "CS":
        return NAME
    return DATES.get(vr, TOKEN)


def plant_everywhere(dataset: Dataset) -> int:
    """Put a name into every attribute of the dictionary that can hold one; say into how many."""
    count = 0
    for tag, (vrs, *_) in DicomDictionary.items():
        vr = vrs.split(" ")[-1]
        keyword = keyword_for_tag(tag)
        kept = keyword in {*MACHINE_WORDS, *NEEDED, *STRUCTURE} or tag >> 16 in (0, 2, 0x7FE0)
        if kept or vr not in {*TEXTS, *BINARY, "UI"}:
            continue
        dataset[tag] = DataElement(tag, vr, planted_value(vr), validation_mode=config.IGNORE)
        count += 1
    return count


def plant_privately(dataset: Dataset) -> None:
    block = dataset.private_block(0x0009, f"{TOKEN} 1.0", create=True)
    block.add_new(0x01, "LO", TOKEN)
    block.add_new(0x02, "OB", planted_value("OB"))
    block.add_new(0x03, "UN", planted_value("UN"))
    block.add_new(0x04, "SQ", [item(PatientName=TOKEN)])


def item(**tags: Any) -> Dataset:
    made = Dataset()
    for keyword, value in tags.items():
        setattr(made, keyword, value)
    return made


@pytest.fixture
def no_validation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let pydicom write what no scanner should."""
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.IGNORE)
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)
    return


def test_every_disguise_is_seen_through() -> None:
    for text in (
        f"x{TOKEN}y".encode(), TOKEN.lower().encode(), TOKEN.encode("utf-16"),
        base64.b64encode(b"y" + TOKEN.encode() + b"z"), TOKEN.encode().hex().encode(),
    ):  # fmt: skip
        assert found_in(text, TOKEN), text
    assert not found_in(b"Plantov" * 9, TOKEN)


@pytest.mark.usefixtures("no_validation")
def test_no_planted_name_survives_anywhere() -> None:
    dataset = image(replace(PLAIN, patient=PLANTED))
    assert plant_everywhere(dataset) > 1500
    dataset.PatientName = f"{NAME}^Erika"
    plant_privately(dataset)
    nested = Dataset()
    plant_everywhere(nested)
    plant_privately(nested)
    nested.PatientName = TOKEN
    deep = nested
    for _ in range(20):
        deep = item(SourceImageSequence=[deep], FrameComments=TOKEN)
    dataset.ReferencedImageSequence = [deep]
    dataset.AnatomicRegionSequence = [nested]
    dataset.OtherPatientIDsSequence = [nested]
    for word in MACHINE_WORDS:
        setattr(dataset, word, NAME)
    for tag, vr in ((0x60000022, "LO"), (0x60003000, "OW"), (0x50000022, "LO"), (0x50003000, "OW")):
        dataset.add_new(tag, vr, planted_value(vr))
    dataset.add_new(0xFFFCFFFC, "OB", planted_value("OB"))
    dataset.file_meta.SourceApplicationEntityTitle = TOKEN
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.3"
    dataset.file_meta.PrivateInformation = planted_value("OB")
    dataset.preamble = TOKEN.encode().ljust(128, b"\0")
    before = as_bytes(dataset)
    words = [*PLANTED.values(), *DATES.values()]
    assert found_in(before, TOKEN, NAME, *DATES.values()) == [TOKEN, NAME, *DATES.values()]
    clean = Deidentifier(KEY).clean(before)
    assert not found_in(clean.data, TOKEN, "Plantov", "Qxj7", NAME, "Erika")
    hits = [word for word in words if len(word) > 2 and word.encode() in clean.data]
    assert not hits
    assert clean.data[:128] == bytes(128)
    back = dcmread(BytesIO(clean.data))
    assert not [element for element in back.iterall() if element.tag.is_private]
    assert back.pixel_array.tobytes() == image().pixel_array.tobytes()


def test_numbers_that_are_texts_do_not_survive() -> None:
    dataset = image()
    data = as_bytes(dataset)
    assert data.count(b"2300") == 1  # RepetitionTime
    hidden = data.replace(b"2300", b"Qxj7")
    assert not found_in(Deidentifier(KEY).clean(hidden).data, "Qxj7")
    assert "RepetitionTime" not in cleaned(hidden)


def test_no_old_uid_survives_and_references_still_fit() -> None:
    first, second = image(), image(index=1)
    first.ReferencedImageSequence = [
        item(
            ReferencedSOPClassUID=second.SOPClassUID,
            ReferencedSOPInstanceUID=second.SOPInstanceUID,
            PurposeOfReferenceCodeSequence=[
                item(CodeValue="121311", CodingSchemeDesignator="DCM", CodeMeaning="mine")
            ],
        )
    ]
    deidentifier = Deidentifier()
    one, two = (deidentifier.clean(as_bytes(dataset)) for dataset in (first, second))
    olds = {str(element.value) for element in first.iterall() if element.VR == "UI"}
    for old in {old for old in olds if UID(old).name == old}:
        assert old.encode() not in one.data
    clean, other = dcmread(BytesIO(one.data)), dcmread(BytesIO(two.data))
    assert clean.SOPClassUID == first.SOPClassUID
    assert clean.StudyInstanceUID == other.StudyInstanceUID
    assert clean.FrameOfReferenceUID == other.FrameOfReferenceUID
    reference = clean.ReferencedImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == other.SOPInstanceUID
    assert reference.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Localizer"
    for keyword in STRUCTURE[1:]:
        assert UID(clean[keyword].value).is_valid
    assert len({clean[keyword].value for keyword in STRUCTURE}) == 4
    assert clean.file_meta.MediaStorageSOPInstanceUID == clean.SOPInstanceUID == one.instance_uid


def test_one_key_links_and_another_does_not() -> None:
    same = [cleaned(image(), KEY) for _ in range(2)]
    assert same[0] == same[1]
    other = cleaned(image(), KEY + b"!")
    assert other.StudyInstanceUID != same[0].StudyInstanceUID
    assert other.PatientID != same[0].PatientID
    assert same[0].PatientID.startswith("anon-")
    random = {Deidentifier().uid("1.2.3") for _ in range(2)}
    assert len(random) == 2
    with pytest.raises(OptionError, match="16 bytes"):
        Deidentifier(b"short")


def test_the_volume_is_the_same_before_and_after(tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(-900, 4000, (24, 20, 12))
    affine = geometry_affine("sagittal", shape=values.shape, spacing=(1, 1, 2), oblique=True)  # type: ignore[arg-type]
    files = write_series(tmp_path / "in", values, affine, replace(PLAIN, patient=PLANTED))
    cleaning = deidentify(files, tmp_path / "out")
    (before,), (after,) = list_series(files), list_series(cleaning.written)
    expected, found = read_series(before), read_series(after)
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-9)
    names = [path.name for path in cleaning.written]
    assert sorted(names) == sorted(f"{dcmread(p).SOPInstanceUID}.dcm" for p in cleaning.written)


def test_what_tells_contrasts_apart_stays() -> None:
    dataset = image(with_facts(PLAIN, contrast_agent="Gadovist 7 ml for Mrs Smith"))
    before, after = facts_of(dataset), facts_of(cleaned(dataset))
    assert after.contrast_agent == DUMMY
    assert (after.description, after.protocol) == ("", DUMMY)
    changed = {"description": "", "protocol": "", "contrast_agent": None, "acquired": None}
    assert replace(after, **changed) == replace(before, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "number", "text"),
    [
        ("Li^Wu", "77", "LI WU 77"),
        ("Li^Wu", "77", "HEAD LI"),
        ("Li^Wu", "77", "WULI"),
        ("Li^Wu", "77", "SCAN_77"),
        ("Erika", "12-34-56", "123456"),
        ("Erika", "12-34-56", "12 34 56"),
        ("Müller^Ada", "1", "MUELLER"),
        ("Müller^Ada", "1", "MULLER HEAD"),
        ("Smith", "1", "XSMITHX"),
    ],
)
def test_short_names_and_ids_do_not_survive_as_code_strings_or_machines_words(
    name: str, number: str, text: str
) -> None:
    dataset = changed(PatientName=name, PatientID=number, BodyPartExamined=text)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ReceiveCoilName = dataset.SoftwareVersions = text
    clean = cleaned(dataset)
    assert (clean.BodyPartExamined, clean.ReceiveCoilName, clean.SoftwareVersions) == ("", "", "")


def test_an_id_among_the_others_does_not_survive_either() -> None:
    dataset = changed(ReceiveCoilName="Coil of WQ81")
    dataset.OtherPatientIDsSequence = [item(PatientID="WQ81")]
    assert not cleaned(dataset).ReceiveCoilName


def test_terms_of_the_standard_stay_though_a_patient_is_called_like_them() -> None:
    dataset = changed(PatientName="Se^No^Gr", PatientID="2D", BurnedInAnnotation="NO")
    dataset.ScanningSequence, dataset.MRAcquisitionType = ["GR", "IR"], "2D"
    clean = cleaned(dataset)
    assert (list(clean.ScanningSequence), clean.MRAcquisitionType) == (["GR", "IR"], "2D")
    assert clean.BurnedInAnnotation == "NO"


@pytest.mark.parametrize("number", ["12-34-16", "7"])
def test_a_digit_or_two_of_an_id_are_no_trace_of_it(number: str) -> None:
    dataset = changed(PatientID=number, SequenceName="*tfl3d1_16", SoftwareVersions="V7.34")
    clean = cleaned(dataset)
    assert (clean.SequenceName, clean.SoftwareVersions) == ("*tfl3d1_16", "V7.34")


@pytest.mark.parametrize(
    "date", ["1960-02-03", "19600203", "03.02.1960", "2/3/1960", "03-02-60", "3 Feb 1960"]
)
def test_what_holds_a_date_does_not_survive(date: str) -> None:
    for text in (date, f"Coil {date}", f"{date}_x"):
        assert not cleaned(changed(ReceiveCoilName=text)).ReceiveCoilName
    assert not cleaned(changed(BodyPartExamined="19600203")).BodyPartExamined


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("SoftwareVersions", "syngo MR E11"),
        ("SoftwareVersions", "25_LX_MR Software release:DV25.0_R02_1549.b"),
        ("SoftwareVersions", "5.1.7.2"),
        ("ReceiveCoilName", "HeadNeck_20"),
        ("SequenceName", "*spcir3d1_298ns"),
        ("SequenceName", "SEEPI2D+0.7"),
        ("SequenceName", "FSE_T2_105"),
        ("ScanOptions", "SAT_GEMS"),
    ],
)
def test_what_machines_write_stays(keyword: str, text: str) -> None:
    assert cleaned(changed(PatientName="Li^Wu", **{keyword: text}))[keyword].value == text


def test_a_sequences_name_has_no_blank() -> None:
    clean = cleaned(changed(SequenceName="Dr Meier", PulseSequenceName="Dr Meier"))
    assert (clean.SequenceName, clean.PulseSequenceName) == ("", "")


def test_no_text_survives_in_lookup_tables_or_long_lists_of_numbers() -> None:
    hidden = np.frombuffer(TOKEN.encode(), "<u2").tolist()
    dataset = changed(WindowCenter=[40, 50], AcquisitionMatrix=[0, 256, 256, 0])
    table = item(LUTDescriptor=[len(hidden), 0, 16], LUTExplanation="x")
    table.add_new(0x00283006, "US", hidden)
    dataset.VOILUTSequence = [table]
    dataset.ReferencedImageSequence = [item(VOILUTSequence=[table])]
    dataset.FrameNumbersOfInterest = hidden
    before = as_bytes(dataset)
    assert found_in(before, TOKEN)
    clean = Deidentifier(KEY).clean(before)
    assert not found_in(clean.data, TOKEN, TOKEN[2:])
    back = dcmread(BytesIO(clean.data))
    assert "VOILUTSequence" not in back
    assert list(back.AcquisitionMatrix) == [0, 256, 256, 0]
    assert list(back.WindowCenter) == [40, 50]


@pytest.mark.parametrize(
    ("agent", "left"),
    [
        ("N/A", ""),
        ("NOT GIVEN", ""),
        ("ohne KM", ""),
        ("--", ""),
        ("Unknown", "UNKNOWN"),
        ("non-ionic agent", DUMMY),
    ],
)
def test_what_denies_an_agent_or_does_not_know_is_not_made_one(agent: str, left: str) -> None:
    assert cleaned(changed(ContrastBolusAgent=agent)).ContrastBolusAgent == left


@pytest.mark.parametrize("agent", ["", "NONE", "no"])
def test_a_scan_without_contrast_does_not_get_one(agent: str) -> None:
    dataset = image()
    assert "ContrastBolusAgent" not in cleaned(dataset)
    dataset.ContrastBolusAgent = agent
    assert not cleaned(dataset).ContrastBolusAgent


def test_the_new_header_says_what_was_done() -> None:
    clean = cleaned(image(replace(PLAIN, patient=PLANTED)))
    assert clean.PatientIdentityRemoved == "YES"
    assert clean.LongitudinalTemporalInformationModified == "REMOVED"
    (code,) = clean.DeidentificationMethodCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
    assert clean.PatientName == ""
    assert clean.PatientBirthDate == ""
    assert (clean.StudyDate, clean.SeriesDate, clean.ContentTime) == ("", "19000101", "000000")
    assert clean.Manufacturer == "SYNTHETIC"


def test_a_code_that_the_standard_does_not_have_keeps_no_word() -> None:
    dataset = image()
    dataset.AnatomicRegionSequence = [
        item(CodeValue="69536005", CodingSchemeDesignator="SCT", CodeMeaning="Smith's head"),
        item(CodeValue="S1", CodingSchemeDesignator="99HERE", CodeMeaning="Ward of Smith"),
        item(CodingSchemeDesignator="Smith"),
    ]
    known, unknown, alone = cleaned(dataset).AnatomicRegionSequence
    assert (known.CodeValue, known.CodeMeaning[:4]) == ("69536005", "Head")
    for one in (unknown, alone):
        assert (one.CodeValue, one.CodingSchemeDesignator) == (DUMMY, "99ANON")


def test_the_profile_comes_from_the_table() -> None:
    assert rule_of(0x00100010) == "empty"
    assert rule_of(0x0008103E) == "remove"
    assert rule_of(0x0020000D) == "uid"
    assert rule_of(0x00081140) == "clean"
    assert rule_of(0x00180010) == "dummy"
    assert rule_of(0x00280010) == "keep"


def test_an_enhanced_image_keeps_its_frames(tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(0, 4000, (24, 20, 12))
    affine = geometry_affine("axial", shape=values.shape, oblique=True)  # type: ignore[arg-type]
    dataset = enhanced_of(values, affine, replace(PLAIN, patient=PLANTED))
    frame = dataset.PerFrameFunctionalGroupsSequence[3].FrameContentSequence[0]
    frame.FrameComments = frame.FrameLabel = TOKEN
    frame.FrameAcquisitionDateTime = "19330227101112"
    paths = tmp_path / "before.dcm", tmp_path / "after.dcm"
    paths[0].write_bytes(as_bytes(dataset))
    paths[1].write_bytes(Deidentifier(KEY).clean(paths[0]).data)
    kept = dcmread(paths[1]).PerFrameFunctionalGroupsSequence[3].FrameContentSequence[0]
    assert kept.FrameAcquisitionDateTime == "19000101000000"
    long = [word for word in PLANTED.values() if len(word) > 3]
    assert not found_in(paths[1].read_bytes(), TOKEN, *long)
    expected, found = (read_series(list_series([path])[0]) for path in paths)
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-9)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_beyond_a_pixels_value_are_cleared(signed: bool) -> None:
    values = np.array([-2048, -1, 0, 1, 2047] if signed else [0, 1, 2, 2048, 4095])
    stored = np.resize(values, (8, 9)).astype("<i2")
    dataset = image()
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, int(signed)
    dataset.add_new(0x60000102, "US", 15)  # OverlayBitPosition, as it was done before 2004
    dataset.PixelData = (stored.view("<u2") & 0x0FFF | 0xA000).tobytes()
    found = np.frombuffer(cleaned(dataset).PixelData, "<i2").reshape(8, 9)
    np.testing.assert_array_equal(found, stored)


def test_a_compressed_image_is_unpacked() -> None:
    dataset = image()
    expected = dataset.pixel_array.copy()
    dataset.compress(RLELossless, generate_instance_uid=False)
    clean = cleaned(dataset)
    assert not clean.file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(clean.pixel_array, expected)


def changed(**tags: Any) -> Dataset:
    dataset = image()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned-in"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "another kind"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "another kind"),
        ({"SOPClassUID": "1.2.3.4"}, "another kind"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen"),
        ({"PhotometricInterpretation": "RGB"}, "colour"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"ModalityLUTSequence": [item(LUTDescriptor=[2, 0, 16])]}, "lookup table"),
        ({"BitsAllocated": 32}, "layout"),
        ({"HighBit": 14}, "layout"),
        ({"Rows": 0}, "no pixel"),
        ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": 99}, "more than can be unpacked"),
        ({"PixelData": bytes(2 * 9 * 8) + b"Smith  "}, "more or less"),
        ({"PixelData": bytes(4)}, "more or less"),
    ],
)
def test_what_cannot_be_cleaned_is_refused(tags: dict[str, Any], reason: str) -> None:
    assert reason in refused(changed(**tags))


def test_what_is_no_whole_image_is_refused() -> None:
    data = as_bytes(image())
    assert "not DICOM" in refused(b"Smith" * 99)
    for size in (200, 400, 1000, len(data) - 8):
        assert refused(data[:size])
    without = image()
    del without.SeriesInstanceUID
    assert "cannot be read" in refused(without)
    no_pixels = image()
    del no_pixels.PixelData
    assert "cannot be read" in refused(no_pixels)


def test_a_deflated_image_is_refused_before_it_is_inflated() -> None:
    dataset = image()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert "deflated" in refused(dataset)


def test_sequences_without_end_are_refused_and_not_followed() -> None:
    start = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    data = as_bytes(image())
    bomb = data[:132] + data[132:].replace(
        b"\x10\x00\x10\x00PN", start * 2000 + b"\x10\x00\x10\x00PN"
    )
    assert refused(bomb)


def test_a_refused_file_harms_no_other_and_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    good, bad = tmp_path / "in" / "Smith 1.dcm", tmp_path / "in" / "Smith 2.dcm"
    good.write_bytes(as_bytes(image()))
    bad.write_bytes(as_bytes(changed(BurnedInAnnotation="YES")))
    done: list[int] = []
    cleaning = deidentify(
        [bad, good], tmp_path / "out", deidentifier=Deidentifier(KEY), progress=done.append
    )
    assert [one.number for one in cleaning.refused] == [1]
    (written,) = cleaning.written
    assert written.relative_to(tmp_path / "out").parts == (
        dcmread(written).SeriesInstanceUID, f"{dcmread(written).SOPInstanceUID}.dcm",
    )  # fmt: skip
    assert done == [1, 2]
    again = deidentify([good], tmp_path / "out", deidentifier=Deidentifier(KEY))
    assert not again.written
    assert "before" in again.refused[0].error.got
    assert "Smith" not in str(again.refused[0].error)


@pytest.mark.slow
def test_cleaning_makes_no_valid_object_invalid(tmp_path: Path) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("no dciodvfy here (Debian: dicom3tools)")
    values = np.random.default_rng(3).integers(0, 4000, (24, 20, 12))
    affine = geometry_affine("axial", shape=values.shape)  # type: ignore[arg-type]
    enhanced = enhanced_of(values, affine, replace(PLAIN, patient=PLANTED))
    for dataset in (image(replace(PLAIN, patient=PLANTED)), enhanced):
        found = []
        for data in (as_bytes(dataset), Deidentifier(KEY).clean(as_bytes(dataset)).data):
            path = tmp_path / "one.dcm"
            path.write_bytes(data)
            said = subprocess.run([validator, path], capture_output=True, text=True, timeout=60)
            lines = (said.stdout + said.stderr).splitlines()
            found.append({line for line in lines if line.startswith("Error")})
        assert found[1] <= found[0]
