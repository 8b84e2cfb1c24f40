"""GGUF files made in tests."""
import struct


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(item):
    if isinstance(item, str):
        return struct.pack("<I", 8) + text(item)
    if isinstance(item, list):
        if isinstance(item[0], str):
            return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(text, item))
        kind, code = (6, "f") if isinstance(item[0], float) else (5, "i")
        return struct.pack(f"<IIQ{len(item)}{code}", 9, kind, len(item), *item)
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    return struct.pack("<If", 6, item) if isinstance(item, float) else struct.pack("<II", 4, item)


def gguf_bytes(values, tensors, version=3, places=None):
    """tensors: name to (shape as in NumPy, number of the type, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    head += b"".join(text(name) + value(item) for name, item in values.items())
    data = b""
    for name, (shape, kind, raw) in tensors.items():
        at = (places or {}).get(name, len(data))
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1]) + struct.pack("<IQ",
            kind, at)
        data += raw + bytes(-len(raw) % 32)
    return head + bytes(-len(head) % 32) + data
