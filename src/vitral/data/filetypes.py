"""The formats of image files, told by their first bytes, not by their names: which are read, and how to convert the others.

One table for listings (which suffixes mean images), for `decode` (which reader) and for errors (what a file is called).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

Magic = tuple[tuple[int, bytes], ...]
"""(offset, bytes): any one of them marks the format."""
_TO_PNG = "convert it to PNG (ImageMagick: magick IN OUT.png)"


@dataclass(frozen=True)
class Format:
    """One format. `reader`: Pillow's name for it, "numpy", "heif", or empty if it is not read; `remedy` then says what to do."""

    name: str
    extensions: tuple[str, ...] = ()
    magic: Magic = ()
    reader: str = ""
    remedy: str = _TO_PNG
    picture: bool = True
    """Whether a file with such an ending is meant as an image."""


def _read(reader: str, name: str, extensions: str, *magic: bytes, at: int = 0) -> Format:
    return Format(name, tuple(extensions.split()), tuple((at, each) for each in magic), reader)


def _other(name: str, extensions: str, remedy: str, *magic: bytes, at: int = 0, picture: bool = True) -> Format:
    return Format(name, tuple(extensions.split()), tuple((at, each) for each in magic), "", remedy, picture)


JPEG = _read("JPEG", "JPEG", ".jpg .jpeg .jpe .jfif", b"\xff\xd8\xff")
PNG = _read("PNG", "PNG", ".png .apng", b"\x89PNG")
TIFF = _read("TIFF", "TIFF", ".tif .tiff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
AVIF = _read("AVIF", "AVIF", ".avif .avifs")
HEIC = _read("heif", "HEIC", ".heic .heif .hif")
PPM = _read("PPM", "PPM", ".ppm .pgm .pbm .pnm .pfm")
NPY = _read("numpy", "NumPy .npy", ".npy", b"\x93NUMPY")
TGA = _read("TGA", "TGA", ".tga .icb .vda .vst")
BMP = _read("BMP", "BMP", ".bmp")
DIB = _read("DIB", "BMP", ".dib")
_VIDEO = "extract the frames wanted as images (ffmpeg -i IN frame-%04d.png)"
VIDEO = _other(
    "video", ".mp4 .mov .m4v .avi .mkv .webm", _VIDEO, b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", picture=False
)
RAW = _other(
    "camera RAW", ".nef .nrw .cr2 .cr3 .crw .arw .sr2 .srf .dng .raf .orf .rw2 .pef .srw .x3f .3fr .iiq .rwl",
    "develop it to 16-bit TIFF or JPEG (darktable, RawTherapee, dcraw -T -6 IN)",
    b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb",
)  # fmt: skip
DICOM = _other("DICOM", ".dcm .dicom", "convert it to 16-bit PNG or to .npy with --value-range (dcmj2pnm --write-16-bit-png IN OUT, or pydicom)",
               b"DICM", at=128)  # fmt: skip
HTML = _other("HTML (a web page, perhaps an error that was saved in place of the picture)", ".html .htm", "download the picture again",
              picture=False)  # fmt: skip
SVG = _other(
    "SVG (a drawing, no pixels)",
    ".svg .svgz",
    "draw it at the size wanted (rsvg-convert -w 512 IN -o OUT.png, or Inkscape)",
)
ZIP = _other("ZIP archive", ".zip", "unpack it", b"PK\3\4", picture=False)
NPZ = _other("NumPy .npz (an archive of arrays)", ".npz", "save the array wanted alone (numpy.save, a .npy file)")

FORMATS: tuple[Format, ...] = (
    JPEG, PNG, TIFF, AVIF, HEIC, NPY, PPM,
    _read("WEBP", "WebP", ".webp"),
    BMP,
    _read("GIF", "GIF", ".gif", b"GIF87a", b"GIF89a"),
    _read("JPEG2000", "JPEG 2000", ".jp2 .j2k .jpf .jpx .j2c .jpc", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    _read("ICO", "ICO", ".ico", b"\0\0\1\0"),
    _read("ICNS", "ICNS", ".icns", b"icns"),
    _read("PCX", "PCX", ".pcx", b"\n\0\1", b"\n\2\1", b"\n\3\1", b"\n\5\1"),
    _read("SGI", "SGI", ".sgi .rgb .rgba .bw", b"\1\xda"),
    _read("QOI", "QOI", ".qoi", b"qoif"),
    _read("DDS", "DDS", ".dds", b"DDS "),
    _read("SUN", "Sun raster", ".ras", b"\x59\xa6\x6a\x95"),
    TGA, DIB, RAW, DICOM, SVG,
    _other("Photoshop (PSD)", ".psd .psb", "export it as PNG or TIFF (ImageMagick: magick 'IN[0]' OUT.png)", b"8BPS"),
    _other("GIMP (XCF)", ".xcf", "export it as PNG or TIFF from GIMP", b"gimp xcf"),
    _other("JPEG XL", ".jxl", "convert it to PNG or JPEG (djxl IN OUT.png)", b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    _other("OpenEXR", ".exr", "save its values as .npy or floating-point TIFF, and state their range with --value-range", b"\x76\x2f\x31\x01"),
    _other("Radiance HDR", ".hdr", "save its values as .npy or floating-point TIFF, and state their range with --value-range",
           b"#?RADIANCE", b"#?RGBE"),
    _other("FITS", ".fits .fit .fts", "save its values as .npy (astropy) and state their range with --value-range", b"SIMPLE  ="),
    _other("NIfTI", ".nii", "save the slices wanted as .npy (nibabel) and state their range with --value-range", b"n+1\0", b"ni1\0", at=344),
    _other("PDF", ".pdf", "draw its pages as images (pdftoppm -png IN OUT)", b"%PDF", picture=False),
    _other("PostScript", ".ps .eps", "draw it as an image (gs, or Inkscape)", b"%!PS", b"\xc5\xd0\xd3\xc6", picture=False),
    _other("Windows metafile", ".wmf .emf", "draw it as an image (Inkscape)", b"\xd7\xcd\xc6\x9a", picture=False),
    NPZ, ZIP, HTML, VIDEO,
    _other("HDF5", ".h5 .hdf5", "save each image as .npy or TIFF (h5py)", b"\x89HDF\r\n\x1a\n", picture=False),
    _other("MATLAB", ".mat", "save each image as .npy or TIFF (scipy.io.loadmat)", b"MATLAB 5.0 MAT-file", picture=False),
    _other("gzip archive", ".gz", "unpack it (gunzip)", b"\x1f\x8b", picture=False),
    _other("archive", ".rar .7z", "unpack it", b"Rar!", b"7z\xbc\xaf\x27\x1c", picture=False),
    _other("Parquet table", ".parquet", "give the table itself as DATA", b"PAR1", picture=False),
    _other("Git LFS pointer (the picture was never fetched)", "", "fetch it: git lfs pull", b"version https://git-lfs", picture=False),
    _other("PAM", ".pam", _TO_PNG, b"P7\n"),
)  # fmt: skip
EXTENSIONS = frozenset(extension for each in FORMATS if each.picture for extension in each.extensions)
"""Suffixes that mean images, including those of formats that are refused."""


def recognise(data: bytes, name: str = "") -> Format | None:
    """The format of a file by its first bytes, or if these can mean several, by its suffix too; None if unknown."""
    ending = "." + name.rpartition(".")[2].lower() if "." in name else ""
    found = next((each for each in FORMATS if any(data.startswith(magic, at) for at, magic in each.magic)), None)
    if found is None:
        found = next((kind for kind, is_one in _LESS_PLAIN if is_one(data)), None)
    if found is TIFF and (ending in RAW.extensions or data[8:10] == b"CR"):
        return RAW  # its bytes are a TIFF's, whose only plain picture is a thumbnail
    if found is ZIP and (ending in NPZ.extensions or data[30:200].find(b".npy") >= 0):
        return NPZ
    if found is None:
        by_name = (each for each in (TGA, DICOM) if ending in each.extensions)  # which need not have marks
        found = next(by_name, None)
    return found


def _brand(data: bytes, *brands: bytes) -> bool:
    """Whether an ISO media file has one of these brands: the first brand that is more specific than "holds pictures" decides."""
    if data[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(data[:4], "big"), 256)
    major, others = data[8:12], data[16:length]
    known = [major, *(others[i : i + 4] for i in range(0, len(others) - 3, 4))]
    return next((brand for brand in known if brand not in (b"mif1", b"msf1", b"miaf")), b"mif1") in brands


def _markup(data: bytes, *starts: bytes) -> bool:
    """Whether a text begins with one of these, perhaps after an XML declaration, comments or a document type."""
    text = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    text = re.sub(rb"^(<\?xml.*?\?>|<!--.*?-->|<!doctype svg.*?>|\s)+", b"", text, flags=re.DOTALL)
    return text.startswith(starts)


_LESS_PLAIN: tuple[tuple[Format, Callable[[bytes], bool]], ...] = (
    (next(each for each in FORMATS if each.name == "WebP"), lambda d: d[:4] == b"RIFF" and d[8:12] == b"WEBP"),
    (BMP, lambda d: d[:2] == b"BM" and d[6:10] == b"\0\0\0\0"),  # a text may begin so, but has no zero bytes
    (AVIF, lambda d: _brand(d, b"avif", b"avis")),
    (HEIC, lambda d: _brand(d, b"mif1", b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis")),
    (RAW, lambda d: _brand(d, b"crx ")),
    (VIDEO, lambda d: d[4:8] == b"ftyp" or (d[:4] == b"RIFF" and d[8:12] == b"AVI ") or d[4:8] in (b"moov", b"mdat")),
    (PPM, lambda d: re.match(rb"P[1-6fF]\s([^a-zA-Z]|$)", d[:4]) is not None),
    (HTML, lambda d: _markup(d, b"<!doctype html", b"<html", b"<head", b"<body")),
    (SVG, lambda d: _markup(d, b"<svg")),
    (TGA, lambda d: d[-18:] == b"TRUEVISION-XFILE.\0"),
    (DIB, lambda d: d[:4] in (b"\x28\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0", b"\x0c\0\0\0")),
)
