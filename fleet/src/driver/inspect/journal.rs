//! What the journal's bytes and its head file say of each other.

use osiris_ledger::journal::Damage;

use super::{Mend, at, in_journal, problem};
use crate::{
    api::{Place, Problem},
    store::{HEAD, Survey},
};

/// What is wrong with the files of a journal. Where it is `written` to, its end is not judged by itself.
pub(in super::super) fn problems(survey: &Survey, mend: Mend, written: bool) -> Vec<Problem> {
    let found = &survey.found;
    let mut problems: Vec<_> = found.damage.iter().map(|damage| damaged(survey, damage, mend)).collect();
    if let (Some(tail), false) = (found.torn_tail, written) {
        problems.push(torn(survey, &tail, mend));
    }
    if let Some(lost) = found.lost_end {
        let place = match lost.same {
            true => in_journal(Some(lost.found.number + 1), lost.found.bytes),
            false => Place { record: Some(lost.known.number), byte: Some(lost.known.bytes), ..at(HEAD) },
        };
        let next = format!(
            "If the folder was put together from a backup, that is why. The next start notes it in journal.cut-N. {}",
            mend.blocks()
        );
        problems.push(problem(lost.to_string(), place, next));
    }
    problems.extend(head(survey));
    problems
}

fn damaged(survey: &Survey, damage: &Damage, mend: Mend) -> Problem {
    let place = in_journal(survey.first_missing(damage), damage.offset as u64);
    let keeps = "The next start keeps the damaged file as journal.damaged-N and goes on with what is whole.";
    if damage.offset == 0 {
        let what = format!(
            "The journal's header, {} bytes at 0, is damaged. What it said is known from the records behind it.",
            damage.bytes
        );
        return problem(what, place, format!("{keeps} Nothing is lost by this."));
    }
    let place_text = match damage.bytes {
        0 => format!("At byte {} of the journal", damage.offset),
        bytes => format!("{bytes} bytes at {} of the journal", damage.offset),
    };
    let what = match (damage.bytes, damage.records) {
        (0, 0) => format!("{place_text} the records do not follow each other: one is of another journal."),
        (0, 1) => format!("{place_text} 1 record is missing."),
        (0, records) => format!("{place_text} {records} records are missing."),
        (_, 0) => format!("{place_text} are no whole record."),
        (_, 1) => format!("{place_text} are no whole record: 1 record is damaged."),
        (_, records) => format!("{place_text} are no whole record: {records} records are damaged."),
    };
    problem(what, place, format!("{keeps} {}", mend.blocks()))
}

fn torn(survey: &Survey, tail: &Damage, mend: Mend) -> Problem {
    let what = format!(
        "The journal ends in {} bytes at {} that are no whole record: a write that was cut short, or damage.",
        tail.bytes, tail.offset
    );
    let cut = "The next start cuts them off and keeps them as journal.tail-N.";
    let unknown = survey.head_missing || survey.head_unread || survey.found.head_damaged;
    let next = match (survey.found.lost_end, unknown) {
        (None, false) => format!("{cut} The head file names no record in them that was durable."),
        _ => format!("{cut} {}", mend.blocks()),
    };
    problem(what, in_journal(Some(survey.last.number + 1), tail.offset as u64), next)
}

fn head(survey: &Survey) -> Option<Problem> {
    let anew = "The next start makes it anew; `osiris sync` brings back what other members hold.";
    if let Some(fleet) = survey.other_fleet {
        return Some(problem(
            format!(
                "The journal is of the fleet {}, but journal.head is of the fleet {}.",
                survey.found.fleet.short(),
                fleet.short()
            ),
            at(HEAD),
            "Put back the folder's own journal; if it was exchanged on purpose, remove `journal.head`.",
        ));
    }
    let what = match (survey.head_missing, survey.found.head_damaged) {
        (true, _) => "The file journal.head is missing",
        (_, true) => "The file journal.head is damaged",
        _ => return None,
    };
    let what = format!("{what}, so it cannot be told whether the journal is whole at its end.");
    Some(problem(what, at(HEAD), anew))
}
