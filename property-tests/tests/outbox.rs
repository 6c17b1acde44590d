//! The order of effects: nothing leaves before what was written before it is durable, whatever the order
//! in which writes end, and after a failure nothing leaves that rested on what was lost.

use osiris_fleet::node::{Effect, Outbox, Step};
use osiris_property_tests::strategy::config;
use proptest::{collection::vec, prelude::*};

#[derive(Clone, Debug)]
enum Event {
    Persist,
    /// A hint, which only the network gets.
    Hint,
    /// Writes up to the n-th of those under way become durable.
    Durable(usize),
    Fail,
    CoreTold,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => Just(Event::Persist),
        6 => Just(Event::Hint),
        4 => (1..4_usize).prop_map(Event::Durable),
        1 => Just(Event::Fail),
        1 => Just(Event::CoreTold),
    ];
    vec(event, 1..80)
}

/// What a hint waits for, by its number.
#[derive(Debug, Default)]
struct Model {
    written: u64,
    durable: u64,
    /// For each hint: the group it waits for, and whether it was decided between failure and telling.
    hints: Vec<(u64, bool)>,
    left: Vec<usize>,
    failed: bool,
    told: bool,
    /// Groups that were durable when the disk failed, and hints pushed until the core was told.
    lost_above: u64,
}

impl Model {
    fn leaves(&mut self, effect: &Effect) -> Result<(), TestCaseError> {
        let Effect::Hint(number) = effect else { return Ok(()) };
        let number = usize::from(u16::from_le_bytes([number[0], number[1]]));
        let (group, doomed) = self.hints[number];
        prop_assert!(!doomed, "hint {number} was decided before the core knew of the failure");
        prop_assert!(!self.failed || self.told, "hint {number} left after the failure");
        let bound = if self.failed { self.lost_above } else { self.durable };
        prop_assert!(group <= bound, "hint {number} left before group {group} was durable");
        prop_assert!(self.left.last().is_none_or(|last| *last < number), "hints changed places");
        self.left.push(number);
        Ok(())
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn nothing_leaves_before_what_was_written_before_it_is_durable(events in events()) {
        let (mut outbox, mut model) = (Outbox::default(), Model::default());
        for event in events {
            match event {
                Event::Persist => match outbox.push(Effect::Persist(Vec::new())) {
                    Some(Step::Write(group)) => {
                        prop_assert!(!model.failed, "written after a failure");
                        model.written += 1;
                        prop_assert_eq!(group.number, model.written);
                    }
                    other => prop_assert!(model.failed && other.is_none(), "{:?}", other),
                },
                Event::Hint => {
                    let number = u16::try_from(model.hints.len()).expect("few");
                    // After the failure nothing more is written, so what the core decides then waits for none.
                    let group = if model.failed { 0 } else { model.written };
                    model.hints.push((group, model.failed && !model.told));
                    match outbox.push(Effect::Hint(number.to_le_bytes().to_vec())) {
                        Some(Step::Perform(effect)) => model.leaves(&effect)?,
                        other => {
                            prop_assert!(other.is_none(), "a hint is no write");
                            prop_assert!(!model.told, "nothing is written any more, so nothing waits");
                        }
                    }
                }
                Event::Durable(count) => {
                    // After a failure a late word about earlier writes changes nothing.
                    let number = (model.durable + count as u64).min(model.written);
                    if number == model.durable && !model.failed {
                        continue;
                    }
                    let freed = outbox.durable(number);
                    if model.failed {
                        prop_assert!(freed.is_empty(), "freed after the failure");
                        continue;
                    }
                    model.durable = number;
                    for effect in &freed {
                        model.leaves(effect)?;
                    }
                }
                Event::Fail => {
                    if !model.failed {
                        (model.failed, model.lost_above) = (true, model.durable);
                    }
                    for effect in outbox.fail("the disk is full") {
                        prop_assert!(!matches!(effect, Effect::Hint(_)), "left though its write was lost");
                    }
                }
                Event::CoreTold => {
                    let _ = outbox.core_told();
                    model.told = model.failed;
                }
            }
        }
        if !model.failed {
            for effect in &outbox.durable(model.written) {
                model.durable = model.written;
                model.leaves(effect)?;
            }
            prop_assert_eq!(model.left.len(), model.hints.len(), "a hint never left");
            prop_assert_eq!(outbox.frame_bytes_held(), 0);
        }
    }
}
