//! What people ask of the fleet.

use osiris_ledger::{BlockId, SigningKey};

use crate::manifest::Replicas;

use super::{options::Options, payload::Release, queue::NodeId, random::Random};

/// Function names in use.
pub(super) const NAMES: u64 = 5;

/// A request that waits for its answer, and what it was for.
#[derive(Debug)]
pub(super) enum Asked {
    Deploy,
    Remove,
    Withdraw,
    Leave,
    /// Since when.
    Drain {
        since: u64,
    },
    /// The ticket's key, its uses, and how many strangers get it.
    Invite {
        key: Box<SigningKey>,
        uses: u32,
        strangers: u64,
    },
    /// A stranger at this node's door.
    Admit {
        stranger: NodeId,
    },
    /// A device that is no member any more, and was turned away.
    Ending {
        device: NodeId,
    },
}

/// A join ticket.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) invitation: BlockId,
    pub(super) key: SigningKey,
    /// What the inviter held.
    pub(super) heads: Vec<BlockId>,
    /// Whose addresses it names; none: anybody's.
    pub(super) peers: Option<Vec<NodeId>>,
}

/// Something that somebody wants.
#[derive(Debug)]
pub(super) enum Wish {
    Deploy(Box<Release>),
    Remove(String),
    /// More strangers than uses compete for a place.
    Invite {
        uses: u32,
        strangers: u64,
    },
    Withdraw,
    Leave,
    /// Before its machine is looked after: it is started again.
    Drain,
    Revoke,
}

/// Chooses what people want.
#[derive(Debug)]
pub(super) struct People {
    random: Random,
    releases: u64,
    large: bool,
    /// Whether some functions are scaled.
    scales: bool,
    everywhere: bool,
}

impl People {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            random: Random::new(options.seed, 4),
            releases: 0,
            large: !options.owns_everything(),
            scales: options.load > 0,
            everywhere: options.everywhere,
        }
    }

    /// The next wish.
    pub(super) fn wish(&mut self) -> Wish {
        if self.everywhere {
            self.releases += 1;
            let name = format!("f{}", self.random.below(2 * NAMES));
            return Wish::Deploy(Box::new(Release::new(name, self.releases, Replicas::All, None)));
        }
        let name = |random: &mut Random| format!("f{}", random.below(NAMES));
        match self.random.below(100) {
            0..55 => {
                self.releases += 1;
                let name = name(&mut self.random);
                // In a large fleet a function everywhere would be a block a member.
                let count = u32::try_from(self.random.between(1, 3)).expect("a small number");
                let all = !self.large && self.random.chance(300);
                let replicas = if all { Replicas::All } else { Replicas::Count(count) };
                let max = (self.scales && self.random.chance(700))
                    .then(|| u32::try_from(self.random.between(1, 4)).expect("a small number"));
                Wish::Deploy(Box::new(Release::new(name, self.releases, replicas, max)))
            }
            55..70 => Wish::Remove(name(&mut self.random)),
            70..86 => {
                let uses = u32::try_from(self.random.between(1, 2)).expect("a small number");
                let strangers = u64::from(uses) + u64::from(self.random.chance(500));
                Wish::Invite { uses, strangers }
            }
            86..90 => Wish::Withdraw,
            90..93 => Wish::Leave,
            93..96 => Wish::Drain,
            _ => Wish::Revoke,
        }
    }
}

impl Asked {
    /// For the event log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Remove => "remove",
            Self::Withdraw => "withdraw",
            Self::Leave => "leave",
            Self::Drain { .. } => "drain",
            Self::Invite { .. } => "invite",
            Self::Admit { .. } => "admit",
            Self::Ending { .. } => "ending",
        }
    }
}
