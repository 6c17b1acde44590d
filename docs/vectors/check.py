#!/usr/bin/env python3
"""Reads the test vectors by docs/ledger.md alone, without a line of Osiris.

    python3 -m pip install blake3 cryptography
    python3 docs/vectors/check.py [FOLDER]

Checks the ids, signatures, canonical form, links, depths and grants of the blocks, that what is refused is
refused for a reason of the named kind, which blocks lie above a fork, the digest, and the journal and its
head file. It does not evaluate which blocks count beyond forks.
"""

import json
import pathlib
import struct
import sys

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ZERO = bytes(32)
FIELDS = "version author session seq prev parents depth wall_ms grant payload".split()
ROLE_OF = {
    "invited": 4, "user": 4, "withdrawn": 4, "revoked": 4, "deployed": 2, "removed": 2,
    "admitted": 1, "recovered": 1, "serving": 1, "stopped": 1, "voters": 4, "sealed": 64,
    "claimed": 32, "activated": 32, "intent": 32, "released": 1, "retired": 32, "spawning": 4,
    "bounded": 2, "scaled": 1, "labelled": 4, "budgeted": 4,
}
# Genesis and recoveries hold every role.
ALL_ROLES = 127
PLACE_LABEL = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


class Refused(Exception):
    """Carries the name of the reject."""


def h(*parts):
    return blake3(b"".join(parts)).digest()


# --- CBOR, RFC 8949: what may come, and the one form that is canonical --------------------------------


def read(data, at=0, nested=0):
    """One value from `at`, and where it ends. Indefinite lengths and tags are read, to be refused later."""
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
    if kind == 5 and count == 1:
        key, at = read(data, at, nested + 1)
        value, at = read(data, at, nested + 1)
        return {key: value}, at
    if kind == 7 and info in (20, 21, 22):
        return {20: False, 21: True, 22: None}[info], at
    raise ValueError("a kind of value that no block has")


def write(value):
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
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(write, value))
    (key, held), = value.items()
    return head(5, 1) + write(key) + write(held)


# --- blocks ---------------------------------------------------------------------------------------------


def is_name(text):
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    return 1 <= len(text) <= 63 and set(text) <= allowed and text[0].isalpha() and text[-1] != "-"


def is_place_label(text):
    words = text.split("=")
    fits = len(words) <= 2 and all(word and set(word) <= PLACE_LABEL for word in words)
    return fits and len(text) <= 64


def verify(key, signature, message, otherwise):
    if int.from_bytes(signature[32:], "little") >= GROUP_ORDER:
        raise Refused(otherwise)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Refused(otherwise) from None


def is_weak(key):
    """The points of small order, by their y: 0, 1, -1, and the four of order 8."""
    p = 2**255 - 19
    y = (int.from_bytes(key, "little") & (2**255 - 1)) % p
    d = -121665 * pow(121666, p - 2, p) % p
    # y of order 8 are the roots of d·y⁴ + 2·y² − 1.
    return y in (0, 1, p - 1) or (d * pow(y, 4, p) + 2 * y * y - 1) % p == 0


