"""Section Sync, and docs/wire.md: digests and vectors, packed blocks, messages, joins and tickets."""

import base64
import ipaddress
import struct

from .cbor import Refused, h, read_whole


# --- what a replica holds -------------------------------------------------------------------------------


def tips_of(blocks):
    """Blocks that none of their chain follows, by id."""
    followed = {block["prev"] for block in blocks}
    tips = [block for block in blocks if block["id"] not in followed]
    return [[tip["seq"], tip["id"]] for tip in sorted(tips, key=lambda tip: tip["id"])]


def tips(ledger):
    """The first 16 bytes of each chain's actor → its tips."""
    return {h(*chain)[:16]: tips_of(blocks) for chain, blocks in ledger.chains().items()}


def bucket_hashes(ledger):
    buckets = [b""] * 256
    for chain, blocks in sorted(ledger.chains().items(), key=lambda entry: h(*entry[0])):
        held = tips_of(blocks)
        said = b"".join(chain) + struct.pack("<Q", len(held))
        said += b"".join(struct.pack("<Q", seq) + id for seq, id in held)
        buckets[h(*chain)[0]] += said
    return [h(bucket) if bucket else bytes(32) for bucket in buckets]


def digest(ledger):
    return h(b"osiris-tips-v2", *bucket_hashes(ledger))


# --- packed blocks --------------------------------------------------------------------------------------


def unpack(packed):
    """Entries as a frame packs them."""

    def number():
        value = 0
        for place in range(5):
            (byte,) = take(1)
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                if (place and not byte) or value >= 1 << 32:
                    break
                return value
        raise Refused("no number")

    def take(count):
        nonlocal at
        at += count
        if at > len(packed):
            raise Refused("an end within an entry")
        return packed[at - count : at]

    at, entries, values, left = 0, [], [], 2 << 20
    while at < len(packed):
        length, entry = number(), b""
        left -= length
        if not 65 <= length <= 3_072 or left < 0:
            raise Refused("a length")
        while len(entry) < length:
            n, kind = divmod(number(), 4)
            if kind == 0 and n:
                entry += take(n)
            elif kind == 1 and n < len(values):
                entry += values[n]
            elif kind == 2 and n < len(entries):
                entry += b"\x58\x20" + h(entries[-1 - n])
            elif kind == 3 and n < 2:
                values.append((b"\x58\x20" + take(32)) if n == 0 else (b"\x50" + take(16)))
                entry += values[-1]
            else:
                raise Refused("no piece")
        if len(entry) != length:
            raise Refused("pieces beyond the length")
        entries.append(entry)
    return entries


# --- messages, joins, tickets ---------------------------------------------------------------------------


def framed(bytes, most):
    """The payload of one frame and no more."""
    (length,) = struct.unpack(">I", bytes[:4])
    assert length == len(bytes) - 4 and length <= most
    return bytes[4:]


def address(value):
    (version, (ip, port)), = value.items()
    ip = (ipaddress.IPv4Address if version == "V4" else ipaddress.IPv6Address)(bytes(ip))
    return f"{ip}:{port}" if version == "V4" else f"[{ip}]:{port}"


def message(bytes):
    payload = framed(bytes, (2 << 20) + 1)
    return payload[0], payload[1:] if payload[0] == 1 else read_whole(payload[1:])


def ticket(text):
    text = "".join(text.split()).upper()
    assert len(text) <= 8_192 and text.startswith("OSIRIS")
    text = text.removeprefix("OSIRIS")
    data = base64.b32decode(text + "=" * (-len(text) % 8))
    body, at = data[:-4], 0
    assert h(body)[:4] == data[-4:], "the checksum"

    def take(count):
        nonlocal at
        at += count
        assert at <= len(body), "the ticket ends early"
        return body[at - count : at]

    def count(most):
        (value,) = take(1)
        assert value <= most
        return value

    def peer():
        key, addrs = take(32), []
        for _ in range(count(8)):
            (version,) = take(1)
            ip, port = take({4: 4, 6: 16}[version]), struct.unpack(">H", take(2))[0]
            addrs.append(address({f"V{version}": [list(ip), port]}))
        return key, addrs

    version, kind = take(2)
    assert version == 1 and kind in (0, 1)
    said = {"kind": kind, "fleet": take(32), "name": take(count(255)).decode()}
    said["peers"] = [peer() for _ in range(count(8))]
    if kind == 1:
        said |= {"invitation": take(32), "secret": take(32), "heads": [take(32) for _ in range(count(32))]}
        said["device"] = take(32) if count(1) else None
    assert at == len(body), "nothing follows the last field"
    return said
