//! Relieving a node of what it serves.
//!
//! ```text
//! asked → `draining` → others take over, it serves on → nothing is left, or they had long enough → `stopped` → answer
//! ```
//!
//! The block says it to every member: none of them places anything on a device that drains, so each revision goes to
//! the next in rank, and the device serves what it has until they say that they do. What nobody else may serve it stops
//! at once. A node that is started again takes it back.

use std::time::Duration;

use osiris_ledger::{Author, BlockId, Mono, Now, Payload, Revision, op};

use super::{
    Effect, Node, Refusal, Reply, Token,
    scale::{may_be_placed_on, wanted_count},
};
use crate::manifest::PlaceKeys;

/// How long a node that drains serves on for those that are to take over and do not say that they have.
pub const HAND_OVER_WITHIN: Duration = Duration::from_secs(30);

/// What a node is doing to be relieved.
#[derive(Debug)]
pub(super) struct Drain {
    until: Mono,
    /// What it served when it was asked: functions with the revision.
    served: Vec<(String, BlockId)>,
    /// Who waits for it.
    tokens: Vec<Token>,
    over: bool,
}

impl Drain {
    /// Whether it serves nothing any more, whoever wants it.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        (!self.over).then_some(self.until)
    }
}

impl Node {
    /// Begins to be relieved. The answer comes when it is.
    pub(super) fn drain(&mut self, now: Now, token: Token) -> Result<Option<Reply>, Refusal> {
        if let Some(drain) = &mut self.draining {
            drain.tokens.push(token);
            return Ok(None);
        }
        if self.view.is_member(&self.me) {
            self.append(now, Payload::Draining(op::Draining { draining: true }))?;
        }
        self.release_all(now);
        let functions = self.view.functions().values();
        let served =
            functions.flat_map(|function| function.served.iter().map(move |revision| (function, revision)));
        let here = served.filter(|(_, revision)| revision.is_served_by(&self.me));
        let served = here.map(|(function, revision)| (function.name.clone(), revision.id)).collect();
        // Without functions there is nobody to wait for.
        let until = if self.looks_after_functions() { now.mono.plus(HAND_OVER_WITHIN) } else { now.mono };
        self.draining = Some(Drain { until, served, tokens: vec![token], over: false });
        Ok(None)
    }

    /// Ends what was not taken over in time, and answers once nothing is served here.
    pub(super) fn look_at_drain(&mut self, now: Now) {
        let Some(drain) = &self.draining else { return };
        if !drain.over {
            let until = drain.until;
            let served: Vec<_> = self.served_here().collect();
            if !served.is_empty() && now.mono < until {
                return;
            }
            for revision in served {
                // Where it cannot be written, the next that is said of this device is that it ended.
                let _ = self.append(now, Payload::Stopped(op::Stopped { revision }));
            }
            self.draining.iter_mut().for_each(|drain| drain.over = true);
            self.reconcile(now);
        }
        let tokens = self.draining.as_mut().map(|drain| std::mem::take(&mut drain.tokens));
        let (Some(drain), Some(tokens)) = (&self.draining, tokens.filter(|tokens| !tokens.is_empty())) else {
            return;
        };
        let is_left = |(name, _): &&(String, BlockId)| {
            let function = self.view.function(name).filter(|function| function.live.is_none());
            let newest = function.and_then(|function| Some((function, function.newest.as_ref()?)));
            newest.is_some_and(|(function, newest)| {
                let manifest = self.functions.manifest(&newest.manifest);
                manifest.is_none_or(|manifest| wanted_count(&self.view, function, manifest) != Some(0))
            })
        };
        let mut left: Vec<_> = drain.served.iter().filter(is_left).map(|(name, _)| name.clone()).collect();
        left.dedup();
        for token in tokens {
            let reply = Reply::Drained { stopped: drain.served.len() as u64, left: left.clone() };
            self.effects.push_back(Effect::Reply(token, Ok(reply)));
        }
    }

    /// Takes back that this device drains, where it was said before this process began.
    pub(super) fn serve_again(&mut self, now: Now) {
        if self.draining.is_none() && self.view.scaling().is_draining(&self.me) {
            self.announce(now, Payload::Draining(op::Draining { draining: false }));
        }
    }