class Ledger:
    def __init__(self, fleet):
        self.fleet, self.blocks, self.grants = fleet, {}, {}

    def shape(self, entry):
        """What needs no other block."""
        if len(entry) > 3072:
            raise Refused("TooLarge")
        if len(entry) < 64:
            raise Refused("Malformed")
        body, signature = entry[:-64], entry[-64:]
        if body[:1] == b"\x8a" and len(body) > 1 and body[1] < 24 and body[1] != 2:
            raise Refused("Version")
        try:
            fields, end = read(body)
        except (ValueError, IndexError):
            raise Refused("Malformed") from None
        if not isinstance(fields, list) or len(fields) != 10 or not isinstance(fields[9], dict):
            raise Refused("Malformed")
        if end != len(body) or write(fields) != body:
            raise Refused("NotCanonical")
        block = dict(zip(FIELDS, fields), id=h(entry))
        (block["op"], block["says"]), = block.pop("payload").items()
        genesis = block["op"] == "founded"
        parents, seq = block["parents"], block["seq"]
        if len(parents) > 8 or len(set(parents)) != len(parents):
            raise Refused("Parents")
        if (seq == 1 and not parents and not genesis) or (genesis and parents):
            raise Refused("Parents")
        if seq == 0 or (seq == 1) != (block["prev"] == ZERO):
            raise Refused("Seq")
        if genesis and (seq != 1 or block["depth"] != 1 or block["grant"] != ZERO):
            raise Refused("Malformed")
        says = block["says"]
        if block["op"] in ("deployed", "removed") and not is_name(says[0]):
            raise Refused("Field")
        if block["op"] == "invited" and not 1 <= says[1] <= 10_000:
            raise Refused("Field")
        if block["op"] == "claimed":
            slot, round, after = says
            if slot >= 1_000 or round == 0 or (round == 1) != (after is None):
                raise Refused("Field")
        if block["op"] == "intent":
            _, target, names, key = says
            if is_weak(key):
                raise Refused("Field")
            if not all(map(is_name, [target, *names])) or len(names) > 16 or names != sorted(set(names)):
                raise Refused("Field")
        if block["op"] == "spawning" and says[0] > 1_000:
            raise Refused("Field")
        if block["op"] == "bounded":
            name, range_ = says
            low, high = range_ or (0, 1)
            if (name is not None and not is_name(name)) or (name is None and low > 0):
                raise Refused("Field")
            if not low <= high or not 1 <= high <= 10_000:
                raise Refused("Field")
        if block["op"] == "scaled" and (not is_name(says[0]) or says[1] > 10_000):
            raise Refused("Field")
        if block["op"] == "labelled":
            device, labels = says
            if is_weak(device) or len(labels) > 16 or labels != sorted(set(labels)):
                raise Refused("Field")
            if not all(map(is_place_label, labels)):
                raise Refused("Field")
        if block["op"] == "budgeted" and (is_weak(says[0]) or not 1 <= says[1] <= 1_000_000_000):
            raise Refused("Field")
        if is_weak(block["author"]):
            raise Refused("WeakKey")
        named = ZERO if genesis else self.fleet
        verify(block["author"], signature, h(b"osiris-ledger-v1", named, body), "BadSignature")
        if genesis and block["id"] != self.fleet:
            raise Refused("OtherFleet")
        return block

    def references(self, block):
        op, says = block["op"], block["says"]
        return {
            "withdrawn": lambda: [says[0], *says[1]],
            "admitted": lambda: [says[0]],
            "revoked": lambda: says[0] + says[1],
            "deployed": lambda: says[6],
            "removed": lambda: says[1],
            "serving": lambda: [says[0]],
            "stopped": lambda: [says[0]],
            "sealed": lambda: [says[0]],
            "claimed": lambda: [says[2]] * (says[2] is not None),
            "activated": lambda: [says[0]],
            "intent": lambda: [says[0]],
            "released": lambda: [says[0]],
            "retired": lambda: [says[0]],
        }.get(op, list)()

    def offer(self, block):
        """Key, roles and device of an invitation, a user or a machine's intent."""
        says = block["says"]
        if block["op"] == "invited":
            return says[0], says[2], says[3]
        if block["op"] == "user":
            return says[1], says[2], None
        if block["op"] == "intent":
            return says[3], 1, None
        raise Refused("ReferenceKind")

    def admit(self, entry):
        block = self.shape(entry)
        op, says, depth = block["op"], block["says"], block["depth"]
        if op == "founded":
            _, _, admin, recovery, nonce, certificate = says
            verify(admin, certificate, h(b"osiris-founder-v1", nonce, block["author"], recovery), "Proof")
            self.grants[block["id"]] = (block["author"], ALL_ROLES)
            self.blocks[block["id"]] = block
            return block
        needs = [*block["parents"], block["grant"], *self.references(block)]
        needs += [block["prev"]] * (block["seq"] > 1)
        if any(need not in self.blocks for need in needs):
            raise Refused("Early")
        below = [self.blocks[parent]["depth"] for parent in block["parents"]]
        if block["seq"] > 1:
            prev = self.blocks[block["prev"]]
            if (prev["author"], prev["session"]) != (block["author"], block["session"]):
                raise Refused("OtherChain")
            if prev["seq"] + 1 != block["seq"]:
                raise Refused("Seq")
            below.append(prev["depth"])
        if depth != 1 + max(below):
            raise Refused("Depth")
        holder, roles = self.grants.get(block["grant"], (None, 0))
        if holder != block["author"]:
            raise Refused("Grant")
        if self.blocks[block["grant"]]["depth"] >= depth:
            raise Refused("ReferenceDepth")
        leaves = op == "revoked" and says[0] == [block["grant"]]
        gives = self.offer(block)[1] if op in ("invited", "user") else 0
        if not (leaves or roles & ROLE_OF[op]) or gives & ~roles:
            raise Refused("Role")
        named = [self.blocks[id] for id in self.references(block)]
        if any(held["depth"] >= depth for held in named):
            raise Refused("ReferenceDepth")
        self.fits(block, named)
        self.blocks[block["id"]] = block
        return block

    def fits(self, block, named):
        op, says = block["op"], block["says"]
        if op == "admitted":
            key, roles, device = self.offer(named[0])
            if device not in (None, says[1]):
                raise Refused("Proof")
            verify(key, says[2], h(b"osiris-join-v1", self.fleet, says[0], says[1]), "Proof")
            self.grants[block["id"]] = (says[1], roles)
        elif op == "recovered":
            device, _, generation, certificate = says
            key = self.blocks[self.fleet]["says"][3]
            said = h(b"osiris-recover-v1", self.fleet, struct.pack("<I", generation), device)
            verify(key, certificate, said, "Proof")
            self.grants[block["id"]] = (device, ALL_ROLES)
        else:
            wanted = {
                "withdrawn": lambda: named[0]["op"] in ("invited", "user", "intent")
                and all(held["op"] == "admitted" and held["says"][0] == says[0] for held in named[1:]),
                "revoked": lambda: self.revokes_one_device(says),
                "deployed": lambda: all(self.is_about(held, says[0]) for held in named),
                "removed": lambda: all(self.is_about(held, says[0]) for held in named),
                "serving": lambda: named[0]["op"] == "deployed",
                "stopped": lambda: named[0]["op"] == "deployed",
                "sealed": lambda: block["author"]
                in {"voters": named[0]["says"][0], "founded": [named[0]["author"]]}.get(named[0]["op"], []),
                "claimed": lambda: not named
                or (named[0]["op"] == "claimed" and named[0]["says"][:2] == [says[0], says[1] - 1]),
                "activated": lambda: named[0]["op"] == "claimed" and self.is_of_chain(named[0], block),
                "intent": lambda: named[0]["op"] == "activated" and self.is_of_chain(named[0], block),
                "released": lambda: named[0]["op"] == "claimed" and named[0]["author"] == block["author"],
                "retired": lambda: named[0]["op"] == "intent",
            }.get(op, lambda: True)
            if not wanted():
                raise Refused("ReferenceKind")

    def revokes_one_device(self, says):
        devices = {self.grants.get(grant, (None, 0))[0] for grant in says[0]}
        pins = [self.blocks[pin] for pin in says[1]]
        sessions = {pin["session"] for pin in pins}
        one = len(devices) == 1 and None not in devices
        return one and {pin["author"] for pin in pins} <= devices and len(sessions) == len(pins)

    @staticmethod
    def is_about(held, name):
        return held["op"] in ("deployed", "removed") and held["says"][0] == name

    @staticmethod
    def is_of_chain(held, block):
        return (held["author"], held["session"]) == (block["author"], block["session"])

    def slots(self):
        """Slot → its last round, that round's claims by draw, the machines that are not retired. For a history
        in which all of these blocks count."""
        slots = {}
        gone = {block["says"][0] for block in self.blocks.values() if block["op"] == "retired"}
        for block in self.blocks.values():
            if block["op"] == "claimed":
                slot, round, _ = block["says"]
                rounds, _ = slots.setdefault(slot, ({}, []))
                lot = h(b"osiris-lease-v1", struct.pack("<IQ", slot, round), block["author"])
                rounds.setdefault(round, []).append((lot, block["id"]))
            if block["op"] == "intent" and block["id"] not in gone:
                claim = self.blocks[self.blocks[block["says"][0]]["says"][0]]
                slots[claim["says"][0]][1].append((claim["says"][1], block["id"]))
        return {
            slot: (max(rounds), [id for _, id in sorted(rounds[max(rounds)])], [id for _, id in sorted(made)])
            for slot, (rounds, made) in slots.items()
        }

    def registers(self, op):
        """Key → what the last block of that operation in ledger order says. For a history in which all count."""
        blocks = sorted(self.blocks.values(), key=lambda block: (block["depth"], block["id"]))
        return {block["says"][0]: block["says"][1] for block in blocks if block["op"] == op}

    def chains(self):
        chains = {}
        for block in self.blocks.values():
            chains.setdefault((block["author"], block["session"]), []).append(block)
        return dict(sorted(chains.items()))

    def bucket_hashes(self):
        buckets = [b""] * 256
        for chain, blocks in sorted(self.chains().items(), key=lambda entry: h(*entry[0])):
            tips = self.tips_of(blocks)
            said = b"".join(chain) + struct.pack("<Q", len(tips))
            said += b"".join(struct.pack("<Q", seq) + id for seq, id in tips)
            buckets[h(*chain)[0]] += said
        return [h(bucket) if bucket else bytes(32) for bucket in buckets]

    def digest(self):
        return h(b"osiris-tips-v2", *self.bucket_hashes())

    @staticmethod
    def tips_of(blocks):
        """Blocks that none of their chain follows, by id."""
        followed = {block["prev"] for block in blocks}
        tips = [block for block in blocks if block["id"] not in followed]
        return [[tip["seq"], tip["id"]] for tip in sorted(tips, key=lambda tip: tip["id"])]

    def tips(self):
        """The first 16 bytes of each chain's actor → its tips."""
        return {h(*chain)[:16]: self.tips_of(blocks) for chain, blocks in self.chains().items()}

    def forks(self):
        """(author, session, seq) → the two smallest ids at the smallest place that two blocks bear."""
        forks = {}
        for (author, session), blocks in self.chains().items():
            at = {}
            for block in blocks:
                at.setdefault(block["seq"], []).append(block["id"])
            forked = [seq for seq, ids in at.items() if len(ids) > 1]
            if forked:
                forks[author, session, min(forked)] = sorted(at[min(forked)])[:2]
        return forks


