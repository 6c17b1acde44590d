"""Section Effective: which valid blocks count, and why the others do not."""


class Standings:
    def __init__(self, ledger):
        self.ledger, self.blocks = ledger, ledger.blocks
        self.fork = {(author, session): seq for author, session, seq in ledger.forks()}
        self.given, self.cut = {}, {}
        # Offer → withdrawals that bind it, devices admitted, devices that were one too many.
        self.offers = {}
        self.rank = {}
        for block in ledger.in_order():
            tree = self.tree_of(block)
            if tree is not None:
                self.rank[block["id"]] = (tree, block["depth"], block["id"])
        self.revocations = [block for block in ledger.in_order() if block["op"] == "revoked"]
        self.withdrawals = [block for block in ledger.in_order() if block["op"] == "withdrawn"]
        for grant in sorted(self.rank, key=self.rank.get):
            self.given[grant] = self.is_given(self.blocks[grant])
            self.cut[grant] = self.cut_of(grant) if self.given[grant] else None
            self.withdraw(grant)

    def tree_of(self, block):
        if block["op"] == "founded":
            return 0
        if block["op"] == "recovered":
            return -block["says"][2]
        if block["op"] == "admitted":
            offer = self.blocks[block["says"][0]]
            return 1 + max(self.rank[offer["grant"]][0], self.rank[block["grant"]][0])
        return None

    # --- verdicts on blocks

    @staticmethod
    def grant_of(block):
        return block["id"] if block["op"] == "founded" else block["grant"]

    def below_fork(self, block):
        fork = self.fork.get((block["author"], block["session"]))
        return block["op"] == "founded" or fork is None or block["seq"] < fork

    @staticmethod
    def leaves(cut, block):
        sessions, _ = cut
        limits = sessions.get(block["session"])
        return limits is not None and all(block["id"] in limit for limit in limits)

    def within(self, cut, block):
        if cut is None:
            return self.below_fork(block)
        _, by_higher = cut
        return self.leaves(cut, block) and (by_higher or self.below_fork(block))

    def counts(self, block):
        grant = self.grant_of(block)
        return self.given.get(grant, False) and self.within(self.cut[grant], block)

    def why_void(self, block):
        if self.counts(block):
            return None
        grant = self.grant_of(block)
        if not self.given.get(grant, False):
            return "not-given"
        cut = self.cut[grant]
        return "revoked" if cut is not None and not self.leaves(cut, block) else "forked"

    # --- verdicts on grants

    def standing(self, offer):
        return self.offers.setdefault(offer, (set(), set(), set()))

    def is_given(self, block):
        if block["op"] != "admitted":
            return True
        offer, device = self.blocks[block["says"][0]], block["says"][1]
        if not self.counts(offer) or not self.counts(block):
            return False
        withdrawn, admitted, surplus = self.standing(offer["id"])
        if not all(self.stands_after(self.blocks[id], block["id"]) for id in withdrawn):
            return False
        if device in admitted:
            return True
        left = len(admitted) < self.ledger.offer(offer)[1]
        (admitted if left else surplus).add(device)
        return left

    def stands_after(self, withdrawal, admission):
        """Whether the admission is an ancestor of the withdrawal, or named in it."""
        if admission in withdrawal["says"][1]:
            return True
        open, seen = [withdrawal], set()
        while open:
            block = open.pop()
            for id in [block["prev"], *block["parents"]]:
                if id == admission:
                    return True
                if id in self.blocks and id not in seen:
                    seen.add(id)
                    open.append(self.blocks[id])
        return False

    def withdraw(self, grant):
        for block in self.withdrawals:
            offer = self.blocks[block["says"][0]]
            binds = block["grant"] == grant and self.rank[grant] <= self.rank[offer["grant"]]
            if binds and self.counts(block):
                self.standing(offer["id"])[0].add(block["id"])

    def cut_of(self, grant):
        cut = None
        of_it = [block for block in self.revocations if grant in block["says"][0]]
        for block in of_it:
            if self.rank[block["grant"]] < self.rank[grant] and self.counts(block):
                cut = self.tightened(cut, self.pins(block, False), True)
        for block in of_it:
            if block["grant"] == grant and self.within(cut, block):
                return self.tightened(cut, self.pins(block, True), cut is not None and cut[1])
        return cut

    def tightened(self, cut, pins, by_higher):
        limits = {session: [self.down_from(pin)] for session, pin in pins.items()}
        if cut is None:
            return limits, by_higher
        sessions, by_higher = cut
        both = {session: held + limits[session] for session, held in sessions.items() if session in limits}
        return both, by_higher

    def line(self, block):
        """A block, and those before it in its chain."""
        while True:
            yield block
            if block["seq"] == 1:
                return
            block = self.blocks[block["prev"]]

    def down_from(self, pin):
        return {block["id"] for block in self.line(pin)}

    def pins(self, revocation, own):
        """Session → the last block of it that counts."""
        named = {self.blocks[pin]["session"]: self.blocks[pin] for pin in revocation["says"][1]}
        if own:
            named[revocation["session"]] = revocation
        pins, open = dict(named), sorted(named)
        seen = set(open)
        while open:
            *_, first = self.line(pins[open.pop()])
            for parent in (self.blocks[id] for id in sorted(first["parents"])):
                session = parent["session"]
                if parent["author"] != first["author"] or session in named:
                    continue
                pins.setdefault(session, parent)
                pins[session] = max(pins[session], parent, key=lambda block: (block["seq"], block["id"]))
                if session not in seen:
                    seen.add(session)
                    open.append(session)
        return pins
