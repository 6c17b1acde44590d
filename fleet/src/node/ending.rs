//! The end of a membership: a device that was away learns of it from any member that turns it away, and a member
//! tells it to nobody else.
//!
//! What travels are blocks: those that ended the membership and what they name, no more. They come in through the
//! same door as all others, so the device's own ledger says that it is no member, and nobody's word has to be taken.

use std::time::Duration;

use osiris_ledger::{AppendError, Author, EndedBy, Now, WallMs};
use osiris_mesh::{PeerId, proto::sync::Frame};
use osiris_protocol::join::RefusalCode;

use super::{Effect, Node, Refusal, Reply};
use crate::{api::codes, date::utc};

/// How long a node that is turned away waits before it asks again why. A newcomer is turned away, too, by members
/// that have not heard of it yet.
pub const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Bytes of blocks in one answer.
const ANSWER_BYTES_MAX: usize = osiris_ledger::limits::BATCH_BYTES_MAX;

/// How a device's membership ended, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What ended it.
    pub by: EndedBy,
    /// The name of the member that did, where one did.
    pub who: Option<String>,
    /// When, by that member's clock.
    pub wall: Option<WallMs>,
}

impl Ended {
    /// A sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let at = self.wall.map(|wall| format!(" on {}", utc(wall.0))).unwrap_or_default();
        let by = self.who.as_ref().map(|who| format!(" by {who}")).unwrap_or_default();
        match self.by {
            EndedBy::Itself => format!("This device left the fleet{at}; it is no member any more."),
            EndedBy::Revocation => {
                format!("This device was revoked{by}{at}; it is no member any more, and nobody takes what it writes.")
            }
            EndedBy::Withdrawal => format!(
                "The invitation that admitted this device was withdrawn{by}{at}; it is no member, and nobody takes what it writes."
            ),
            EndedBy::Void => "This device's admission does not count: its invitation had no use left, or whoever invited it was revoked. It is no member, and nobody takes what it writes.".to_owned(),
        }
    }

    /// The sentence, and what to do.
    #[must_use]
    pub fn problem(&self) -> String {
        format!("{} {JOIN_AGAIN}", self.sentence())
    }
}

/// What a device that is no member can do.
const JOIN_AGAIN: &str = "Ask an admin for a new invitation, and join again: `osiris join TICKET`.";

impl Node {
    /// How this device's membership ended; none while it is a member.
    pub(super) fn ended(&self) -> Option<Ended> {
        let ending = self.ledger.ending(&self.me)?;
        let who = ending.block.as_ref().map(|block| {
            let author = block.author();
            let label = self.view.members().get(&author).map(|member| member.label.clone());
            label.filter(|label| !label.is_empty()).unwrap_or_else(|| author.short())
        });
        Some(Ended { by: ending.by, who, wall: ending.block.map(|block| block.wall()) })
    }

    /// A member does not know this device as one. Where this ledger says otherwise, one of the two lacks blocks.
    pub(super) fn turned_away(&mut self, now: Now, peer: PeerId) {
        let asked = self.asked_ending.is_some_and(|at| now.mono < at.plus(ASK_AGAIN_AFTER));
        if !asked && self.view.is_member(&self.me) {
            self.asked_ending = Some(now.mono);
            self.ask_ending(peer);
        }
    }

    pub(super) fn warn_ended(&mut self) {
        if let Some(ended) = self.ended() {
            self.effects.push_back(Effect::Warn(ended.problem()));
        }
    }

    fn ask_ending(&mut self, peer: PeerId) {
        let question = Frame::Vector(false, self.ledger.vector(false)).encode();
        self.effects.push_back(Effect::AskEnding(peer, question));
    }

    /// A member that turned this device away says what ended its membership.
    pub(super) fn ending_told(&mut self, now: Now, peer: PeerId, bytes: &[u8]) {
        let Ok(frame) = Frame::decode(bytes) else { return self.malformed(peer) };
        let (outcome, more) = self.sync.ending(now, peer, frame, &mut self.ledger);
        self.admitted(now, &outcome.admitted);
        self.warn_ended();
        // Each round brings something that was not here, so there is an end to them.
        if more && !outcome.admitted.is_empty() && self.view.is_member(&self.me) {
            self.ask_ending(peer);
        }
    }

    /// What a device that was a member is told.
    pub(super) fn tell_ending(&self, device: Author, question: &[u8]) -> Result<Reply, Refusal> {
        let stranger = || Refusal::joining(RefusalCode::Unknown, "This device was no member of the fleet.");
        let Ok(Frame::Vector(_, theirs)) = Frame::decode(question) else { return Err(stranger()) };
        let batch = self.ledger.ending_for(&device, &theirs, ANSWER_BYTES_MAX).ok_or_else(stranger)?;
        let entries = batch.blocks.iter().map(|block| block.entry().to_vec().into()).collect();
        Ok(Reply::Ending(Frame::Blocks(entries, batch.more).encode()))
    }

    /// Why nothing was appended.
    pub(super) fn refused(&self, error: AppendError) -> Refusal {
        match (&error, self.ended()) {
            (AppendError::NotMember, Some(ended)) => {
                Refusal::new(codes::DENIED, ended.sentence(), JOIN_AGAIN)
            }
            _ => Refusal::from(error),
        }
    }

    /// Whether this device ended its membership itself.
    pub(super) fn has_left(&self) -> bool {
        self.view.was_member(&self.me) && self.ended().is_some_and(|ended| ended.by == EndedBy::Itself)
    }

