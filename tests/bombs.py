"""Small files that claim, or unpack to, far more than a data set holds."""

from __future__ import annotations

import io
import json
import struct
import zlib

from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deflate(row: bytes, rows: int) -> bytes:
    """Compress many equal rows without holding them."""
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(row) for _ in range(rows)), packer.flush()])


def png(side: int, depth: int, colour: int, channels: int, extra: bytes = b"", rows: int | None = None) -> bytes:
    """Return a black PNG; with `rows` fewer are there than its header says."""
    head = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    row = bytes(1 + side * channels * depth // 8)
    data = chunk(b"IDAT", deflate(row, side if rows is None else rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + data + chunk(b"IEND", b"")


def tiff(width: int, height: int, *, bits: tuple[int, ...] = (8,), tile: int | None = None) -> bytes:
    """Return a grey or coloured TIFF whose one strip or tile is a megabyte of zeros, compressed."""
    data = zlib.compress(bytes(1_000_000), 9)
    tags = {256: width, 257: height, 259: 8, 262: 2 if len(bits) > 2 else 1, 277: len(bits)}
    where = {322: tile, 323: tile, 324: 8, 325: len(data)} if tile else {273: 8, 278: height, 279: len(data)}
    entries = [(tag, 4, 1, struct.pack("<I", value)) for tag, value in {**tags, **where}.items()]
    many = b"".join(struct.pack("<H", count) for count in bits)
    stored = many.ljust(4, b"\0") if len(bits) < 3 else struct.pack("<I", 8 + len(data))
    entries.append((258, 3, len(bits), stored))
    body = data + (many if len(bits) > 2 else b"")
    table = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in sorted(entries))
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(entries)) + table + bytes(4)


def jpeg(side: int) -> bytes:
    """Return a small JPEG whose header claims another size."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", progressive=True)
    data = bytearray(buffer.getvalue())
    start = data.index(b"\xff\xc2") + 5
    data[start : start + 4] = struct.pack(">HH", side, side)
    return bytes(data)


def bmp(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    data[18:26] = struct.pack("<ii", side, side)
    return bytes(data)


def gif(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", side, side)
    return bytes(data)


def webp(side: int) -> bytes:
    """Return an animation of one small frame on a canvas of that size."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), 9)])
    data = bytearray(buffer.getvalue())
    start = data.index(b"VP8X") + 12
    data[start : start + 6] = (side - 1).to_bytes(3, "little") * 2
    return bytes(data)


def texts(count: int) -> bytes:
    """Return PNG chunks of text, each a megabyte when it is unpacked."""
    packed = zlib.compress(bytes(2**20), 9)
    plain = [chunk(b"zTXt", b"key%d\0\0" % number + packed) for number in range(count)]
    return b"".join(plain) + chunk(b"iTXt", b"key\0\1\0\0\0" + packed) + chunk(b"iCCP", b"key\0\0" + packed * 2)


def safetensors(shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None, kind: str = "F32") -> bytes:
    """Return a file of zeros with such tensors."""
    header: dict = {} if metadata is None else {"__metadata__": metadata}
    size = 0
    for name, shape in shapes.items():
        length = {"F32": 4, "I64": 8, "U8": 1}[kind]
        for side in shape:
            length *= side
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [size, size + length]}
        size += length
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)