def check_ledger(vectors):
    unhex = bytes.fromhex
    for key in vectors["keys"]:
        public = Ed25519PrivateKey.from_private_bytes(unhex(key["seed"])).public_key().public_bytes_raw()
        assert public.hex() == key["public"], key["name"]
    ledger = Ledger(unhex(vectors["fleet"]))
    for row in vectors["blocks"]:
        block = ledger.admit(unhex(row["body"]) + unhex(row["signature"]))
        for field in ("id", "author", "session"):
            assert block[field].hex() == row[field], (field, row)
        for field in ("op", "seq", "depth", "wall_ms"):
            assert block[field] == row[field], (field, row)
    order = [(row["depth"], row["id"]) for row in vectors["blocks"]]
    assert order == sorted(order), "the blocks are in ledger order"
    assert ledger.digest().hex() == vectors["digest"], "the digest"
    forks = ledger.forks()
    said = {
        (unhex(f["author"]), unhex(f["session"]), f["seq"]): [unhex(id) for id in f["proof"]]
        for f in vectors["view"]["forks"]
    }
    assert forks == said, "the forks"
    said = {
        slot["number"]: (slot["round"], [unhex(id) for id in slot["claims"]], [unhex(id) for id in slot["machines"]])
        for slot in vectors["view"]["slots"]
    }
    assert ledger.slots() == said, "the slots"
    bounds, view = ledger.registers("bounded"), vectors["view"]
    assert view["bounds"] == {name: bounds[name] for name in ("hello", "old")}, "the bounds"
    assert view["bounds_of_all"] == bounds[None][1], "the bounds of all together"
    assert view["replicas"] == ledger.registers("scaled")["hello"], "the replicas"
    assert list(ledger.registers("labelled").values()) == [view["labels"]], "the labels"
    assert list(ledger.registers("budgeted").values()) == [view["budget"]], "the budget"
    for row in vectors["blocks"]:
        for author, session, seq in forks:
            if (row["author"], row["session"]) == (author.hex(), session.hex()) and row["seq"] >= seq:
                assert not row["effective"], "no pin keeps what lies above this fork"
    for row in vectors["refused"]:
        try:
            ledger.admit(unhex(row["entry"]))
        except Refused as refused:
            got = str(refused)
        else:
            got = "admitted"
        assert got == row["reject"], f"{row['what']}: {got}, not {row['reject']}"
    return ledger