    /// The refusal of what was asked while this device took itself for a member.
    pub(super) fn void(&self) -> Option<Refusal> {
        let ended = self.ended()?;
        let message = format!("{} What was asked for does not count.", ended.sentence());
        Some(Refusal::new(codes::DENIED, message, JOIN_AGAIN))
    }
}

#[cfg(test)]
mod tests {
    use osiris_ledger::{BlockId, Ledger, Mono, Payload, Roles, Writer, join_proof, op};

    use super::*;
    use crate::node::{
        Input, Request,
        sample::{author, founded, key, replica},
    };

    fn at(ms: u64) -> Now {
        Now { mono: Mono(ms), wall: WallMs(1_795_455_166_000) }
    }

    /// Admits device 2.
    fn enrol(founder: &mut Writer, ledger: &mut Ledger) -> BlockId {
        let offer = op::Invited {
            key: author(50),
            uses: 1,
            roles: Roles::ALL,
            device: Some(author(2)),
            note: String::new(),
        };
        let invitation = founder.append(ledger, at(0), Payload::Invited(offer)).expect("allowed").id();
        let proof = join_proof(&key(50), &ledger.fleet(), &invitation, &author(2));
        let admitted = op::Admitted { invitation, device: author(2), proof, label: "two".to_owned() };
        founder.append(ledger, at(0), Payload::Admitted(admitted)).expect("allowed").id()
    }

    fn effects(node: &mut Node, now: Now, input: Input) -> Vec<Effect> {
        node.handle(now, input);
        std::iter::from_fn(|| node.poll_effect()).collect()
    }

    fn question(effects: &[Effect]) -> Option<Vec<u8>> {
        effects.iter().find_map(|effect| match effect {
            Effect::AskEnding(_, question) => Some(question.clone()),
            _ => None,
        })
    }

    #[test]
    fn a_device_that_was_revoked_while_it_was_away_learns_it_from_who_turns_it_away() {
        let (mut founder, mut ledger) = founded(at(0));
        let grant = enrol(&mut founder, &mut ledger);
        let mut away = replica(at(0), &ledger, 2, 2);
        let revoked = op::Revoked { grants: vec![grant], pins: Vec::new() };
        founder.append(&mut ledger, at(0), Payload::Revoked(revoked)).expect("allowed");
        let mut home = replica(at(0), &ledger, 1, 9);
        let peer = PeerId::from_bytes(author(1).0);

        // What it writes meanwhile waits for a confirmation that nobody gives.
        let remove = Request::Invite {
            key: author(60),
            uses: 1,
            roles: Roles::NODE,
            device: None,
            note: String::new(),
            timeout_ms: 60_000,
        };
        effects(&mut away, at(1), Input::Request(7, remove));
        let asked = question(&effects(&mut away, at(2), Input::TurnedAway(peer))).expect("a question");
        assert!(question(&effects(&mut away, at(3), Input::TurnedAway(peer))).is_none(), "once in a while");
        let ask = |device, question| Input::Request(1, Request::Ending { device: author(device), question });
        let answer = |effects: Vec<Effect>| {
            effects.into_iter().find_map(|effect| match effect {
                Effect::Reply(1, Ok(Reply::Ending(frame))) => Some(frame),
                _ => None,
            })
        };
        for (device, question) in [(1, asked.clone()), (3, asked.clone()), (2, b"no frame".to_vec())] {
            let told = answer(effects(&mut home, at(3), ask(device, question)));
            assert!(told.is_none(), "{device} is told nothing");
        }
        let frame = answer(effects(&mut home, at(3), ask(2, asked))).expect("told");
        let told = effects(&mut away, at(4), Input::Ending(peer, frame));
        assert!(matches!(told[0], Effect::Persist(_)), "durable first: {told:?}");
        let sentence = "This device was revoked by one on 2026-11-23 17:32:46Z";
        let warned = |effect: &Effect| matches!(effect, Effect::Warn(said) if said.contains(sentence));
        assert!(told.iter().any(warned), "{told:?}");
        let refused = |effect: &Effect| {
            matches!(effect, Effect::Reply(7, Err(refusal)) if refusal.code == codes::DENIED
                && refusal.message.contains(sentence))
        };
        assert!(told.iter().any(refused), "{told:?}");
        // From here on it asks nobody and writes nothing.
        assert!(question(&effects(&mut away, at(60_000), Input::TurnedAway(peer))).is_none());
        let denied = effects(&mut away, at(60_001), Input::Request(8, Request::Leave { timeout_ms: 0 }));
        let denied = denied.iter().any(|effect| {
            matches!(effect, Effect::Reply(8, Err(refusal)) if refusal.code == codes::DENIED
                && refusal.message.contains("revoked by one"))
        });
        assert!(denied);
    }

    #[test]
    fn an_answer_that_is_no_list_of_blocks_is_held_against_who_gave_it() {
        let (mut founder, mut ledger) = founded(at(0));
        enrol(&mut founder, &mut ledger);
        let mut away = replica(at(0), &ledger, 2, 2);
        let peer = PeerId::from_bytes(author(1).0);
        for (times, bytes) in [(1, b"no frame".to_vec()), (2, Frame::Receipt(Vec::new()).encode())] {
            effects(&mut away, at(1), Input::Ending(peer, bytes));
            assert_eq!(away.sync.rejected(&peer), times);
        }
        assert!(away.view.is_member(&author(2)));
    }
}
