"""
Contact sheets: rows of captioned images in one image file. And captions for the sample grids of a training.
"""

import base64
import io
import os

from PIL import Image, ImageDraw

from utils import whole_file

LINE = 14  # height of a line of text, in pixels
# the columns of utils.sample_images, and what is written above narrow ones
GRID = {"real A": "A", "fake B": "A>B", "recovered A": "A>B>A", "real B": "B", "fake A": "B>A", "recovered B": "B>A>B"}


def data_uri(image, width=None):
    """A PIL image -> JPEG in the text of a page. It is made smaller if it is more than `width` pixels wide."""
    image = image.convert("RGB")
    if width and image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()


def draw_sheet(path, rows, title, kind="PNG"):
    """Draws rows of captioned images into one image file.

    rows:  lists of (caption, PIL image). All images have the same size; sheets of small ones are enlarged
    title: first line of the sheet
    kind:  Pillow's name of the file format
    """
    width, height = rows[0][0][1].size if rows else (1, 1)
    zoom, line = max(1, 256 // max(width, height)), LINE
    width, height = width * zoom, height * zoom
    size = max(500, *(len(row) * width for row in rows), 0), line + len(rows) * (height + line)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((2, 1), title, fill="black")
    for i, row in enumerate(rows):
        for j, (caption, image) in enumerate(row):
            left, top = j * width, line + i * (height + line)
            draw.text((left + 2, top + 1), caption, fill="black")
            sheet.paste(image.resize((width, height), Image.Resampling.NEAREST), (left, top + line))
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    encoded = io.BytesIO()  # the encoder of JPEG 2000 never ends if a file cannot be written
    sheet.save(encoded, kind)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(encoded.getbuffer())


def with_captions(grid, captions):
    """Adds a line of text above the columns of a grid of images of equal width, see utils.draw_grid -> PIL.Image

    captions: {text: a shorter one, for all columns if one of the texts does not fit}, in the order of the columns"""
    result = Image.new("RGB", (grid.width, grid.height + LINE))
    result.paste(grid, (0, LINE))
    draw, width = ImageDraw.Draw(result), (grid.width - 2) // len(captions)
    fits = all(draw.textlength(text) < width for text in captions)
    for i, text in enumerate(captions if fits else captions.values()):
        draw.text((2 + i * width, 1), text, fill="white")
    return result
