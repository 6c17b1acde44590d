//! The end of a membership: a device that was away learns of it from any member that turns it away, and a member
//! tells it to nobody else.
//!
//! What travels are blocks: those that ended the membership and what they name, no more. They come in through the
//! same door as all others, so the device's own ledger says that it is no member, and nobody's word has to be taken.

use std::time::Duration;

use osiris_ledger::{AppendError, Author, BlockId, EndedBy, Now, Payload, Roles, WallMs};
use osiris_mesh::{PeerId, proto::sync::Frame};
use osiris_protocol::join::RefusalCode;

use super::{Effect, Node, Refusal, Reply};
use crate::{
    api::{JOIN_AGAIN, codes},
    date::utc,
};

/// How long a node that is turned away waits before it asks again why. A newcomer is turned away, too, by members
/// that have not heard of it yet.
pub const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How long a member turns this device away before it is asked to admit it once more: the word of an admission takes a
/// moment to come round, and a second admission is a block.
pub const JOIN_AGAIN_AFTER: Duration = Duration::from_secs(10);
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

    /// A member turned this device away and knows of no end of its membership. Where that lasts, the word of its
    /// admission is lost to that member: whoever admitted it is gone, say, and had told nobody that is left. What proves
    /// the invitation is in the admission, so the member is asked to admit this device as any newcomer. That uses no
    /// second use of the invitation, and is refused to who was revoked.
    pub(super) fn join_again(&mut self, now: Now, peer: PeerId) {
        if !self.view.is_member(&self.me) || !self.view.is_member(&Author(peer.to_bytes())) {
            return;
        }
        let since = *self.unknown_to.entry(peer).or_insert(now.mono);
        if now.mono < since.plus(JOIN_AGAIN_AFTER) {
            return;
        }
        self.unknown_to.insert(peer, now.mono);
        let me = self.view.members().get(&self.me);
        // A user's key admits again whom an admin revoked, so presenting it is for a person to decide.
        let is_fit = |(id, _, active): &&(BlockId, Roles, bool)| *active && self.ledger.user_of(id).is_none();
        let grants = me.into_iter().flat_map(|me| &me.grants).filter(is_fit);
        let admission = grants.rev().find_map(|(grant, ..)| match self.ledger.get(grant)?.payload() {
            Payload::Admitted(op) => Some(op.clone()),
            _ => None,
        });
        if let Some(admission) = admission {
            self.effects.push_back(Effect::JoinAgain(peer, Box::new(admission)));
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

    /// Whether another member revoked a device, and the invitation is not from after that: who was revoked comes back by
    /// a new decision, and not by a ticket that it still has.
    pub(super) fn was_revoked_since(&self, device: &Author, invitation: &BlockId) -> bool {
        let Some(ending) = self.ledger.ending(device) else { return false };
        let (Some(block), Some(offer)) = (&ending.block, self.ledger.get(invitation)) else { return false };
        ending.by == EndedBy::Revocation && offer.order() < block.order()
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
    use std::sync::Arc;

    use osiris_ledger::{BlockId, Ledger, Mono, Payload, Roles, Writer, join_proof, op};
    use osiris_mesh::proto::sync::Frame;

    use super::*;
    use crate::node::{
        Input, Request,
        sample::{author, founded, key, replica},
    };

    fn at(ms: u64) -> Now {
        Now { mono: Mono(ms), wall: WallMs(1_795_455_166_000) }
    }

    /// An invitation whose key has this number: for one device, with all roles, or for any five.
    fn invite(founder: &mut Writer, ledger: &mut Ledger, number: u8, device: Option<u8>) -> BlockId {
        let (uses, roles) = if device.is_some() { (1, Roles::ALL) } else { (5, Roles::NODE) };
        let device = device.map(author);
        let offer = op::Invited { key: author(number), uses, roles, device, note: String::new() };
        founder.append(ledger, at(0), Payload::Invited(offer)).expect("allowed").id()
    }

    fn admission(ledger: &Ledger, number: u8, invitation: BlockId, device: u8) -> op::Admitted {
        let proof = join_proof(&key(number), &ledger.fleet(), &invitation, &author(device));
        op::Admitted { invitation, device: author(device), proof, label: "two".to_owned() }
    }

    /// Admits a device.
    fn admit(founder: &mut Writer, ledger: &mut Ledger, device: u8) -> BlockId {
        let invitation = invite(founder, ledger, 50, Some(device));
        let admitted = admission(ledger, 50, invitation, device);
        founder.append(ledger, at(0), Payload::Admitted(admitted)).expect("allowed").id()
    }

    /// Admits device 2.
    fn enrol(founder: &mut Writer, ledger: &mut Ledger) -> BlockId {
        admit(founder, ledger, 2)
    }

    fn revoke(founder: &mut Writer, ledger: &mut Ledger, grant: BlockId) {
        let revoked = op::Revoked { grants: vec![grant], pins: Vec::new() };
        founder.append(ledger, at(0), Payload::Revoked(revoked)).expect("allowed");
    }

    #[test]
    fn whose_membership_ended_is_not_missed_and_does_not_make_a_fleet_large() {
        let (mut founder, mut ledger) = founded(at(0));
        for device in 10..30 {
            let grant = admit(&mut founder, &mut ledger, device);
            revoke(&mut founder, &mut ledger, grant);
        }
        let grants = [2, 3].map(|device| admit(&mut founder, &mut ledger, device));
        let [two, three] = [2, 3].map(|device| PeerId::from_bytes(author(device).0));
        let mut node = replica(at(0), &ledger, 1, 2);
        assert_eq!(node.lost(), [two, three], "two members, who have to be met yet");
        let hear = |node: &mut Node, input| {
            node.handle(at(1), input);
            while node.poll_effect().is_some() {}
        };
        hear(&mut node, Input::PeerUp(two));
        assert_eq!(node.lost(), [three]);
        for grant in grants {
            revoke(&mut founder, &mut ledger, grant);
        }
        let last = ledger.in_order().split_off(ledger.in_order().len() - 2);
        last.iter().for_each(|block| hear(&mut node, Input::Hint(block.entry().to_vec())));
        hear(&mut node, Input::PeerDown(two));
        assert_eq!(node.lost(), []);
    }

    #[test]
    fn nobody_counts_on_what_a_revoked_device_holds() {
        let (mut founder, mut ledger) = founded(at(0));
        let grant = enrol(&mut founder, &mut ledger);
        admit(&mut founder, &mut ledger, 3);
        revoke(&mut founder, &mut ledger, grant);
        let [one, two] = [1, 2].map(|device| PeerId::from_bytes(author(device).0));
        let invited = |token| {
            let offer = Request::Invite {
                key: author(60),
                uses: 1,
                roles: Roles::NODE,
                device: None,
                note: String::new(),
                timeout_ms: 1_000,
            };
            Input::Request(token, offer)
        };
        // It confirms nothing itself, neither by a receipt nor by a digest.
        let mut home = replica(at(0), &ledger, 1, 9);
        let mut out = replica(at(0), &ledger, 2, 2);
        let wrote = effects(&mut home, at(1), invited(7));
        let block = wrote.iter().find_map(|effect| match effect {
            Effect::Persist(blocks) => Some(Arc::clone(&blocks[0])),
            _ => None,
        });
        let block = block.expect("written");
        let entries = vec![block.entry().to_vec().into()];
        let mut said = effects(&mut out, at(1), Input::PeerUp(one));
        said.extend(effects(&mut out, at(2), Input::Frame(one, Frame::Blocks(entries, false).encode())));
        assert!(out.ledger().get(&block.id()).is_some());
        let frames = said.iter().filter_map(|effect| match effect {
            Effect::Send(_, bytes) => Frame::decode(bytes).ok(),
            _ => None,
        });
        let frames: Vec<_> = frames.collect();
        let promises = |frame: &Frame| matches!(frame, Frame::Receipt(_) | Frame::Digest(_));
        assert!(!frames.is_empty() && !frames.iter().any(promises), "{frames:?}");
        // Where it does not know yet that it was revoked, the other side does.
        effects(&mut home, at(3), Input::PeerUp(two));
        let receipt = Frame::Receipt(vec![block.id()]).encode();
        let answered = effects(&mut home, at(4), Input::Frame(two, receipt));
        let replied = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Reply(7, _)));
        assert!(!replied(&answered), "{answered:?}");
        let digest = Frame::Digest(home.digest().to_vec().into()).encode();
        let answered = effects(&mut home, at(5), Input::Frame(two, digest));
        assert!(!replied(&answered), "{answered:?}");
        assert!(home.held().unseen > 0);
        let over = effects(&mut home, at(5_000), Input::Tick);
        let unseen = |effect: &Effect| {
            matches!(effect, Effect::Reply(7, Ok(Reply::Written { seen_by: 0, others: 1, .. })))
        };
        assert!(over.iter().any(unseen), "{over:?}");
    }

    #[test]
    fn who_was_revoked_does_not_come_back_by_a_ticket_from_before() {
        let (mut founder, mut ledger) = founded(at(0));
        let before = invite(&mut founder, &mut ledger, 51, None);
        let admitted = admission(&ledger, 51, before, 2);
        let grant = founder.append(&mut ledger, at(0), Payload::Admitted(admitted)).expect("allowed").id();
        revoke(&mut founder, &mut ledger, grant);
        let after = invite(&mut founder, &mut ledger, 52, None);
        let mut home = replica(at(0), &ledger, 1, 9);
        let mut join = |token, number, invitation, device| {
            let op::Admitted { invitation, device, proof, label } =
                admission(&ledger, number, invitation, device);
            let admit = Request::Admit { device, invitation, proof, label };
            let mut all = effects(&mut home, at(1), Input::Request(token, admit));
            all.extend(effects(&mut home, at(10_000), Input::Tick));
            all.into_iter().find_map(|effect| match effect {
                Effect::Reply(_, reply) => Some(reply),
                _ => None,
            })
        };
        let refused = join(1, 51, before, 2).expect("an answer").expect_err("refused");
        assert!(refused.message.contains("revoked after the ticket was made"), "{refused:?}");
        assert!(join(2, 51, before, 3).expect("an answer").is_ok(), "others may use it");
        assert!(join(3, 52, after, 2).expect("an answer").is_ok(), "a new ticket admits it");
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
        revoke(&mut founder, &mut ledger, grant);
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
    fn a_member_that_never_hears_of_this_device_is_asked_to_admit_it_once_more() {
        let (mut founder, mut ledger) = founded(at(0));
        let invitation = invite(&mut founder, &mut ledger, 50, None);
        // A third member has what there was before the admission.
        let other = invite(&mut founder, &mut ledger, 51, None);
        let third = Payload::Admitted(admission(&ledger, 51, other, 3));
        founder.append(&mut ledger, at(0), third).expect("allowed");
        let mut ignorant = replica(at(0), &ledger, 3, 3);
        let second = Payload::Admitted(admission(&ledger, 50, invitation, 2));
        founder.append(&mut ledger, at(0), second).expect("allowed");
        let mut newcomer = replica(at(0), &ledger, 2, 2);
        let peer = PeerId::from_bytes(author(3).0);
        let mut asked = |ms| {
            let effects = effects(&mut newcomer, at(ms), Input::NoEnding(peer));
            effects.into_iter().find_map(|effect| match effect {
                Effect::JoinAgain(to, admission) if to == peer => Some(*admission),
                _ => None,
            })
        };
        let patience = u64::try_from(JOIN_AGAIN_AFTER.as_millis()).expect("short");
        assert!(asked(1).is_none() && asked(patience).is_none(), "it may be on its way");
        let op::Admitted { invitation, device, proof, label } = asked(1 + patience).expect("asked");
        assert_eq!((invitation, device), (invitation, author(2)));
        assert!(asked(2 + patience).is_none(), "once in a while");
        let request = Input::Request(1, Request::Admit { device, invitation, proof, label });
        effects(&mut ignorant, at(0), request);
        assert!(ignorant.view().is_member(&author(2)));
        assert_eq!(ignorant.view().invitations()[&invitation].used, 1);
    }

    #[test]
    fn what_a_users_key_admitted_is_not_presented_again() {
        let (mut founder, mut ledger) = founded(at(0));
        let user = op::User { name: "isis".to_owned(), key: author(50), roles: Roles::NODE, devices: 2 };
        let user = founder.append(&mut ledger, at(0), Payload::User(user)).expect("allowed").id();
        let admitted = Payload::Admitted(admission(&ledger, 50, user, 2));
        founder.append(&mut ledger, at(0), admitted).expect("allowed");
        let mut device = replica(at(0), &ledger, 2, 2);
        let patience = u64::try_from(JOIN_AGAIN_AFTER.as_millis()).expect("short");
        for ms in [1, 1 + patience, 1 + 2 * patience] {
            let said = effects(&mut device, at(ms), Input::NoEnding(PeerId::from_bytes(author(1).0)));
            assert!(!said.iter().any(|effect| matches!(effect, Effect::JoinAgain(..))), "{said:?}");
        }
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
