"""Sections Block and Valid: reads entries and judges them."""

import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .cbor import Refused, h, read, write

ZERO = bytes(32)
FIELDS = "version author session seq prev parents depth wall_ms grant payload".split()
ROLE_OF = {
    "invited": 4, "user": 4, "withdrawn": 4, "revoked": 4, "deployed": 2, "removed": 2,
    "admitted": 1, "recovered": 1, "serving": 1, "stopped": 1, "voters": 4, "sealed": 64,
    "claimed": 32, "activated": 32, "intent": 32, "released": 1, "retired": 32, "spawning": 4,
    "bounded": 2, "scaled": 1, "labelled": 4, "budgeted": 4, "draining": 1,
}
# Genesis and recoveries hold every role.
ALL_ROLES = 127
PLACE_LABEL = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P


# Types of fields: of each whether a value is one.
def uint(bits):
    return lambda value: type(value) is int and value < 1 << bits


def fixed(size):
    return lambda value: type(value) is bytes and len(value) == size


def or_null(fits):
    return lambda value: value is None or fits(value)


def array_of(fits):
    return lambda value: type(value) is list and all(map(fits, value))


def is_range(value):
    return type(value) is list and len(value) == 2 and all(map(uint(32), value))


text, flag = (lambda value: type(value) is str), (lambda value: type(value) is bool)
id32, key, sign, ids, u32, u64 = fixed(32), fixed(32), fixed(64), array_of(fixed(32)), uint(32), uint(64)
BODY = [uint(8), key, fixed(16), u64, id32, ids, u64, u64, id32]
TYPES = {
    "founded": [text, text, key, key, fixed(16), sign],
    "invited": [key, u32, uint(8), or_null(key), text],
    "user": [text, key, uint(8), u32],
    "withdrawn": [id32, ids],
    "admitted": [id32, key, sign, text],
    "recovered": [key, text, u32, sign],
    "revoked": [ids, ids],
    "deployed": [text, id32, u64, lambda world: world in ("native", "http"), id32, u64, ids],
    "removed": [text, ids],
    "serving": [id32, u32],
    "stopped": [id32],
    "voters": [ids],
    "sealed": [id32, id32, u32],
    "claimed": [u32, u64, or_null(id32)],
    "activated": [id32],
    "intent": [id32, text, array_of(text), key],
    "released": [id32],
    "retired": [id32],
    "spawning": [u32, flag],
    "bounded": [or_null(text), or_null(is_range)],
    "scaled": [text, u32],
    "labelled": [key, array_of(text)],
    "budgeted": [key, u64],
    "draining": [flag],
}


# What fields may say.
def is_name(name):
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    return 1 <= len(name) <= 63 and set(name) <= allowed and name[0].isalpha() and name[-1] != "-"


def is_label(label):
    def is_odd(c):
        code = ord(c)
        return code < 0x20 or 0x7F <= code < 0xA0 or 0x200B <= code <= 0x206F or code == 0xFEFF

    return 1 <= len(label.encode()) <= 64 and not any(map(is_odd, label))


def is_place_label(label):
    words = label.split("=")
    return len(words) <= 2 and len(label) <= 64 and all(word and set(word) <= PLACE_LABEL for word in words)


def ascends(items, most):
    # In UTF-8, texts have the order of their code points.
    return len(items) <= most and items == sorted(set(items))


