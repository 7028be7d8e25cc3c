"""What a series says about how it was made: the tags that tell contrasts apart, not the patient.

`model_core.dicom.series` reads these out of headers, `model_core.recognition` judges them. Free
texts (descriptions) stay in the process: they are matched with words and never repeated to anyone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SeriesFacts:
    """Tags of one MR series (PS3.3 C.8.3, C.8.13 for enhanced objects); empty where absent.

    Attributes:
        modality: Modality (0008,0060), e.g. ``"MR"``.
        description: SeriesDescription (0008,103E), as it is.
        protocol: ProtocolName (0018,1030).
        sequence_name: SequenceName (0018,0024) or PulseSequenceName (0018,9005).
        scanning_sequence: ScanningSequence (0018,0020), e.g. ``("SE", "IR")``.
        sequence_variant: SequenceVariant (0018,0021), e.g. ``("SK", "SP", "MP")``.
        scan_options: ScanOptions (0018,0022).
        image_type: ImageType (0008,0008), e.g. ``("ORIGINAL", "PRIMARY", "M", "ND")``.
        acquisition_type: MRAcquisitionType (0018,0023), ``"2D"`` or ``"3D"``.
        contrast_agent: ContrastBolusAgent (0018,0010) as it is; None where the tag is absent. An
            enhanced object's ContrastBolusAgentSequence (0018,0012) counts, by its code meaning.
        echo_time_ms: EchoTime (0018,0081) or EffectiveEchoTime (0018,9082), in ms.
        repetition_time_ms: RepetitionTime (0018,0080), in ms.
        inversion_time_ms: InversionTime (0018,0082), in ms.
        flip_angle_deg: FlipAngle (0018,1314), in degrees.
        echo_train_length: EchoTrainLength (0018,0091).
        b_value: DiffusionBValue (0018,9087), in s/mm².
        acquisition_contrast: AcquisitionContrast (0008,9209) of enhanced objects, e.g. ``"T1"``.
        manufacturer: Manufacturer (0008,0070).
        body_part: BodyPartExamined (0018,0015).
        number: SeriesNumber (0020,0011).
        acquired: AcquisitionTime (0008,0032) as seconds of the day.
        images: how many slices or frames.
        spacing_mm: row, column and slice spacing in mm; None where it cannot be told.
    """

    modality: str = ""
    description: str = ""
    protocol: str = ""
    sequence_name: str = ""
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    scan_options: tuple[str, ...] = ()
    image_type: tuple[str, ...] = ()
    acquisition_type: str = ""
    contrast_agent: str | None = None
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_deg: float | None = None
    echo_train_length: int | None = None
    b_value: float | None = None
    acquisition_contrast: str = ""
    manufacturer: str = ""
    body_part: str = ""
    number: int | None = None
    acquired: float | None = None
    images: int = 0
    spacing_mm: tuple[float, float, float] | None = None