# --- the journal ----------------------------------------------------------------------------------------


def records(journal):
    """Whole records wherever they stand: offset, end, number, link, place, check, payload."""
    found, at = [], 44
    while at < len(journal):
        head = journal[at : at + 36]
        if len(head) == 36 and head[:4] == b"\xb1oJR":
            (length,) = struct.unpack("<I", head[4:8])
            check, rest = head[8:16], journal[at + 36 : at + 36 + length]
            if 0 < length <= 65536 and len(rest) == length and h(head[4:8], head[16:36], rest)[:8] == check:
                number, link, place = struct.unpack("<Q8sI", head[16:36])
                end = at + 36 + length
                found.append((at, end, number, link, place, check, rest[1:]))
                at = end
                continue
        at += 1
    return found


def check_journal(vectors, ledger):
    journal, heads = bytes.fromhex(vectors["journal"]), bytes.fromhex(vectors["head_file"])
    tail = bytes.fromhex(vectors["fleet"]) + struct.pack("<I", vectors["generation"])
    assert journal[:44] == b"OSIRISJ2" + tail and heads[:44] == b"OSIRISH1" + tail, "the headers"
    link, number, end = h(b"osiris-journal", tail)[:8], 0, 44
    for record, row in zip(records(journal), vectors["records"], strict=True):
        at, stop, n, linked, place, check, payload = record
        assert (at, n, linked) == (end, number + 1, link), "each record follows the one before"
        assert (at, n, place, stop) == (row["offset"], row["number"], row["place"], row["end"]), row
        assert (check.hex(), linked.hex(), h(payload).hex()) == (row["check"], row["link"], row["block"]), row
        assert h(payload) in ledger.blocks, "a record holds an entry"
        link, number, end = check, n, stop
    assert end == len(journal)
    ends = {record[2]: record for record in records(journal)}
    known = 0
    for at in range(44, len(heads), 32):
        said, seal = heads[at : at + 24], heads[at + 24 : at + 32]
        assert h(b"osiris-head", tail, said)[:8] == seal, "a head's seal"
        known, stop, check = struct.unpack("<QQ8s", said)
        if known:
            assert (ends[known][1], ends[known][5]) == (stop, check), "a head names a record"
    for case in vectors["damaged"]:
        check_damage(case, known, ends)


