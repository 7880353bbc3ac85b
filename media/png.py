"""
The bytes of PNG files: repairs truncated ones, and adds metadata to what imagecodecs encodes.
"""

import io
import struct
import zlib

from PIL import Image

from media.metadata import save_options

# the passes of an interlaced PNG: first column and row, and steps (PNG specification, section 8.2)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def whole_png(data):
    """The bytes of a PNG -> the same, with zeros in place of pixels that are missing or cannot be decompressed."""
    n_expected = n_bytes_of_png(*struct.unpack(">IIBBBBB", data[16:29]))
    position, before, pixels, decompress = 8, data[:8], b"", zlib.decompressobj()
    while position + 8 <= len(data) and len(pixels) < n_expected:
        n_bytes, kind = struct.unpack(">I4s", data[position : position + 8])
        content = data[position + 8 : position + 8 + n_bytes]
        position += 12 + n_bytes
        if kind == b"IDAT":
            try:
                pixels += decompress.decompress(content, n_expected - len(pixels))
            except zlib.error:
                break
        elif kind in (b"IHDR", b"PLTE", b"tRNS") and not pixels:
            before += png_chunk(kind, content)
    pixels = zlib.compress(pixels.ljust(n_expected, b"\0"), 1)
    return before + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def n_bytes_of_png(width, height, depth, colour, compression, filtering, interlaced):
    """The number of bytes of the pixels of a PNG, by the fields of IHDR: rows of whole bytes, and a byte before each"""
    n_bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    return sum(rows * (1 + -(-columns * n_bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(png, info):
    """Adds metadata to an encoded PNG, in bytes: the chunks of a small image that Pillow writes with `info`."""
    small = io.BytesIO()
    Image.new("L", (1, 1)).save(small, "PNG", **save_options(info, "PNG"))
    data, position, chunks = small.getvalue(), 8, b""
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big") + 12
        if data[position + 4 : position + 8] not in (b"IHDR", b"IDAT", b"IEND"):
            chunks += data[position : position + length]
        position += length
    return png[:33] + chunks + png[33:]  # after the signature, 8 bytes, and IHDR, 25
