"""A small DICOM slide, made from nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


def dicom_slide(path: Path, width: int, height: int, tile_px: int = 16, mpp: float = 0.5) -> Path:
    """White, in tiles, with what a segmentation has to know of it."""
    across, down = -(-width // tile_px), -(-height // tile_px)
    slide = Dataset()
    slide.SOPClassUID, slide.SOPInstanceUID = WHOLE_SLIDE, generate_uid()
    slide.StudyInstanceUID, slide.SeriesInstanceUID = generate_uid(), generate_uid()
    slide.FrameOfReferenceUID = generate_uid()
    slide.Modality, slide.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    slide.PatientID, slide.PatientName, slide.PatientSex = "1", "Test^Slide", "O"
    slide.PatientBirthDate, slide.AccessionNumber, slide.StudyID = "", "", "1"
    slide.StudyDate, slide.StudyTime, slide.ReferringPhysicianName = "20260101", "120000", ""
    slide.SeriesNumber, slide.InstanceNumber, slide.Manufacturer = 1, 1, "nobody"
    slide.ContainerIdentifier = "1"
    slide.IssuerOfTheContainerIdentifierSequence = []
    slide.ContainerTypeCodeSequence = [code("433466003", "Microscope slide")]
    specimen = Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "1", generate_uid()
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    slide.SpecimenDescriptionSequence = [specimen]
    slide.DimensionOrganizationType = "TILED_FULL"
    slide.TotalPixelMatrixColumns, slide.TotalPixelMatrixRows = width, height
    slide.TotalPixelMatrixFocalPlanes, slide.NumberOfOpticalPaths = 1, 1
    slide.ImagedVolumeWidth, slide.ImagedVolumeHeight = width * mpp / 1000, height * mpp / 1000
    slide.ImagedVolumeDepth = 0.005
    slide.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20, 40
    slide.TotalPixelMatrixOriginSequence = [origin]
    measures, groups = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.005
    groups.PixelMeasuresSequence = [measures]
    slide.SharedFunctionalGroupsSequence = [groups]
    optics = Dataset()
    optics.OpticalPathIdentifier = "1"
    optics.IlluminationTypeCodeSequence = [code("111744", "Brightfield illumination", "DCM")]
    slide.OpticalPathSequence = [optics]
    slide.SamplesPerPixel, slide.PhotometricInterpretation = 3, "RGB"
    slide.PlanarConfiguration, slide.NumberOfFrames = 0, across * down
    slide.Rows, slide.Columns = tile_px, tile_px
    slide.BitsAllocated, slide.BitsStored, slide.HighBit = 8, 8, 7
    slide.PixelRepresentation, slide.LossyImageCompression = 0, "00"
    slide.PixelData = np.full(across * down * tile_px * tile_px * 3, 255, np.uint8).tobytes()
    slide.file_meta = FileMetaDataset()
    slide.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slide.file_meta.MediaStorageSOPClassUID = slide.SOPClassUID
    slide.file_meta.MediaStorageSOPInstanceUID = slide.SOPInstanceUID
    slide.save_as(path, enforce_file_format=True)
    return path


def code(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
