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
    if exif := exif_to_keep(image, is_converted):
        info["exif"] = exif
    if xmp := xmp_to_keep(frame_info):
        info["xmp"] = xmp
    if iptc := (image.info.get("photoshop") or {}).get(0x0404):
        info["extra"] = iptc_segment(iptc)
    texts = {name: str(text) for name, text in (getattr(image, "text", None) or {}).items() if name != XMP_IN_PNG}
    if texts:
        info["texts"] = texts
    tags = getattr(image, "tag_v2", {})
    kept = {tag: tags[tag] for tag in (IPTC, *(() if is_resized else GEO_TAGS)) if tag in tags}
    return info | ({"tags": kept} if kept else {})


def save_options(info, kind):
    """What metadata_to_keep returns -> keyword arguments for Pillow's `save` in a format"""
    options = {key: value for key, value in info.items() if key not in ("texts", "tags", "extratags")}
    if kind == "PNG" and (info.get("texts") or info.get("xmp")):
        options["pnginfo"] = PngImagePlugin.PngInfo()
        for name, text in info.get("texts", {}).items():
            options["pnginfo"].add_itxt(name, text)
        if info.get("xmp"):
            options["pnginfo"].add_itxt(XMP_IN_PNG, info["xmp"].decode(errors="replace"))
    if kind == "TIFF":  # takes all tags in one directory
        tags = options["tiffinfo"] = Image.Exif()
        tags.load(options.pop("exif", b""))
        for tag, value in info.get("tags", {}).items():
            tags[tag] = value
        if info.get("xmp"):
            tags[XMP] = info["xmp"]
    return options


def exif_to_keep(image, is_converted):
    """The EXIF data of an image, in bytes; b"" if there is none. Drops thumbnails, and tags about the file's layout and
    orientation."""
    try:
        tags, exif = image.getexif(), Image.Exif()
        for tag in TEXT_TAGS:
            if tag in tags:
                exif[tag] = tags[tag]
        for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if values := tags.get_ifd(part):
                exif[part] = dict(values)
        if is_converted and 0xA001 in exif.get(ExifTags.IFD.Exif, {}):
            exif[ExifTags.IFD.Exif][0xA001] = 1  # the colour space: sRGB
        return exif.tobytes() if exif else b""
    except Exception:  # some cameras write EXIF that Pillow cannot handle; the image itself is fine
        return b""


def xmp_to_keep(info):
    """The XMP data of an image, without thumbnails -> bytes, or None"""
    xmp = info.get("xmp") or info.get(XMP_IN_PNG)
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    if not isinstance(xmp, bytes):
        return None
    return re.sub(rb"<(xmp|xap):Thumbnails>.*?</\1:Thumbnails>", b"", xmp, flags=re.DOTALL)


def iptc_segment(iptc):
    """IPTC data -> the APP13 segment of a JPEG file that holds it and nothing else (Adobe Photoshop File Formats, image
    resource blocks)"""
    block = b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc + b"\0" * (len(iptc) % 2)
    content = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content if len(content) < 65534 else b""
