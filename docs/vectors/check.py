#!/usr/bin/env python3
"""Reads the test vectors by docs/ledger.md and docs/wire.md alone, without a line of Osiris.

    python3 -m pip install blake3 cryptography
    python3 docs/vectors/check.py [FOLDER]

What it knows of the two texts is in reader/: it reads and judges every block, evaluates which ones count and why
the others do not, folds the view and takes its hash, and reads pages, archives, the journal, frames with packed
blocks, messages, joins and tickets. Of automerge's changes it reads all but the columns that place the operations.
"""

import json
import pathlib
import struct
import sys

sys.dont_write_bytecode = True

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reader import files, wire
from reader.blocks import Ledger, verify
from reader.cbor import Refused, h, read, read_whole
from reader.effective import Standings
from reader.view import View

unhex = bytes.fromhex


def refusal(work, *arguments):
    """Why something is refused, as a word."""
    try:
        work(*arguments)
    except Refused as refused:
        return str(refused)
    return "taken"


# --- blocks, what counts, the view ----------------------------------------------------------------------


def check_ledger(vectors):
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
    assert wire.digest(ledger).hex() == vectors["digest"], "the digest"
    standings = Standings(ledger)
    for row in vectors["blocks"]:
        void = standings.why_void(ledger.blocks[unhex(row["id"])])
        assert (void, void is None) == (row["void"], row["effective"]), (void, row)
    view = View(ledger, standings)
    check_view(view, vectors["view"])
    for row in vectors["refused"]:
        got = refusal(ledger.admit, unhex(row["entry"]))
        assert got == row["reject"], f"{row['what']}: {got}, not {row['reject']}"
    return ledger, view


ROLES = ["node", "operator", "admin", "viewer", "invoker", "spawner", "voter"]


def check_view(view, said):
    _, _, members, functions, offers, forks, _, (slots, spawning, scaling) = view.value()
    named = lambda bits: [role for bit, role in enumerate(ROLES) if bits >> bit & 1]
    got = [
        {"device": m["device"].hex(), "active": m["active"], "roles": named(m["roles"]), "label": m["label"]}
        for m in members
    ]
    assert got == said["members"], "the members"
    ids = lambda rows, name="id": [row[name].hex() for row in rows]
    got = [{"name": function["name"], "revisions": ids(function["revisions"])} for function in functions]
    assert got == said["functions"], "the functions"
    got = [
        {"author": f["author"].hex(), "session": f["session"].hex(), "seq": f["seq"],
         "proof": [id.hex() for id in f["proof"]]}
        for f in forks
    ]
    assert got == said["forks"], "the forks"
    got = [
        {"number": slot["number"], "round": slot["round"], "claims": ids(slot["claims"]),
         "machines": ids(slot["machines"], "intent")}
        for slot in slots
    ]
    assert got == said["slots"], "the slots"
    bounds, labels = dict(scaling[0]), dict(scaling[2])
    counts = {name: (replicas, [device.hex() for device in past]) for name, replicas, past in scaling[1]}
    assert said["bounds"] == {name: bounds[name] for name in ("hello", "old")}, "the bounds"
    assert said["bounds_of_all"] == bounds[None][1], "the bounds of all together"
    assert (said["replicas"], said["passed_over"]) == counts["hello"], "the replicas"
    assert list(labels.values()) == [said["labels"]], "the labels"
    assert [device.hex() for device in scaling[3]] == said["draining"], "who drains"
    assert [blocks for _, blocks in offers[2]] == [said["budget"]], "the budget"
    assert spawning == said["spawning"], "spawning"
    assert view.hash().hex() == said["hash"], "the view's hash"


def check_histories(vectors):
    for history in vectors["histories"]:
        ledger = Ledger(unhex(history["fleet"]))
        blocks = [(ledger.admit(unhex(row["entry"])), row["void"]) for row in history["blocks"]]
        standings = Standings(ledger)
        for block, void in blocks:
            got = standings.why_void(block)
            assert got == void, f"{block['op']} {block['id'].hex()} of {history['fleet']}: {got}, not {void}"
        assert wire.digest(ledger).hex() == history["digest"], "the digest"
        assert View(ledger, standings).hash().hex() == history["view"], "the view's hash"
    return sum(len(history["blocks"]) for history in vectors["histories"])


# --- pages, archives, the document ----------------------------------------------------------------------


