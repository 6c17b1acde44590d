//! Each promise of Osiris with the tests that try it. What is written here exists.

use std::{collections::BTreeSet, fs, path::Path};

/// A file of the tree, and names of tests in it.
type Tests = (&'static str, &'static [&'static str]);

const PROMISES: &[(&str, &[Tests])] = &[
    (
        "The same set of valid blocks gives the same effective set and the same view.",
        &[(
            "property-tests/tests/convergence.rs",
            &["any_order_of_arrival_says_the_same", "replicas_that_differ_come_to_agree"],
        )],
    ),
    (
        "Authority does not depend on the order of arrival.",
        &[
            ("property-tests/tests/convergence.rs", &["any_order_of_arrival_says_the_same"]),
            ("crdt-ledger/tests/behaviour.rs", &["of_two_admins_that_revoke_each_other_the_higher_stays"]),
            ("crdt-ledger/tests/authority.rs", &["a_revoked_device_cannot_take_back_what_was_pinned"]),
        ],
    ),
    (
        "A chain has no gap, and every prefix of it verifies.",
        &[
            (
                "property-tests/tests/convergence.rs",
                &["every_prefix_verifies_and_none_waits", "a_changed_byte_is_refused"],
            ),
            ("crdt-ledger/tests/attacks.rs", &["a_chain_is_only_continued_by_its_author_at_its_end"]),
        ],
    ),
    (
        "No forged block is admitted, and a replay changes nothing.",
        &[
            ("property-tests/tests/forged.rs", &["no_forged_block_is_admitted"]),
            ("fleet/tests/hostile/main.rs", &["what_is_invalid_is_refused_counted_and_named"]),
            ("crdt-ledger/tests/early.rs", &["replays_change_nothing"]),
        ],
    ),
    (
        "A fork is found and proven alike; an honest node never forks.",
        &[
            ("crdt-ledger/tests/forks.rs", &["a_fork_is_proven_alike_and_voids_the_chain_from_there"]),
            ("fleet/tests/simulation.rs", &["a_folder_that_runs_twice_forks_nothing_and_is_noticed"]),
            ("cli/tests/kill.rs", &["a_killed_node_loses_no_acknowledged_deploy"]),
            ("fleet/tests/power_cuts.rs", &["a_folder_restored_from_a_backup_is_fine"]),
        ],
    ),
    (
        "Nothing leaves a node before it is durable there.",
        &[(
            "property-tests/tests/outbox.rs",
            &["nothing_leaves_before_what_was_written_before_it_is_durable"],
        )],
    ),
    (
        "Of members that hear of each other in time, one holds a slot.",
        &[
            (
                "property-tests/tests/lease_model.rs",
                &["of_members_that_hear_of_each_other_in_time_one_holds_the_slot_and_somebody_does"],
            ),
            ("fleet/tests/simulation.rs", &["a_healthy_fleet_makes_machines_and_no_slot_has_two_holders"]),
        ],
    ),
    (
        "No machine is made twice, and none is left behind.",
        &[(
            "cli/tests/provision.rs",
            &[
                "a_machine_made_twice_is_one_and_taken_away_twice_is_none",
                "whenever_it_is_killed_one_machine_or_none_is_left_and_down_leaves_none",
            ],
        )],
    ),
    (
        "An acknowledged deploy is never lost.",
        &[
            ("cli/tests/kill.rs", &["a_killed_node_loses_no_acknowledged_deploy"]),
            (
                "fleet/tests/power_cuts.rs",
                &["a_power_cut_at_each_operation_loses_nothing_that_was_acknowledged"],
            ),
            (
                "property-tests/tests/library/main.rs",
                &["a_power_cut_at_any_operation_and_again_in_the_recovery_loses_nothing"],
            ),
        ],
    ),
    (
        "What is recovered is a prefix that holds all that was acknowledged; recovering twice gives the same.",
        &[
            (
                "fleet/tests/power_cuts.rs",
                &["a_power_cut_at_each_operation_of_recovery_and_again_inside_that"],
            ),
            (
                "property-tests/tests/journal.rs",
                &["the_journal_keeps_what_was_acknowledged_and_says_what_is_gone"],
            ),
            ("property-tests/tests/library/main.rs", &["the_library_keeps_what_it_said_it_keeps"]),
        ],
    ),
    (
        "Nothing becomes shorter in silence.",
        &[(
            "fleet/tests/power_cuts.rs",
            &[
                "no_flipped_bit_makes_a_journal_shorter_in_silence",
                "a_journal_cut_at_any_byte_is_noticed_and_exactly_at_a_record_too",
            ],
        )],
    ),
    (
        "After a failed sync or on a full disk nothing is acknowledged; reads and calls go on.",
        &[
            (
                "fleet/tests/power_cuts.rs",
                &[
                    "after_a_failed_sync_nothing_is_acknowledged_and_a_restart_finds_what_was",
                    "a_poisoned_store_says_its_first_reason_and_reads_go_on",
                    "a_full_disk_loses_nothing_and_nearly_always_starts_again_while_it_is_full",
                ],
            ),
            (
                "property-tests/tests/library/main.rs",
                &["a_sync_that_fails_at_any_place_is_acknowledged_by_nobody"],
            ),
        ],
    ),
    (
        "Wrong clocks and a bad network change neither safety nor the end.",
        &[("fleet/tests/simulation.rs", &["small_fleets_keep_every_promise_and_reach_every_rare_branch"])],
    ),
    (
        "What peers can make a node hold is bounded, and its sum is known.",
        &[
            (
                "fleet/tests/hostile/main.rs",
                &[
                    "unknown_parents_for_ever_fill_a_bounded_room_and_blame_nobody",
                    "a_flood_of_valid_blocks_is_held_back_and_a_slow_reader_waits_alone",
                    "beyond_its_budget_a_member_is_held_back_until_an_admin_allows_more",
                ],
            ),
            ("fleet/src/driver/limits.rs", &["the_table_of_what_is_held_says_what_the_limits_say"]),
            ("property-tests/tests/budget.rs", &["a_member_that_writes_without_end_is_held_to_its_budget"]),
            (
                "mesh/tests/mesh/links.rs",
                &[
                    "a_peer_that_reads_nothing_loses_its_link_and_delays_nobody",
                    "a_peer_opens_a_bounded_number_of_connections",
                ],
            ),
        ],
    ),
    (
        "No bytes make a decoder panic, or allocate more than its cap.",
        &[(
            "property-tests/tests/decoders.rs",
            &["the_corpus_and_changes_of_it_are_taken_calmly", "a_declared_length_takes_no_memory"],
        )],
    ),
    (
        "A function that loops, floods or traps is stopped, and others are served.",
        &[(
            "edge-runtime/tests/calls.rs",
            &[
                "a_guest_that_loops_is_stopped_and_others_are_served",
                "deadlines_hold_when_every_worker_computes",
                "a_memory_bomb_traps_and_leaves_nothing",
                "a_table_bomb_and_deep_recursion_trap",
                "a_log_flood_is_cut_and_the_call_is_fine",
                "no_call_sees_another_calls_memory",
            ],
        )],
    ),
    (
        "A function reaches nothing that it was not given, and a huge one is not compiled.",
        &[
            (
                "edge-runtime/src/inspect.rs",
                &[
                    "an_unknown_import_is_named",
                    "too_large_is_refused_before_it_is_read",
                    "a_huge_function_body_is_refused",
                ],
            ),
            ("edge-runtime/src/host.rs", &["an_outgoing_request_is_refused_and_the_log_says_so"]),
        ],
    ),
    (
        "A restart without a network serves again.",
        &[(
            "fleet/tests/fleet.rs",
            &["one_node_deploys_calls_and_remembers", "after_a_power_cut_everyone_finds_everyone"],
        )],
    ),
];

/// Whether a file has a test of that name: a function with an attribute that says so.
fn has(text: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    text.match_indices(&head).any(|(at, _)| {
        let before = text[..at].trim_end().trim_end_matches("async").trim_end();
        before.ends_with(']')
            && before.rsplit_once("#[").is_some_and(|(_, attribute)| attribute.contains("test"))
    })
}

#[test]
fn every_promise_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut missing = Vec::new();
    for (promise, tests) in PROMISES {
        assert!(!tests.is_empty(), "{promise}");
        for (file, names) in *tests {
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            missing
                .extend(names.iter().filter(|name| !has(&text, name)).map(|name| (*promise, *file, *name)));
        }
    }
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    let promises: BTreeSet<_> = PROMISES.iter().map(|(promise, _)| promise).collect();
    assert_eq!(promises.len(), PROMISES.len(), "a promise twice");
}
