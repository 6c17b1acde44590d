//! Safeguards, each with the change that takes it out and the test that must notice.

/// One safeguard taken out of one file.
#[derive(Debug)]
pub(crate) struct Mutation {
    /// What is no longer done.
    pub(crate) name: &'static str,
    /// The file, from the root of the tree.
    pub(crate) file: &'static str,
    /// Text that stands in it exactly once.
    pub(crate) find: &'static str,
    /// What stands there instead.
    pub(crate) replace: &'static str,
    /// The test that goes red.
    pub(crate) test: Test,
}

/// A test by package, file of `tests/` and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test(pub(crate) &'static str, pub(crate) &'static str, pub(crate) &'static str);

const fn ledger(file: &'static str, name: &'static str) -> Test {
    Test("osiris-ledger", file, name)
}

const fn property(file: &'static str, name: &'static str) -> Test {
    Test("osiris-property-tests", file, name)
}

const LIBRARY: &str = "edge-runtime/src/library.rs";
const KEPT: Test = property("library", "the_library_keeps_what_it_said_it_keeps");

const JOURNAL: Test = property("journal", "the_journal_keeps_what_was_acknowledged_and_says_what_is_gone");

pub(crate) const ALL: &[Mutation] = &[
    Mutation {
        name: "the signature check",
        file: "crdt-ledger/src/ledger/read.rs",
        find: "        if self.verify {\n            self.check_signature(&block)?;\n        }\n",
        replace: "        let _ = Self::check_signature;\n",
        test: ledger("attacks", "another_key_cannot_sign_for_an_author"),
    },
    Mutation {
        name: "the fleet in what is signed",
        file: "crdt-ledger/src/block.rs",
        find: "    hasher.update(&fleet.0);\n",
        replace: "    let _ = fleet;\n",
        test: ledger("attacks", "a_block_of_another_fleet_is_refused"),
    },
    Mutation {
        name: "strict verification of blocks",
        file: "crdt-ledger/src/block.rs",
        find: "key.verify_strict(&signed_message(fleet, body), &signature)",
        replace: "ed25519_dalek::Verifier::verify(key, &signed_message(fleet, body), &signature)",
        test: ledger("attacks", "a_signature_over_a_point_of_small_order_is_refused"),
    },
    Mutation {
        name: "strict verification of proofs",
        file: "crdt-ledger/src/op.rs",
        find: "key.verify_strict(message, &DalekSignature::from_bytes(&signature.0)).is_ok()",
        replace: "ed25519_dalek::Verifier::verify(&key, message, &DalekSignature::from_bytes(&signature.0)).is_ok()",
        test: ledger("attacks", "a_signature_over_a_point_of_small_order_is_refused"),
    },
    Mutation {
        name: "refusing weak keys",
        file: "crdt-ledger/src/op.rs",
        find: ".filter(|key| !key.is_weak())",
        replace: "",
        test: ledger("attacks", "a_weak_key_is_refused_wherever_it_stands"),
    },
    Mutation {
        name: "the canonical encoding",
        file: "crdt-ledger/src/codec.rs",
        find: "        Ok(()) if same.left.is_empty() => Ok(value),\n",
        replace: "        _ if true => Ok(value),\n",
        test: ledger("attacks", "any_other_spelling_of_a_body_is_refused"),
    },
    Mutation {
        name: "the size of an entry",
        file: "crdt-ledger/src/ledger/read.rs",
        find: "if bytes.len() > limits::ENTRY_BYTES_MAX {",
        replace: "if bytes.len() > usize::MAX - 1 {",
        test: ledger("attacks", "an_entry_above_the_limit_is_refused_unread"),
    },
    Mutation {
        name: "the exact depth",
        file: "crdt-ledger/src/ledger.rs",
        find: "if got == expected { Ok(()) }",
        replace: "if got > 0 { Ok(()) }",
        test: ledger("attacks", "a_chain_is_only_continued_by_its_author_at_its_end"),
    },
    Mutation {
        name: "the parents in the depth",
        file: "crdt-ledger/src/ledger.rs",
        find: "        below = below.max(parent.ok_or(Reject::Parents)?.order().depth);\n",
        replace: "        let _ = parent.ok_or(Reject::Parents)?;\n        below = block.order().depth.saturating_sub(1);\n",
        test: ledger("attacks", "parents_are_few_and_distinct"),
    },
    Mutation {
        name: "the limit and difference of parents",
        file: "crdt-ledger/src/block.rs",
        find: "        if parents.len() > limits::PARENTS_MAX || repeated {\n",
        replace: "        if false && repeated {\n",
        test: ledger("attacks", "parents_are_few_and_distinct"),
    },
    Mutation {
        name: "prev in one chain",
        file: "crdt-ledger/src/ledger.rs",
        find: "        if prev.chain() != block.chain() {\n",
        replace: "        if false {\n",
        test: ledger("attacks", "a_chain_is_only_continued_by_its_author_at_its_end"),
    },
    Mutation {
        name: "the holder of a grant",
        file: "crdt-ledger/src/ledger.rs",
        find: "        if grant.device != block.author() {\n",
        replace: "        if false {\n",
        test: ledger("attacks", "the_grant_must_be_the_authors_and_allow_the_operation"),
    },
    Mutation {
        name: "the role of a grant",
        file: "crdt-ledger/src/ledger.rs",
        find: "if needed.is_none_or(|role| grant.roles.has(role)) { Ok(grant.roles) }",
        replace: "if needed.is_none_or(|role| grant.roles.has(role)) || true { Ok(grant.roles) }",
        test: ledger("attacks", "the_grant_must_be_the_authors_and_allow_the_operation"),
    },
    Mutation {
        name: "no role given that is not held",
        file: "crdt-ledger/src/ledger.rs",
        find: "if block.payload().may_be_offered_by(roles) {",
        replace: "if block.payload().may_be_offered_by(roles) || true {",
        test: ledger("attacks", "nobody_grants_what_they_do_not_hold"),
    },
    Mutation {
        name: "the proof of an admission",
        file: "crdt-ledger/src/ledger.rs",
        find: "if !op::verify(&offer.key, &message, &op.proof) {",
        replace: "if !op::verify(&offer.key, &message, &op.proof) && false {",
        test: ledger("attacks", "an_admission_needs_the_tickets_proof_for_this_device_and_fleet"),
    },
    Mutation {
        name: "the minimum of several pins",
        file: "crdt-ledger/src/effective.rs",
        find: "limits.iter().all(|limit| limit.allows(block))",
        replace: "limits.iter().any(|limit| limit.allows(block))",
        test: ledger("behaviour", "pins_say_how_far_a_revoked_device_counts"),
    },
    Mutation {
        name: "pins at all",
        file: "crdt-ledger/src/effective.rs",
        find: "        block.seq() <= self.seq && self",
        replace: "        self",
        test: ledger("behaviour", "pins_say_how_far_a_revoked_device_counts"),
    },
    Mutation {
        name: "the verdict on forks",
        file: "crdt-ledger/src/effective.rs",
        find: ".is_none_or(|fork| block.seq() < fork)",
        replace: ".is_none_or(|_| true)",
        test: ledger("forks", "a_fork_is_proven_alike_and_voids_the_chain_from_there"),
    },
    Mutation {
        name: "evaluation from the highest rank down",
        file: "crdt-ledger/src/effective.rs",
        find: "for (rank, id) in ledger.grants_by_rank() {",
        replace: "for (rank, id) in ledger.grants_by_rank().into_iter().rev() {",
        test: ledger("behaviour", "of_two_admins_that_revoke_each_other_the_higher_stays"),
    },
    Mutation {
        name: "the uses of an invitation",
        file: "crdt-ledger/src/effective.rs",
        find: "let fits = standing.admitted.len() < offer.uses as usize;",
        replace: "let fits = standing.admitted.len() < usize::MAX - offer.uses as usize;",
        test: ledger("behaviour", "an_invitation_spent_on_both_sides_of_a_partition_admits_only_its_uses"),
    },
    Mutation {
        name: "the bound of early blocks",
        file: "crdt-ledger/src/early.rs",
        find: "while self.waiting.len() > limits::EARLY_BLOCKS_MAX || self.bytes > limits::EARLY_BYTES_MAX {",
        replace: "while self.waiting.len() > usize::MAX - limits::EARLY_BLOCKS_MAX {",
        test: ledger("early", "a_flood_of_early_blocks_is_bounded"),
    },
    Mutation {
        name: "the share of early room",
        file: "crdt-ledger/src/early.rs",
        find: "self.shares.values().max_by_key(|share| share.bytes)",
        replace: "self.shares.values().min_by_key(|share| share.by_arrival.keys().next().copied())",
        test: ledger("early", "early_room_is_shared_by_who_sent_the_blocks"),
    },
    Mutation {
        name: "forks in the digest",
        file: "crdt-ledger/src/ledger/digest.rs",
        find: "        hasher.update(&(chain.tips_len() as u64).to_le_bytes());\n        for (tip, seq) in chain.tips() {\n",
        replace: "        for (tip, seq) in chain.head() {\n",
        test: ledger("forks", "the_digest_tells_each_branch_of_a_fork"),
    },
    Mutation {
        name: "the fsync before an acknowledgement",
        file: "fleet/src/store.rs",
        find: "self.disk.append(JOURNAL, &bytes).and_then(|()| self.disk.sync(JOURNAL))",
        replace: "self.disk.append(JOURNAL, &bytes)",
        test: JOURNAL,
    },
    Mutation {
        name: "no write after a failed sync",
        file: "fleet/src/store.rs",
        find: "            return Err(poisoned.clone());\n",
        replace: "            let _ = poisoned.clone();\n",
        test: JOURNAL,
    },
    Mutation {
        name: "writing again what nobody acknowledged",
        file: "fleet/src/store.rs",
        find: "            replace(&mut self.disk, JOURNAL, whole)?;\n",
        replace: "            let _ = whole;\n",
        test: JOURNAL,
    },
    Mutation {
        name: "the wait for a Persist before a Send",
        file: "fleet/src/node/outbox.rs",
        find: "            _ if self.written > self.durable => {\n",
        replace: "            _ if self.written > self.durable && false => {\n",
        test: property("outbox", "nothing_leaves_before_what_was_written_before_it_is_durable"),
    },
    Mutation {
        name: "silence after a failed write",
        file: "fleet/src/node/outbox.rs",
        find: "        if self.failure.is_some() {\n            return Vec::new();\n        }\n",
        replace: "",
        test: property("outbox", "nothing_leaves_before_what_was_written_before_it_is_durable"),
    },
    Mutation {
        name: "a torn tail is no hole and no end",
        file: "crdt-ledger/src/journal.rs",
        find: "let torn_tail = (end < bytes.len()).then(",
        replace: "let torn_tail = (end > bytes.len()).then(",
        test: JOURNAL,
    },
    Mutation {
        name: "the link of a record",
        file: "crdt-ledger/src/journal.rs",
        find: "        self.head.number == head.number + 1 && self.link == head.check && self.offset as u64 == head.bytes\n",
        replace: "        self.head.number > 0 && head.number < u64::MAX\n",
        test: JOURNAL,
    },
    Mutation {
        name: "the check of a record",
        file: "crdt-ledger/src/journal.rs",
        find: "    if first::<CHECK>(&hash(&[length, order, kind, payload])) != *check {\n",
        replace: "    if first::<CHECK>(&hash(&[length, order, kind, payload])) != *check && false {\n",
        test: JOURNAL,
    },
    Mutation {
        name: "a generation for each journal that is written anew",
        file: "fleet/src/store.rs",
        find: "        let header = Header { generation: self.header.generation.wrapping_add(1), ..self.header };\n",
        replace: "        let header = self.header;\n",
        test: Test(
            "osiris-fleet",
            "compaction",
            "a_power_cut_at_each_operation_leaves_the_old_journal_or_the_new_one",
        ),
    },
    Mutation {
        name: "the budget of a device",
        file: "mesh/src/proto/sync.rs",
        find: "            if *budget >= before as u64 || ledger.holds(&Block::id_of(entry)) {\n",
        replace: "            if *budget < u64::MAX || ledger.holds(&Block::id_of(entry)) {\n",
        test: Test(
            "osiris-fleet",
            "hostile",
            "beyond_its_budget_a_member_is_held_back_until_an_admin_allows_more",
        ),
    },
    Mutation {
        name: "losing what was claimed before a suspend",
        file: "fleet/src/node/lease.rs",
        find: "            self.lose(now, slot, Loss::Suspended);\n",
        replace: "            let _ = (now, slot, Loss::Suspended);\n",
        test: Test("osiris-fleet", "simulation", "who_stood_still_acts_on_no_lease_that_it_lost_meanwhile"),
    },
    Mutation {
        name: "serving until others do",
        file: "fleet/src/node/drain.rs",
        find: "            if !served.is_empty() && now.mono < until {\n",
        replace: "            if !served.is_empty() && now.mono > until {\n",
        test: Test("osiris-fleet", "fleet", "a_drained_node_hands_over_and_no_call_fails"),
    },
    Mutation {
        name: "the head file",
        file: "fleet/src/store.rs",
        find: "        let named = head.and_then(journal::read_head_file);\n",
        replace: "        let named = head.and_then(journal::read_head_file).filter(|_| false);\n",
        test: JOURNAL,
    },
    Mutation {
        name: "what a device is told when its membership has ended, and no more",
        file: "crdt-ledger/src/ledger/ending.rs",
        find: "        Some(self.lacks_below(theirs, &ends, bytes_max))\n",
        replace: "        Some(self.compare(theirs, bytes_max).0)\n",
        test: ledger("ending", "a_revoked_device_gets_what_revokes_it_and_nothing_that_came_after"),
    },
    Mutation {
        name: "telling it only where no admission stands",
        file: "crdt-ledger/src/ledger/ending.rs",
        find: "(!grants.is_empty() && !grants.iter().any(stands)).then_some(grants)",
        replace: "(!grants.is_empty() || !grants.iter().any(stands)).then_some(grants)",
        test: ledger("ending", "members_and_strangers_are_given_nothing"),
    },
    Mutation {
        name: "the settle wait of a claim",
        file: "fleet/src/node/lease/rule.rs",
        find: "Phase::Claiming if now.since(mine.since) < mine.settle.max(terms.settle(delay)) => Next::Wait,",
        replace: "Phase::Claiming if now.since(mine.since) < delay.saturating_mul(0) => Next::Wait,",
        test: property(
            "lease_model",
            "of_members_that_hear_of_each_other_in_time_one_holds_the_slot_and_somebody_does",
        ),
    },
    Mutation {
        name: "noticing that a claimant stood still",
        file: "fleet/src/node/lease/rule.rs",
        find: "Phase::Claiming if now.since(mine.looked) > terms.standstill =>",
        replace: "Phase::Claiming if now.since(mine.looked) > Duration::MAX =>",
        test: property(
            "lease_model",
            "a_member_that_stands_still_is_suspended_or_starts_anew_is_no_second_holder",
        ),
    },
    Mutation {
        name: "losing a lease that was not renewed",
        file: "fleet/src/node/lease/rule.rs",
        find: "Phase::Held if now.since(mine.renewed) > terms.keep =>",
        replace: "Phase::Held if now.since(mine.renewed) > Duration::MAX =>",
        test: property("lease_model", "a_holder_that_is_gone_is_taken_over_and_is_none_when_it_comes_back"),
    },
    Mutation {
        name: "dialling who was lost, in a fleet that is not connected in full",
        file: "fleet/src/node/roster.rs",
        find: ".take(LOST_KEPT_MAX)",
        replace: ".take(0 * LOST_KEPT_MAX)",
        test: Test(
            "osiris-fleet",
            "simulation",
            "nobody_is_taken_for_gone_for_ever_in_a_fleet_that_is_not_connected_in_full",
        ),
    },
    Mutation {
        name: "the fsync of a component before it gets its name",
        file: LIBRARY,
        find: "        file.sync().map_err(fail)?;\n",
        replace: "",
        test: KEPT,
    },
    Mutation {
        name: "the fsync of the library's folder before a component is acknowledged",
        file: LIBRARY,
        find: "        if let Err(error) = self.disk.sync_folder() {",
        replace: "        if let Err(error) = Ok::<(), io::Error>(()) {",
        test: KEPT,
    },
    Mutation {
        name: "the end of a component whose name may not be durable",
        file: LIBRARY,
        find: "                let _ = self.disk.remove(&name);\n",
        replace: "",
        test: KEPT,
    },
    Mutation {
        name: "the fsync of the library's folder when it is opened",
        file: LIBRARY,
        find: "            disk.sync_folder().map_err(fail)?;\n",
        replace: "            let _ = &disk;\n",
        test: KEPT,
    },
];