def check_page(vectors, ledger):
    page = unhex(vectors["page"])
    assert h(page).hex() == vectors["hash"], "the page's name"
    for summary, row in zip(files.read_page(ledger.fleet, page), vectors["rows"], strict=True):
        block = ledger.blocks[summary["id"]]
        known = {"version": 2, "parents": sorted(block["parents"]), "wall_ms": None}
        assert summary | {"version": 2, "parents": sorted(summary["parents"])} == block | known, "a summary is its block's"
        for field in ("id", "author", "session", "grant", "prev"):
            assert summary[field].hex() == row[field], (field, row)
        assert [id.hex() for id in summary["parents"]] == row["parents"], row
        assert (summary["seq"], summary["depth"]) == (row["seq"], row["depth"]), row
        revision, concurrency = (summary["says"] + [None])[:2]
        assert (revision.hex(), concurrency) == (row["revision"], row["concurrency"]), row
    for row in vectors["refused"]:
        got = refusal(files.read_page, ledger.fleet, unhex(row["page"]))
        assert got == row["error"], f"{row['what']}: {got}, not {row['error']}"


def damage(archive, done):
    match done:
        case {"keep": count}:
            return archive[:count]
        case {"xor": [at, bits]}:
            return archive[:at] + bytes([archive[at] ^ bits]) + archive[at + 1 :]
        case {"append": byte}:
            return archive + bytes([byte])
        case {"without": [start, end]}:
            body = archive[:start] + archive[end:-32]
            return body + h(body)


def check_archive(vectors, ledger, view):
    archive = unhex(vectors["archive"])
    held, again, blocks, summaries, pages = files.read_archive(archive)
    assert held.fleet.hex() == vectors["fleet"]
    assert (blocks, summaries, pages) == tuple(vectors[name] for name in ("blocks", "summaries", "pages"))
    assert again.hash().hex() == vectors["view"] and again.hash() == view.hash(), "with or without the page"
    assert wire.digest(held) == wire.digest(ledger), "summaries have the place of their blocks"
    for case in vectors["damaged"]:
        got = refusal(files.read_archive, damage(archive, case["done"]))
        assert got == case["error"], f"{case['what']}: {got}, not {case['error']}"
    case = vectors["unsealed"]
    assert refusal(files.read_archive, unhex(case["archive"])) == case["error"], case["what"]


def check_document(vectors, ledger):
    blocks = [ledger.blocks[unhex(row["block"])] for row in vectors["changes"]]
    part = Ledger(ledger.fleet)
    part.blocks = {block["id"]: block for block in blocks}
    last = {}
    for row, expected in zip(vectors["changes"], files.changes(part, blocks), strict=True):
        if expected is None:
            assert row["change"] is None, "nothing of a forked chain from its fork upward"
            continue
        change = files.read_change(unhex(row["change"]))
        assert change["hash"].hex() == row["hash"], row
        for field in ("actor", "seq", "start", "time"):
            assert change[field] == expected[field], (field, row)
        actor = expected["actor"]
        assert change["deps"] == ([last[actor]] if actor in last else []), "it depends on its chain's change before"
        assert (change["message"], change["actors"], change["rest"]) == (b"", 0, b"")
        assert h(change["columns"][0x57]).hex() == row["block"], "the entry is the only value"
        keys = change["columns"].get(0x15, b"")
        assert (expected["key"] in keys) if expected["key"] else (b"/" not in keys), "a segment's first makes its list"
        last[actor] = change["hash"]
    assert sorted(hash.hex() for hash in last.values()) == vectors["heads"], "the heads"


# --- the journal ----------------------------------------------------------------------------------------


def check_journal(vectors, ledger):
    journal, heads = unhex(vectors["journal"]), unhex(vectors["head_file"])
    tail = unhex(vectors["fleet"]) + struct.pack("<I", vectors["generation"])
    assert journal[:44] == b"OSIRISJ2" + tail and heads[:44] == b"OSIRISH1" + tail, "the headers"
    link, number, end = h(b"osiris-journal", tail)[:8], 0, 44
    for record, row in zip(files.records(journal), vectors["records"], strict=True):
        at, stop, n, linked, place, check, payload = record
        assert (at, n, linked) == (end, number + 1, link), "each record follows the one before"
        assert (at, n, place, stop) == (row["offset"], row["number"], row["place"], row["end"]), row
        assert (check.hex(), linked.hex(), h(payload).hex()) == (row["check"], row["link"], row["block"]), row
        assert h(payload) in ledger.blocks, "a record holds an entry"
        link, number, end = check, n, stop
    assert end == len(journal)
    ends = {record[2]: record for record in files.records(journal)}
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
    journal = unhex(case["journal"])
    held = files.records(journal)
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


# --- frames, messages, joins, tickets -------------------------------------------------------------------


