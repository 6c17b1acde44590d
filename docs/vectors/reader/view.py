"""Section View: folds what counts, as the value whose CBOR is hashed."""

import struct

from .cbor import h, write


def fields(block, *names):
    return {name: block[name] for name in names}


def order(block):
    return block["depth"], block["id"]


class View:
    def __init__(self, ledger, standings):
        self.ledger, self.standings, self.blocks = ledger, standings, ledger.blocks
        self.counting = [block for block in ledger.in_order() if standings.counts(block)]
        self.members = self.fold_members()
        self.functions = self.fold_functions()

    def value(self):
        name = self.blocks[self.ledger.fleet]["says"][0]
        offers = [self.invitations(), self.users(), self.budgets()]
        machines = [self.slots(), self.spawning(), self.scaling()]
        members = list(self.members.values())
        said = [self.ledger.fleet, name, members, self.functions, offers, self.forks()]
        return said + [[self.voters(), self.pages()], machines]

    def hash(self):
        return h(write(self.value()))

    def of(self, *ops):
        return [block for block in self.counting if block["op"] in ops]

    def last(self, op):
        """Key → what the last block of an operation that counts says, all of one device or name."""
        return {block["says"][0]: block["says"][1] for block in self.of(op)}

    # --- members and offers

    def active(self, grant):
        return self.standings.given[grant] and self.standings.cut[grant] is None

    def user_of(self, grant):
        block = self.blocks[grant]
        by_user = block["op"] == "admitted" and self.blocks[block["says"][0]]["op"] == "user"
        return block["says"][0] if by_user else None

    def fold_members(self):
        members, last = {}, {}
        for grant, (device, roles) in sorted(self.ledger.grants.items()):
            if not self.standings.given[grant]:
                continue
            said = {"device": device, "label": "", "roles": 0, "active": False, "grants": [], "users": []}
            member, active, block = members.setdefault(device, said), self.active(grant), self.blocks[grant]
            member["grants"].append([grant, roles, active])
            if active:
                member["active"], member["roles"] = True, member["roles"] | roles
                user = self.user_of(grant)
                member["users"] += [user] * (user is not None)
            if order(block) > last.get(device, (0, b"")):
                last[device] = order(block)
                member["label"] = block["says"][{"founded": 1, "admitted": 3, "recovered": 1}[block["op"]]]
        return dict(sorted(members.items()))

    def offer_state(self, id, uses):
        withdrawn, admitted, surplus = self.standings.offers.get(id, (set(), set(), set()))
        state = "withdrawn" if withdrawn else "used-up" if len(admitted) >= uses else "open"
        return len(admitted), len(surplus), state

    def invitations(self):
        rows = []
        for block in sorted(self.of("invited"), key=lambda block: block["id"]):
            key, uses, roles, device, note = block["says"]
            used, surplus, state = self.offer_state(block["id"], uses)
            rows.append({
                "id": block["id"], "key": key, "by": block["author"], "roles": roles, "device": device, "uses": uses,
                "used": used, "surplus": surplus, "state": state, "note": note,
            })
        return rows

    def users(self):
        rows = []
        for block in sorted(self.of("user"), key=lambda block: block["id"]):
            name, key, roles, most = block["says"]
            used, surplus, state = self.offer_state(block["id"], most)
            by_it = [grant for grant in sorted(self.ledger.grants) if self.user_of(grant) == block["id"]]
            devices = [[grant, self.ledger.grants[grant][0]] for grant in by_it if self.active(grant)]
            rows.append({
                "id": block["id"], "name": name, "key": key, "roles": roles, "by": block["author"],
                "devices_max": most, "used": used, "surplus": surplus, "devices": devices, "state": state,
            })
        return rows

    def budgets(self):
        return sorted([device, blocks] for device, blocks in self.last("budgeted").items())

    def forks(self):
        forks = self.ledger.forks().items()
        return [{"author": a, "session": s, "seq": seq, "proof": proof} for (a, s, seq), proof in forks]

    # --- functions

    def fold_functions(self):
        serving = {}
        for block in self.of("serving", "stopped"):
            concurrency = block["says"][1] if block["op"] == "serving" else None
            serving.setdefault(block["says"][0], {})[block["author"]] = concurrency
        named = {}
        for block in self.of("deployed", "removed"):
            named.setdefault(block["says"][0], []).append(block)
        return [self.function(name, blocks, serving) for name, blocks in sorted(named.items())]

    def function(self, name, blocks, serving):
        replaced = {id for block in blocks for id in block["says"][6 if block["op"] == "deployed" else 1]}
        heads = sorted(block["id"] for block in blocks if block["id"] not in replaced)
        deploys = [block for block in blocks if block["op"] == "deployed"]
        revisions = []
        for number, block in enumerate(deploys, 1):
            _, component, size, world, manifest, manifest_size, _ = block["says"]
            held = sorted(serving.get(block["id"], {}).items())
            held = [
                {"device": device, "concurrency": concurrency} for device, concurrency in held
                if concurrency is not None and self.members.get(device, {}).get("active")
            ]
            revisions.append({
                "id": block["id"], "number": number, "order": fields(block, "depth", "id"), "component": component,
                "size": size, "world": world, "manifest": manifest, "manifest_size": manifest_size,
                "by": block["author"], "wall_ms": block["wall_ms"],
                "concurrent": len(heads) > 1 and block["id"] in heads, "serving": held,
            })
        gone = max((order(block) for block in blocks if block["op"] == "removed"), default=(0, b""))
        stands = [said for said, block in zip(revisions, deploys) if order(block) > gone]
        live = next((said for said in reversed(stands) if said["serving"]), None)
        newest = stands[-1] if stands else None
        return {
            "name": name, "removed": newest is None, "live": live, "newest": newest, "revisions": revisions,
            "heads": heads,
        }

    # --- voters and pages

    def voters(self):
        named = self.of("voters")
        if named:
            return {"id": named[-1]["id"], "devices": named[-1]["says"][0]}
        genesis = self.blocks[self.ledger.fleet]
        return {"id": genesis["id"], "devices": [genesis["author"]]}

    def pages(self):
        pages = {}
        for block in self.of("sealed"):
            voters, page, size = block["says"]
            by, sizes = pages.setdefault(page, ({}, set()))
            by.setdefault(voters, set()).add(block["author"])
            sizes.add(size)
        rows = []
        for page, (by, sizes) in sorted(pages.items()):
            everyone = sorted(set().union(*by.values()))
            sealed = any(self.is_enough(voters, len(seals)) for voters, seals in by.items())
            rows.append({"page": page, "size": min(sizes), "by": everyone, "sealed": sealed})
        return rows

    def is_enough(self, voters, seals):
        block = self.blocks[voters]
        if block["op"] == "founded":
            return seals * 3 > 2
        return self.standings.counts(block) and seals * 3 > 2 * len(block["says"][0])

    # --- machines and replicas

    def draw(self, claim):
        slot, round, _ = claim["says"]
        return h(b"osiris-lease-v1", struct.pack("<IQ", slot, round), claim["author"])

    def slots(self):
        claims, machines = {}, {}
        for block in self.blocks.values():
            if block["op"] == "claimed":
                claims.setdefault(block["says"][0], {}).setdefault(block["says"][1], []).append(block)
            elif block["op"] == "intent":
                claim = self.blocks[self.blocks[block["says"][0]]["says"][0]]
                if not any(retired["says"][0] == block["id"] for retired in self.of("retired")):
                    machines.setdefault(claim["says"][0], []).append((block, claim))
        return [self.slot(number, claims[number], machines.get(number, [])) for number in sorted(claims)]

    def slot(self, number, rounds, machines):
        count = self.standings.counts
        said = {op: {block["says"][0] for block in self.of(op)} for op in ("activated", "released")}
        counting = {round: [claim for claim in claims if count(claim)] for round, claims in rounds.items()}
        round = max((round for round, claims in counting.items() if claims), default=0)
        claims = sorted(counting.get(round, []), key=lambda claim: (self.draw(claim), claim["id"]))
        rows = [
            fields(claim, "id", "author")
            | {"activated": claim["id"] in said["activated"], "released": claim["id"] in said["released"]}
            for claim in claims
        ]
        # The greatest draw first, and so the machine that stays last.
        ordered = sorted(machines, key=lambda made: (self.draw(made[1]), made[0]["id"]), reverse=True)
        ordered.sort(key=lambda made: made[1]["says"][1])
        stays = next((intent["id"] for intent, _ in reversed(ordered) if count(intent)), None)
        return {
            "number": number, "round": round, "next": max(rounds) + 1,
            "after": min(claim["id"] for claim in rounds[max(rounds)]), "claims": rows,
            "machines": [self.machine(intent, claim, stays) for intent, claim in ordered],
        }

    def machine(self, intent, claim, stays):
        _, target, functions, key = intent["says"]
        _, admitted, _ = self.standings.offers.get(intent["id"], (set(), set(), set()))
        return {
            "intent": intent["id"], "claim": claim["id"], "round": claim["says"][1], "by": intent["author"],
            "target": target, "functions": functions, "key": key, "device": min(admitted, default=None),
            "counts": self.standings.counts(intent), "surplus": intent["id"] != stays,
        }

    def spawning(self):
        said = self.of("spawning")
        machines, minority = said[-1]["says"] if said else (0, False)
        return {"machines": machines, "minority": minority}

    def scaling(self):
        bounds = sorted(self.last("bounded").items(), key=lambda row: (row[0] is not None, row[0] or ""))
        counts = {block["says"][0]: block["says"] for block in self.of("scaled")}
        replicas = [[name, said[1], *(said[2:] or [[]])] for name, said in sorted(counts.items())]
        labels = self.last("labelled")
        said = {block["author"]: block["says"][0] for block in self.of("draining")}
        draining = sorted(device for device, drains in said.items() if drains)
        bounds, labels = ([list(row) for row in rows] for rows in (bounds, sorted(labels.items())))
        return [bounds, replicas, labels, draining]
