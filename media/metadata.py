"""
What an image file holds besides its pixels, as far as it still holds after a translation: EXIF, XMP, IPTC, texts,
resolution, and where on earth the pixels are. Thumbnails are dropped, because they would show the input.
"""

import re

from PIL import ExifTags, Image, PngImagePlugin

XMP, IPTC = 700, 33723  # tags of TIFF files
TEXT_TAGS = (270, 271, 272, 305, 306, 315, 33432)  # description, maker, model, software, date, artist, copyright
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)  # GeoTIFF 1.1, and two of GDAL's own
XMP_IN_PNG = "XML:com.adobe.xmp"
# EXIF and profiles that ImageMagick writes as texts. Pillow reads them, so that they are kept otherwise
PROFILE_TEXTS = {f"Raw profile type {kind}" for kind in ("exif", "APP1", "icc", "icm")}
ORIENTATION_IN_XMP = rb"""tiff:Orientation\s*=\s*["'](\d)["']|<tiff:Orientation>\s*(\d)\s*</tiff:Orientation>"""
# what tifffile writes as the description, {"shape": [40, 44, 3]} or shape=(40, 44, 3)
SHAPE_OF_TIFFFILE = re.compile(r"""\s*(\{"shape": ?\[[^}]*\}|shape=\([^)]*\))\s*\0*""")


def metadata_to_keep(image, frame_info, is_converted=False, is_resized=False):
    """-> dict, for save_options

    image:        an open PIL image
    frame_info:   its `info`, or that of an upright copy
    is_converted: whether the pixels will be in sRGB, and were not
    is_resized:   whether the pixels get another size, so that tags that tell their size on earth no longer hold
    """
    info = {key: frame_info[key] for key in ("icc_profile", "dpi", "comment") if frame_info.get(key)}
    if is_converted:
        info.pop("icc_profile", None)
    if exif := exif_of(image, is_converted):
        info["exif"] = exif
    if xmp := xmp_to_keep(frame_info):
        info["xmp"] = xmp
    if iptc := (image.info.get("photoshop") or {}).get(0x0404):
        info["extra"] = iptc_segment(iptc)
    texts = getattr(image, "text", None) or {}
    texts = {name: str(text) for name, text in texts.items() if name not in {XMP_IN_PNG, *PROFILE_TEXTS}}
    if texts:
        info["texts"] = texts
    tags = getattr(image, "tag_v2", {})
    kept = {tag: tags[tag] for tag in (IPTC, *(() if is_resized else GEO_TAGS)) if tag in tags}
    return info | ({"tags": kept} if kept else {})


def save_options(info, kind):
    """What metadata_to_keep returns -> keyword arguments for Pillow's `save` in a format. For TIFF without the
    directories of EXIF, which Pillow writes in uncompressed files only; see tiff_writer.add_directories."""
    left_out = ("texts", "tags", "extratags", "notes", "dtype")
    options = {key: value for key, value in info.items() if key not in left_out}
    if kind == "PNG" and (info.get("texts") or info.get("xmp")):
        options["pnginfo"] = PngImagePlugin.PngInfo()
        for name, text in info.get("texts", {}).items():
            options["pnginfo"].add_itxt(name, text)
        if info.get("xmp"):
            options["pnginfo"].add_itxt(XMP_IN_PNG, info["xmp"].decode(errors="replace"))
    if kind == "TIFF":  # takes all tags in one directory
        tags = options["tiffinfo"] = Image.Exif()
        tags.update(tags_and_directories(options.pop("exif", b""))[0])
        for tag, value in info.get("tags", {}).items():
            tags[tag] = value
        if info.get("xmp"):
            tags[XMP] = info["xmp"]
    return options


def tags_and_directories(exif):
    """EXIF data in bytes -> (the tags of an image, a dict; {34665: the tags of its camera's settings, 34853: of its
    position})"""
    tags = Image.Exif()
    tags.load(exif)
    directories = {int(part): dict(tags.get_ifd(part)) for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)}
    return (
        {tag: tags[tag] for tag in TEXT_TAGS if tag in tags},
        {tag: values for tag, values in directories.items() if values},
    )


def exif_of(image, is_converted):
    """exif_to_keep for an open PIL image"""
    try:
        return exif_to_keep(image.getexif(), is_converted)
    except Exception:  # some cameras write EXIF that Pillow cannot read; the image itself is fine
        return b""


def exif_to_keep(tags, is_converted=False):
    """PIL.Image.Exif -> its data, in bytes; b"" if there is none. Drops thumbnails, and tags about the file's layout and
    orientation."""
    try:
        exif = Image.Exif()
        for tag in TEXT_TAGS:
            if tag in tags and not is_stale(tag, tags[tag]):
                exif[tag] = tags[tag]
        for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if values := tags.get_ifd(part):
                exif[part] = dict(values)
        if is_converted and 0xA001 in exif.get(ExifTags.IFD.Exif, {}):
            exif[ExifTags.IFD.Exif][0xA001] = 1  # the colour space: sRGB
        return exif.tobytes() if exif else b""
    except Exception:  # some cameras write EXIF that Pillow cannot handle; the image itself is fine
        return b""


def is_stale(tag, value):
    """Whether a tag describes the layout of the file that it was read from"""
    return tag == 270 and isinstance(value, str) and bool(SHAPE_OF_TIFFFILE.fullmatch(value))


def xmp_to_keep(info):
    """The XMP data of an image, without thumbnails and orientation, as pixels are upright -> bytes, or None"""
    xmp = info.get("xmp") or info.get(XMP_IN_PNG)
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    if not isinstance(xmp, bytes):
        return None
    xmp = re.sub(rb"<(xmp|xap):Thumbnails>.*?</\1:Thumbnails>", b"", xmp, flags=re.DOTALL)
    return re.sub(ORIENTATION_IN_XMP, b"", xmp)


def orientation_in_xmp(xmp):
    """The orientation that XMP data, in bytes, states, 1 to 8; None if it states none"""
    match = re.search(ORIENTATION_IN_XMP, xmp) if isinstance(xmp, bytes) else None
    return int(match[1] or match[2]) if match else None


def iptc_segment(iptc):
    """IPTC data -> the APP13 segment of a JPEG file that holds it and nothing else (Adobe Photoshop File Formats, image
    resource blocks)"""
    block = b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc + b"\0" * (len(iptc) % 2)
    content = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content if len(content) < 65534 else b""