def check_frames(vectors, ledger):
    said = {}
    for row in vectors["frames"]:
        frame, end = read(unhex(row["bytes"]))
        assert end * 2 == len(row["bytes"]), row["what"]
        (name, value), = frame.items()
        said[row["what"]] = (name, value)
    assert said["digest"] == ("digest", wire.digest(ledger)), "the digest frame"
    assert said["receipt"] == ("receipt", [ledger.fleet]), "the receipt frame"
    assert said["pages"] == ("pages", [[bytes([7] * 32), 1_000]]), "the pages frame"
    tips = wire.tips(ledger)
    actors = sorted(tips)
    assert said["gaps of an empty replica"] == ("gaps", [[actor, []] for actor in actors]), "the gaps"
    for what, full, size in (("short vector", False, 8), ("full vector", True, 32)):
        vector = [[actor, [[seq, id[:size]] for seq, id in tips[actor]]] for actor in actors]
        assert said[what] == ("vector", [full, vector]), what
    hashes = b"".join(bucket[:16] for bucket in wire.bucket_hashes(ledger))
    assert said["hashes of buckets"] == ("buckets", hashes), "the hashes of buckets"
    name, (full, bits, vector) = said["the part of one bucket"]
    inside = [a for a in actors if bits[a[0] // 8] >> (a[0] % 8) & 1]
    assert (name, full, sum(map(int.bit_count, bits))) == ("part", False, 1) and inside
    assert vector == [[a, [[seq, id[:8]] for seq, id in tips[a]]] for a in inside], "the part"
    name, (packed, more) = said["blocks, and there are more"]
    entries = wire.unpack(packed)
    assert (name, more) == ("blocks", True) and all(h(entry) in ledger.blocks for entry in entries)
    assert len(entries) == len(ledger.blocks) and len(packed) < sum(map(len, entries)), "all, in less room"
    for row in vectors["refused_packed"]:
        assert refusal(wire.unpack, unhex(row["packed"])) != "taken", row["what"]


def check_wire(vectors, ledger):
    addrs = ["192.0.2.7:4433", "[2001:db8::7]:4433"]
    addresses = lambda values: [wire.address(value) for value in values]
    said = {row["what"]: wire.message(unhex(row["bytes"])) for row in vectors["messages"]}
    founder, node = ledger.blocks[ledger.fleet]["author"], unhex(vectors["join"]["device"])
    kind, hello = said["hello"]
    assert kind == 0 and list(hello) == ["topic", "version", "session", "addrs"]
    assert (hello["topic"], hello["version"], len(hello["session"])) == (ledger.fleet, 1, 16)
    assert addresses(hello["addrs"]) == addrs
    assert said["frame"] == (1, b"a frame") and said["wanted"] == (3, [node])
    kind, (entry,) = said["addresses"]
    assert (kind, entry["peer"], [aged["age_s"] for aged in entry["addrs"]]) == (2, founder, [60, 60])
    assert addresses(aged["addr"] for aged in entry["addrs"]) == addrs

    join = {what: read_whole(wire.framed(unhex(bytes), 64 << 10)) for what, bytes in vectors["join"].items() if what != "device"}
    request = join["request"]
    assert list(request) == ["fleet", "invitation", "proof", "label", "addrs"]
    key = ledger.offer(ledger.blocks[request["invitation"]])[0]
    verify(key, request["proof"], h(b"osiris-join-v1", request["fleet"], request["invitation"], node), "Proof")
    assert ledger.grants[join["welcome"]["Welcome"]["grant"]][0] == node
    assert [(p["peer"], addresses(p["addrs"])) for p in join["welcome"]["Welcome"]["addrs"]] == [(founder, addrs)]
    assert join["refused"] == {"Refused": {"code": "UsedUp", "message": "No use is left."}}

    for row in vectors["tickets"]:
        ticket = wire.ticket(row["text"])
        assert (ticket["fleet"], ticket["name"], ticket["peers"]) == (ledger.fleet, "berlin", [(founder, addrs)])
        if ticket["kind"] == 1:
            assert ticket["invitation"] == request["invitation"] and len(ticket["heads"]) == 2
            assert (ticket["secret"] == bytes(32)) == (ticket["device"] == node)
        if ticket["kind"] == 1 and any(ticket["secret"]):
            public = Ed25519PrivateKey.from_private_bytes(ticket["secret"]).public_key().public_bytes_raw()
            assert public == key, "the secret is that of the invitation's key"


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    load = lambda name: json.loads((folder / name).read_text())
    vectors = load("ledger.json")
    ledger, view = check_ledger(vectors)
    judged = check_histories(load("histories.json"))
    check_page(load("page.json"), ledger)
    check_archive(load("archive.json"), ledger, view)
    check_document(load("document.json"), ledger)
    check_journal(load("journal.json"), ledger)
    check_frames(load("frames.json"), ledger)
    check_wire(load("wire.json"), ledger)
    blocks = len(vectors["blocks"]) + judged
    print(f"{blocks} blocks judged, {len(vectors['refused'])} refusals, view, page, archive, document, journal, frames and wire: as specified")


if __name__ == "__main__":
    main()
