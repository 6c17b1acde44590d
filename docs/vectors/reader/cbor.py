"""CBOR, RFC 8949: what may come, and the one form that is canonical. And what every other module needs."""

from blake3 import blake3


class Refused(Exception):
    """Carries the name of the reject."""


def h(*parts):
    return blake3(b"".join(parts)).digest()


def read(data, at=0, nested=0):
    """One value from `at`, and where it ends. Indefinite lengths are read, to be refused later."""
    if nested > 32:
        raise ValueError("nested too deep")
    first = data[at]
    kind, info, at = first >> 5, first & 31, at + 1
    if info < 24:
        count = info
    elif info in (24, 25, 26, 27):
        size = 1 << (info - 24)
        if at + size > len(data):
            raise ValueError("short")
        count, at = int.from_bytes(data[at : at + size], "big"), at + size
    elif info == 31 and kind in (2, 3, 4, 5):
        count = None
    else:
        raise ValueError("no length")
    if kind == 0:
        return count, at
    if kind in (2, 3) and count is not None:
        end = at + count
        if end > len(data):
            raise ValueError("short")
        return (data[at:end] if kind == 2 else data[at:end].decode()), end
    if kind == 4:
        items = []
        while count is None or len(items) < count:
            if count is None and data[at] == 0xFF:
                return items, at + 1
            item, at = read(data, at, nested + 1)
            items.append(item)
        return items, at
    if kind == 5 and count is not None:
        held = {}
        for _ in range(count):
            key, at = read(data, at, nested + 1)
            held[key], at = read(data, at, nested + 1)
        return held, at
    if kind == 7 and info in (20, 21, 22):
        return {20: False, 21: True, 22: None}[info], at
    raise ValueError("a kind of value that nothing here has")


def read_whole(data):
    value, end = read(data)
    if end != len(data):
        raise ValueError("bytes behind the value")
    return value


def write(value):
    """The shortest form, of definite length. Maps in the order in which their keys stand."""

    def head(kind, count):
        if count < 24:
            return bytes([kind << 5 | count])
        for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
            if count < 1 << (8 * size):
                return bytes([kind << 5 | info]) + count.to_bytes(size, "big")
        raise ValueError("too large")

    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, (list, tuple)):
        return head(4, len(value)) + b"".join(map(write, value))
    return head(5, len(value)) + b"".join(write(key) + write(held) for key, held in value.items())
