"""
Contact sheets: rows of captioned images in one image file.
"""

import io
import os

from PIL import Image, ImageDraw

from utils import whole_file


def draw_sheet(path, rows, title, kind="PNG"):
    """Draws rows of captioned images into one image file.

    rows:  lists of (caption, PIL image). All images have the same size; sheets of small ones are enlarged
    title: first line of the sheet
    kind:  Pillow's name of the file format
    """
    width, height = rows[0][0][1].size if rows else (1, 1)
    zoom, line = max(1, 256 // max(width, height)), 14  # the height of a line of text, in pixels
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