def check_damage(case, known, ends):
    journal = bytes.fromhex(case["journal"])
    held = records(journal)
    assert [record[2] for record in held] == case["records"], case["what"]
    holes, end, number = [], 44, 0
    for at, stop, n, *_ in held:
        if at != end or n != number + 1:
            holes.append({"offset": end, "bytes": at - end, "records": n - number - 1})
        end, number = stop, n
    assert holes == case["damage"], case["what"]
    tail = {"offset": end, "bytes": len(journal) - end} if end < len(journal) else None
    assert tail == case["tail"], case["what"]
    holds = any((n, check) == (known, ends[known][5]) for _, _, n, _, _, check, _ in held)
    assert holds == case["holds_head"], case["what"]


# --- frames ---------------------------------------------------------------------------------------------


def unpack(packed):
    """Entries as a frame packs them."""

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = packed[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def take(count):
        nonlocal at
        at += count
        assert at <= len(packed), "packed entries end early"
        return packed[at - count : at]

    at, entries, values = 0, [], []
    while at < len(packed):
        length, entry = number(), b""
        while len(entry) < length:
            n, kind = divmod(number(), 4)
            if kind == 0:
                entry += take(n)
            elif kind == 1:
                entry += values[n]
            elif kind == 2:
                entry += b"\x58\x20" + h(entries[-1 - n])
            else:
                values.append((b"\x58\x20" + take(32)) if n == 0 else (b"\x50" + take(16)))
                entry += values[-1]
        assert len(entry) == length, "an entry's pieces make its length"
        entries.append(entry)
    return entries


def check_frames(vectors, ledger):
    said = {}
    for row in vectors["frames"]:
        frame, end = read(bytes.fromhex(row["bytes"]))
        assert end * 2 == len(row["bytes"]), row["what"]
        (name, value), = frame.items()
        said[row["what"]] = (name, value)
    assert said["digest"] == ("digest", ledger.digest()), "the digest frame"
    assert said["receipt"] == ("receipt", [ledger.fleet]), "the receipt frame"
    assert said["pages"] == ("pages", [[bytes([7] * 32), 1_000]]), "the pages frame"
    tips = ledger.tips()
    actors = sorted(tips)
    assert said["gaps of an empty replica"] == ("gaps", [[actor, []] for actor in actors]), "the gaps"
    for what, full, size in (("short vector", False, 8), ("full vector", True, 32)):
        vector = [[actor, [[seq, id[:size]] for seq, id in tips[actor]]] for actor in actors]
        assert said[what] == ("vector", [full, vector]), what
    hashes = b"".join(bucket[:16] for bucket in ledger.bucket_hashes())
    assert said["hashes of buckets"] == ("buckets", hashes), "the hashes of buckets"
    name, (full, bits, vector) = said["the part of one bucket"]
    inside = [a for a in actors if bits[a[0] // 8] >> (a[0] % 8) & 1]
    assert (name, full, sum(map(int.bit_count, bits))) == ("part", False, 1) and inside
    assert vector == [[a, [[seq, id[:8]] for seq, id in tips[a]]] for a in inside], "the part"
    name, (packed, more) = said["two blocks, and there are more"]
    entries = unpack(packed)
    assert (name, more, len(entries)) == ("blocks", True, 2) and all(h(e) in ledger.blocks for e in entries)


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    load = lambda name: json.loads((folder / name).read_text())
    vectors = load("ledger.json")
    ledger = check_ledger(vectors)
    check_journal(load("journal.json"), ledger)
    check_frames(load("frames.json"), ledger)
    print(f"{len(vectors['blocks'])} blocks, {len(vectors['refused'])} refusals, journal and frames: as specified")


if __name__ == "__main__":
    main()
