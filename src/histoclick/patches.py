"""Patch sets: folders of images with masks, on which models are evaluated and trained.

A patch set holds ``images/<id>.png|jpg`` and ``masks/<id>.png`` (0 is background, everything else
the object). With a manifest ``patches.parquet`` (column ``id``; ``slide`` names what is not
independent) statistics resample slides; without one, every image counts as a slide of its own.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from histoclick.types import RGB8, HistoclickError, Labels, Mask, Sample

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 10_000 * 10_000  # a patch is no slide; also stops decompression bombs
MASK_MODES = ("1", "L", "P", "I;16", "I")


@dataclass(frozen=True, slots=True)
class Patch:
    """One entry: files, and the slide it was cut from."""

    id: str
    image: Path
    mask: Path
    slide: str

    def read(self) -> Sample:
        """Decode and check. Raises ``HistoclickError`` naming the file and the mend."""
        image, mask = read_image(self.image), read_mask(self.mask)
        if image.shape[:2] != mask.shape:
            sizes = f"{mask.shape[1]}x{mask.shape[0]}, image {image.shape[1]}x{image.shape[0]}"
            raise HistoclickError(
                f"{self.mask}: mask and image differ in size (mask {sizes} px); export both from "
                "the same region at the same magnification"
            )
        if not mask.any():
            raise HistoclickError(
                f"{self.mask}: the mask is empty, so there is nothing to click on; remove this "
                "patch from the set"
            )
        return Sample(self.id, image, mask, self.slide)


@dataclass(frozen=True, slots=True)
class PatchSet:
    """A folder of patches, sorted by id. ``has_slides``: whether a manifest names the slides.
    ``title``: what to call it, if not after its folder."""

    folder: Path
    patches: tuple[Patch, ...]
    has_slides: bool
    title: str = ""

    @property
    def name(self) -> str:
        """The folder's name, with its parent's for plain split names such as ``val``."""
        if self.title:
            return self.title
        folder = self.folder.resolve()
        is_split = folder.name in ("train", "val", "validation", "test")
        return f"{folder.parent.name}/{folder.name}" if is_split else folder.name

    def __len__(self) -> int:
        return len(self.patches)

    def __iter__(self) -> Iterator[Patch]:
        return iter(self.patches)

    def first(self, count: int) -> PatchSet:
        """The same set with its first ``count`` patches only."""
        return replace(self, patches=self.patches[:count])

    def check(self, seen: Callable[[], object] = lambda: None) -> str:
        """Read every patch once and return the SHA-256 of the whole set.

        ``seen`` is called after each patch. Raises ``HistoclickError`` at the first bad one, so
        that a long evaluation does not find it at its end.
        """
        digest = hashlib.sha256()
        for patch in self.patches:
            patch.read()
            for part in (patch.id, patch.slide):
                digest.update(part.encode() + b"\0")
            for path in (patch.image, patch.mask):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            seen()
        return digest.hexdigest()


def open_patch_set(folder: Path) -> PatchSet:
    """Find the patches of a folder. Decodes nothing; see ``PatchSet.check``."""
    if not folder.is_dir():
        raise HistoclickError(f"{folder}: no such folder; give one with images/ and masks/ inside")
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            inside = sorted(path.parent.name for path in folder.glob("*/images"))
            hint = f"; did you mean one of {', '.join(inside[:6])} in it?" if inside else ""
            raise HistoclickError(
                f"{folder}: no {part}/ inside; a patch set holds images/<id>.png and "
                f"masks/<id>.png{hint}"
            )
    images = _by_stem(folder / "images", IMAGE_SUFFIXES)
    masks = _by_stem(folder / "masks", (".png",))
    if not images:
        kinds = sorted({path.suffix for path in (folder / "images").iterdir() if path.suffix})
        only = f", only {', '.join(kinds)} files" if kinds else ""
        raise HistoclickError(
            f"{folder / 'images'}: holds no png or jpg image{only}; convert the images to PNG"
        )
    slides = _manifest_slides(folder)
    ids = sorted(images) if slides is None else list(slides)
    patches = []
    for id_ in ids:
        for found, part in ((images, "image"), (masks, "mask")):
            if id_ not in found:
                raise HistoclickError(
                    f"{folder}: patch '{id_}' has no {part}; add {part}s/{id_}.png or remove the "
                    "patch"
                )
        slide = id_ if slides is None else slides[id_]
        patches.append(Patch(id_, images[id_], masks[id_], slide))
    return PatchSet(folder, tuple(patches), slides is not None)


def write_patch_set(samples: Iterable[Sample], folder: Path) -> PatchSet:
    """Write samples as a patch set with manifest, into a new folder or over the same patches.

    Raises ``HistoclickError`` for a folder that holds other patches: their manifest would be lost.
    """
    samples = list(samples)
    names = {sample.id for sample in samples}
    there = {path.stem for path in folder.glob("images/*")}
    if there - names or ((folder / "patches.parquet").exists() and not there):
        raise HistoclickError(f"{folder}: holds other patches already; choose another folder")
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows = []
    for sample in samples:
        Image.fromarray(sample.image).save(folder / "images" / f"{sample.id}.png")
        mask = Image.fromarray(sample.mask.astype(np.uint8) * 255)
        mask.save(folder / "masks" / f"{sample.id}.png")
        fraction = float(sample.mask.mean())
        rows.append({"id": sample.id, "slide": sample.slide, "object_fraction": fraction})
    partial = folder / "patches.parquet.partial"
    pd.DataFrame(rows).to_parquet(partial)
    partial.replace(folder / "patches.parquet")
    return open_patch_set(folder)


def read_image(path: Path) -> RGB8:
    """Read a patch: (H, W, 3) uint8 RGB.

    Refuses everything whose colours would have to be guessed: 16 bit, palette, grey, alpha, CMYK.
    """
    picture = _decode(path)
    if picture.mode != "RGB":
        what = {
            "RGBA": "has an alpha channel", "LA": "has an alpha channel",
            "P": "has a colour palette", "L": "is grey", "1": "is black and white",
        }.get(picture.mode, f"has pixels of type {picture.mode}")  # fmt: skip
        raise HistoclickError(f"{path}: the image {what}; save it as 8-bit RGB without alpha")
    return np.asarray(picture, np.uint8)


def read_mask(path: Path) -> Mask:
    """Read a mask: (H, W) bool, True where the stored value (or palette index) is above 0."""
    return read_labels(path) > 0


def read_labels(path: Path) -> Labels:
    """Read the stored values of a mask: (H, W) uint16, 0 is background."""
    picture = _decode(path)
    if picture.mode not in MASK_MODES:
        raise HistoclickError(
            f"{path}: the mask has pixels of type {picture.mode}; save it with one channel, 0 for "
            "background"
        )
    labels: Labels = np.clip(np.asarray(picture), 0, 65535).astype(np.uint16)
    return labels


def _decode(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise HistoclickError(
                    f"{path}: {picture.width}x{picture.height} px is too large for a patch; cut "
                    "the slide into patches first"
                )
            if _is_deep_colour(picture):
                raise HistoclickError(f"{path}: 16 bits per channel; save the image with 8 bits")
            picture.load()
            return picture
    except Image.DecompressionBombError:
        raise HistoclickError(f"{path}: too large for a patch; cut it into patches") from None
    except UnidentifiedImageError:
        raise HistoclickError(f"{path}: not a PNG or JPEG image; export it again") from None
    except (OSError, SyntaxError, ValueError) as error:
        reason = "the file is cut off or damaged"
        if isinstance(error, FileNotFoundError | PermissionError):
            reason = error.strerror or reason
        raise HistoclickError(f"{path}: cannot be read ({reason}); export it again") from error


def _is_deep_colour(picture: Image.Image) -> bool:
    """Pillow silently reduces 16-bit colour PNGs to 8 bits; their raw mode still tells."""
    tiles = getattr(picture, "tile", ())
    raw_mode = tiles[0][3] if tiles else None
    return picture.mode in ("RGB", "RGBA") and isinstance(raw_mode, str) and ";16" in raw_mode


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        # macOS decomposes accents in file names, others do not; both name the same patch.
        stem = unicodedata.normalize("NFC", path.stem)
        if stem in found:
            raise HistoclickError(
                f"{folder}: {found[stem].name} and {path.name} are the same patch; remove one"
            )
        found[stem] = path
    return found


def _manifest_slides(folder: Path) -> dict[str, str] | None:
    """Slide of each patch by the manifest, in its order; None without manifest."""
    path = folder / "patches.parquet"
    if not path.exists():
        return None
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise HistoclickError(
            f"{path}: not a readable parquet file; remove it to use the folder without manifest"
        ) from error
    if "id" not in table or table["id"].duplicated().any():
        raise HistoclickError(f"{path}: needs a column 'id' with every patch once")
    slides = table["slide"] if "slide" in table else table["id"]
    if table["id"].isna().any() or slides.isna().any():
        raise HistoclickError(f"{path}: has rows without id or slide; fill them in")
    if table.empty:
        raise HistoclickError(f"{path}: lists no patch; remove it to use the folder without it")
    ids = table["id"].astype(str).map(lambda id_: unicodedata.normalize("NFC", id_))
    return dict(zip(ids, slides.astype(str), strict=True))
