"""Sections Pages, Archive, Document and Journal: what a ledger becomes outside its blocks."""

import hashlib
import struct

from .blocks import ZERO, Ledger, array_of, fixed, ids, u32, u64
from .cbor import Refused, h, read_whole, write
from .effective import Standings
from .view import View

ROW = [fixed(32), u32, u64, u64, u32, lambda prev: prev is None or u32(prev), array_of(u32), u32, u32]


def is_array(value, types):
    return type(value) is list and len(value) == len(types) and all(f(v) for f, v in zip(types, value))


# --- pages ----------------------------------------------------------------------------------------------


def read_page(fleet, page):
    """The summaries of a page, as blocks whose `wall_ms` is not known."""
    if len(page) > 1 << 20:
        raise Refused("too-large")
    is_chain = lambda chain: is_array(chain, [fixed(32), fixed(16)])
    is_row = lambda row: is_array(row, ROW)
    try:
        said = read_whole(page)
        fits = is_array(said, [lambda version: version == 1, fixed(32), ids, array_of(is_chain), array_of(is_row)])
    except (ValueError, IndexError, TypeError):
        fits = False
    if not fits or write(said) != page:
        raise Refused("malformed")
    _, named, outside, chains, rows = said
    if named != fleet:
        raise Refused("other-fleet")
    if not lists_fit(outside, chains, rows):
        raise Refused("lists")
    names = [row[0] for row in rows] + outside
    summaries = []
    for id, chain, seq, depth, grant, prev, parents, revision, concurrency in rows:
        serves = concurrency > 0
        summaries.append({
            "id": id, "author": chains[chain][0], "session": chains[chain][1], "seq": seq, "depth": depth,
            "grant": outside[grant], "prev": ZERO if prev is None else names[prev],
            "parents": [names[parent] for parent in parents], "wall_ms": None,
            "op": "serving" if serves else "stopped", "says": [outside[revision]] + [concurrency] * serves,
        })
    return summaries


def lists_fit(outside, chains, rows):
    def ascends(items):
        return all(a < b for a, b in zip(items, items[1:]))

    own = {row[0] for row in rows}
    if not 1 <= len(rows) <= 8_192 or len(own) != len(rows) or own & set(outside):
        return False
    if not (ascends(outside) and ascends(chains) and ascends([(row[3], row[0]) for row in rows])):
        return False
    used, used_chains = set(), set()
    for at, (_, chain, seq, _, grant, prev, parents, revision, _) in enumerate(rows):
        if seq == 0 or (seq == 1) != (prev is None) or len(parents) > 8 or (seq == 1 and not parents):
            return False
        links = [prev] * (prev is not None) + parents
        if not ascends(parents) or any(at <= link < len(rows) for link in links):
            return False
        used |= {grant, revision} | {link - len(rows) for link in links if link >= len(rows)}
        used_chains.add(chain)
    return used == set(range(len(outside))) and used_chains == set(range(len(chains)))


# --- archives -------------------------------------------------------------------------------------------


def items(archive):
    """Fleet, and kind and bytes of each item, where nothing was cut or changed."""
    if archive[:8] != b"OSIRISA1":
        raise Refused("format")
    at, found = 40, []
    while True:
        if at >= len(archive):
            raise Refused("damaged")
        kind, (length,) = archive[at], struct.unpack("<I", archive[at + 1 : at + 5].ljust(4, b"\0"))
        if kind == 0:
            break
        if length > {1: 3_072, 2: 1 << 20}.get(kind, -1) or at + 5 + length > len(archive):
            raise Refused("damaged")
        found.append((kind, archive[at + 5 : at + 5 + length]))
        at += 5 + length
    if archive[at + 1 :] != h(archive[: at + 1]):
        raise Refused("damaged")
    return archive[8:40], found


def read_archive(archive):
    """What an archive holds: its ledger and view, how many blocks, summaries and pages."""
    fleet, found = items(archive)
    ledger, pages = Ledger(fleet), [bytes for kind, bytes in found if kind == 2]
    try:
        listed = {page: read_page(fleet, page) for page in pages}
    except Refused:
        raise Refused("page") from None
    try:
        blocks = [ledger.shape(bytes) for kind, bytes in found if kind == 1]
    except Refused:
        raise Refused("block") from None
    full = {block["id"] for block in blocks}
    relied_on = {page: [row for row in rows if row["id"] not in full] for page, rows in listed.items()}
    waiting, left = blocks + sum(relied_on.values(), []), None
    while left != len(waiting):
        left, still = len(waiting), []
        for block in waiting:
            try:
                block["id"] in ledger.blocks or ledger.take(block)
            except Refused as refused:
                if str(refused) != "Early":
                    raise Refused("page" if block["wall_ms"] is None else "block") from None
                still.append(block)
        waiting = still
    if waiting or fleet not in ledger.blocks:
        raise Refused("incomplete")
    view = View(ledger, Standings(ledger))
    sealed = {page["page"] for page in view.pages() if page["sealed"]}
    if any(rows and h(page) not in sealed for page, rows in relied_on.items()):
        raise Refused("unsealed")
    return ledger, view, len(full), len(ledger.blocks) - len(full), len(pages)


# --- the automerge document -----------------------------------------------------------------------------


def read_change(change):
    """The hash and the fields of an automerge change, with the columns of its operations by their number."""

    def number(signed=False):
        nonlocal at
        value = shift = 0
        while True:
            byte = change[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value - (1 << shift) if signed and byte & 0x40 else value

    def take(count):
        nonlocal at
        at += count
        return change[at - count : at]

    at = 9
    assert change[:4] == bytes.fromhex("856f4a83") and change[8] == 1, "a chunk that is a change"
    length = number()
    assert at + length == len(change)
    hash = hashlib.sha256(change[8:]).digest()
    assert change[4:8] == hash[:4], "the check"
    said = {"hash": hash, "deps": [take(32) for _ in range(number())], "actor": take(number()), "seq": number()}
    said |= {"start": number(), "time": number(signed=True), "message": take(number()), "actors": number()}
    columns = [(number(), number()) for _ in range(number())]
    said["columns"] = {spec: take(size) for spec, size in columns}
    said["rest"] = change[at:]
    return said


def changes(ledger, blocks):
    """The fields of the change of each of these blocks, by the document; a forked chain is left out from there."""
    forks = {(author, session): seq for author, session, seq in ledger.forks()}
    places = {}
    for block in blocks:
        chain = (block["author"], block["session"])
        if block["seq"] >= forks.get(chain, 1 << 64):
            yield None
            continue
        place = places.get(chain, 0)
        places[chain] = place + 1
        segment, opens = divmod(place, 256)
        actor = h(*chain)
        # A segment's first change makes its list, too.
        start = 1 + place + (place + 255) // 256
        key = f"{actor.hex()}/{segment}".encode() if opens == 0 else None
        yield {"actor": actor, "seq": place + 1, "start": start, "time": block["wall_ms"], "key": key}


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