    /// Whether this device, which drains, goes on with a revision: as long as nobody whom it reaches serves it, and
    /// somebody might who may be out of reach.
    pub(super) fn is_last_to_serve(
        &mut self,
        now: Now,
        name: &str,
        revision: &Revision,
        place: &PlaceKeys,
    ) -> bool {
        let serves = |member: &Author| *member != self.me && self.is_alive(now, member);
        if !revision.is_served_by(&self.me) || revision.serving.iter().any(|one| serves(&one.device)) {
            return false;
        }
        self.functions.candidates.follow(&self.view);
        let ordered = self.functions.candidates.ordered(name, &revision.id);
        ordered.iter().any(|member| may_be_placed_on(&self.view, place, member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        manifest::{Manifest, Replicas},
        node::{Input, Request, sample::author, scale::tests::Pair},
    };

    const TOKEN: Token = 70;

    fn drained(pair: &Pair) -> Option<(u64, Vec<String>)> {
        match pair.answers.get(&TOKEN)? {
            Ok(Reply::Drained { stopped, left }) => Some((*stopped, left.clone())),
            other => panic!("{other:?}"),
        }
    }

    fn on(replicas: Replicas) -> (Pair, usize) {
        let mut pair = Pair::new(Manifest { replicas, ..Manifest::named("f") });
        pair.run(2);
        let serving = (0..2).find(|at| pair.nodes[*at].served_here().next().is_some());
        let serving = serving.expect("somebody serves");
        (pair, serving)
    }

    fn ask(pair: &mut Pair, at: usize) {
        let mut inputs = [Vec::new(), Vec::new()];
        inputs[at].push(Input::Request(TOKEN, Request::Drain));
        pair.inputs(inputs);
    }

    #[test]
    fn a_node_that_drains_serves_until_another_does() {
        let (mut pair, first) = on(Replicas::Count(1));
        pair.compiles[1 - first] = false;
        ask(&mut pair, first);
        pair.run(5);
        assert_eq!((pair.serving(), drained(&pair)), (1, None), "the other is not ready");
        let other = 1 - first;
        pair.compiles[other] = true;
        let revision = pair.nodes[other].view().function("f").expect("deployed").revisions[0].id;
        let mut ready = [Vec::new(), Vec::new()];
        ready[other].push(Input::Prepared(revision, 2));
        pair.inputs(ready);
        // Gossip is lost here: the other's word comes with the next exchange.
        pair.run(2);
        assert_eq!((pair.serving(), drained(&pair)), (1, Some((1, Vec::new()))));
        assert!(pair.nodes[other].served_here().next().is_some());
        for node in &pair.nodes {
            assert!(node.view().scaling().is_draining(&author(u8::try_from(first).expect("small") + 1)));
        }
    }

    #[test]
    fn what_is_not_taken_over_in_time_ends_and_is_named() {
        let (mut pair, first) = on(Replicas::Count(1));
        pair.compiles[1 - first] = false;
        ask(&mut pair, first);
        let within = HAND_OVER_WITHIN.as_secs();
        pair.run(within - 1);
        assert_eq!((pair.serving(), drained(&pair)), (1, None));
        pair.run(2);
        assert_eq!((pair.serving(), drained(&pair)), (0, Some((1, vec!["f".to_owned()]))));
        // Asked again, it says the same.
        pair.answers.clear();
        ask(&mut pair, first);
        assert_eq!(drained(&pair), Some((1, vec!["f".to_owned()])));
    }

    #[test]
    fn what_all_serve_ends_at_once_and_the_last_one_drained_leaves_it_to_nobody() {
        let (mut pair, _) = on(Replicas::All);
        assert_eq!(pair.serving(), 2);
        ask(&mut pair, 0);
        assert_eq!((pair.serving(), drained(&pair)), (1, Some((1, Vec::new()))));
        pair.answers.clear();
        pair.run(2);
        ask(&mut pair, 1);
        pair.run(2);
        assert_eq!((pair.serving(), drained(&pair)), (0, Some((1, vec!["f".to_owned()]))));
    }

    #[test]
    fn a_node_that_was_drained_serves_again_once_it_is_started() {
        let (mut pair, _) = on(Replicas::All);
        ask(&mut pair, 0);
        let before = pair.nodes[0].ledger();
        let again = crate::node::sample::server(Now { mono: Mono(pair.now), ..Now::default() }, before, 1, 9);
        pair.nodes[0] = again;
        let held = pair.nodes[1].view().function("f").expect("deployed").revisions[0].clone();
        let peer = Input::PeerUp(Node::peer(&author(2)));
        let start = vec![Input::Start, Input::BlobHeld(held.manifest), Input::BlobHeld(held.component), peer];
        pair.inputs([start, vec![Input::PeerUp(Node::peer(&author(1)))]]);
        pair.run(2);
        assert_eq!(pair.serving(), 2);
        assert!(!pair.nodes[1].view().scaling().is_draining(&author(1)));
    }
}