def is_usable(key):
    """A curve point that is not of small order, by its y: those have 0, 1, -1, or a root of d·y⁴ + 2·y² − 1."""
    y = (int.from_bytes(key, "little") & (2**255 - 1)) % P
    if y in (0, 1, P - 1) or (D * pow(y, 4, P) + 2 * y * y - 1) % P == 0:
        return False
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    return square == 0 or pow(square, (P - 1) // 2, P) == 1


def fields_fit(op, says):
    def is_roles(roles):
        return 1 <= roles <= ALL_ROLES

    match op, says:
        case "founded", [name, label, admin, recovery, _, _]:
            keys = is_usable(admin) and is_usable(recovery) and admin != recovery
            return is_label(name) and is_label(label) and keys
        case "invited", [key, uses, roles, device, note]:
            named = is_usable(device) if device is not None else roles == 1
            return is_usable(key) and 1 <= uses <= 10_000 and is_roles(roles) and named and (not note or is_label(note))
        case "user", [name, key, roles, devices]:
            return is_label(name) and is_usable(key) and is_roles(roles) and 1 <= devices <= 1_000
        case "withdrawn", [_, stands]:
            return ascends(stands, 16)
        case "admitted", [_, device, _, label]:
            return is_usable(device) and is_label(label)
        case "recovered", [device, label, generation, _]:
            return is_usable(device) and is_label(label) and generation > 0
        case "revoked", [grants, pins]:
            return grants and ascends(grants, 8) and ascends(pins, 32)
        case "deployed", [name, _, size, _, _, manifest_size, replaces]:
            sizes = 1 <= size <= 64 << 20 and 1 <= manifest_size <= 64 << 10
            return is_name(name) and sizes and ascends(replaces, 8)
        case "removed", [name, replaces]:
            return is_name(name) and replaces and ascends(replaces, 8)
        case "serving", [_, concurrency]:
            return concurrency > 0
        case "voters", [devices]:
            return devices and ascends(devices, 64) and all(map(is_usable, devices))
        case "sealed", [_, _, size]:
            return 1 <= size <= 1 << 20
        case "claimed", [slot, round, after]:
            return slot < 1_000 and round > 0 and (round == 1) == (after is None)
        case "intent", [_, target, functions, key]:
            return is_usable(key) and all(map(is_name, [target, *functions])) and ascends(functions, 16)
        case "spawning", [machines, _]:
            return machines <= 1_000
        case "bounded", [name, range_]:
            low, high = range_ or (0, 1)
            return (is_name(name) if name is not None else low == 0) and low <= high and 1 <= high <= 10_000
        case "scaled", [name, replicas, *past]:
            return is_name(name) and replicas <= 10_000 and all(ascends(keys, 16) for keys in past)
        case "labelled", [device, labels]:
            return is_usable(device) and ascends(labels, 16) and all(map(is_place_label, labels))
        case "budgeted", [device, blocks]:
            return is_usable(device) and 1 <= blocks <= 1_000_000_000
    return True


def verify(key, signature, message, otherwise):
    if int.from_bytes(signature[32:], "little") >= GROUP_ORDER or not is_usable(key):
        raise Refused(otherwise)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Refused(otherwise) from None


class Ledger:
    """Blocks and summaries that were taken in: of a summary all is known but signature and clock."""

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
        except (ValueError, IndexError, TypeError):
            raise Refused("Malformed") from None
        if not isinstance(fields, list) or len(fields) != 10 or not isinstance(fields[9], dict) or len(fields[9]) != 1:
            raise Refused("Malformed")
        (op, says), = fields[9].items()
        types = TYPES.get(op, [])
        if op == "scaled" and isinstance(says, list) and len(says) == 3:
            types = [*types, ids]
        if not isinstance(says, list) or len(says) != len(types) or not types:
            raise Refused("Malformed")
        if not all(fits(value) for fits, value in zip(BODY + types, fields[:9] + says)):
            raise Refused("Malformed")
        # Where nobody is passed over, the list is left out.
        if end != len(body) or write(fields) != body or (op == "scaled" and says[2:] == [[]]):
            raise Refused("NotCanonical")
        block = dict(zip(FIELDS[:9], fields), id=h(entry), op=op, says=says)
        genesis, parents, seq = op == "founded", block["parents"], block["seq"]
        if len(parents) > 8 or len(set(parents)) != len(parents):
            raise Refused("Parents")
        if (seq == 1 and not parents and not genesis) or (genesis and parents):
            raise Refused("Parents")
        if seq == 0 or (seq == 1) != (block["prev"] == ZERO):
            raise Refused("Seq")
        if genesis and (seq != 1 or block["depth"] != 1 or block["grant"] != ZERO):
            raise Refused("Malformed")
        if not fields_fit(op, says):
            raise Refused("Field")
        if not is_usable(block["author"]):
            raise Refused("WeakKey")
        named = ZERO if genesis else self.fleet
        verify(block["author"], signature, h(b"osiris-ledger-v1", named, body), "BadSignature")
        if genesis and block["id"] != self.fleet:
            raise Refused("OtherFleet")
        return block

    @staticmethod
    def references(block):
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

    @staticmethod
    def offer(block):
        """Key, uses, roles and device of an invitation, a user or a machine's intent."""
        says = block["says"]
        if block["op"] == "invited":
            return says[0], says[1], says[2], says[3]
        if block["op"] == "user":
            return says[1], says[3], says[2], None
        if block["op"] == "intent":
            return says[3], 1, 1, None
        raise Refused("ReferenceKind")

    def admit(self, entry):
        return self.take(self.shape(entry))

    def take(self, block):
        """Takes a block whose own bytes are right, or a summary."""
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
            if not self.is_of_chain(prev, block):
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
        gives = self.offer(block)[2] if op in ("invited", "user") else 0
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
            key, _, roles, device = self.offer(named[0])
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

    def in_order(self):
        return sorted(self.blocks.values(), key=lambda block: (block["depth"], block["id"]))

    def chains(self):
        chains = {}
        for block in self.blocks.values():
            chains.setdefault((block["author"], block["session"]), []).append(block)
        return dict(sorted(chains.items()))

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
