"""
Which frames of an image file are its content. Files also hold smaller copies of an image, and an image for programs that
do not know animations.
"""


def content_frames(image):
    """The numbers of the frames of an open PIL image to use, a list. Changes the image's current frame, if there are
    several.

    Left out are a PNG animation's default image that is not part of the animation, and smaller copies in a TIFF.
    """
    n_frames = getattr(image, "n_frames", 1)
    if n_frames == 1:
        return [0]
    if image.format == "PNG" and image.info.get("default_image"):
        return list(range(1, n_frames))
    if image.format != "TIFF":
        return list(range(n_frames))
    full = []
    for number in range(n_frames):
        image.seek(number)
        if not is_reduced(image.tag_v2.get):
            full.append(number)
    image.seek(0)
    return full or list(range(n_frames))


def is_reduced(tag):
    """Whether a page of a TIFF is a smaller copy of another (TIFF 6.0, sections 8 and 15).

    tag: function (code, default) -> the value of a tag"""
    kind = tag(254, 0)
    return bool(int(kind or 0) & 1) or tag(255, 0) == 2
