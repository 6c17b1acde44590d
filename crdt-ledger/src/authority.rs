//! Roles: what a grant allows its device to write.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One role. A grant holds a set of them ([`Roles`]); what none of them allows is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Facts about itself: serves or no longer serves a revision; redeems invitations.
    Node,
    /// Functions: deploy and remove.
    Operator,
    /// Members: invite, withdraw an invitation, revoke.
    Admin,
    /// Reads. It may write nothing but that it leaves.
    Viewer,
    /// Calls functions. It may write nothing but that it leaves.
    Invoker,
    /// New machines: claim a slot, say that one is made, say that one is gone.
    Spawner,
    /// Pages of summaries: seal them, where an admin names the device among the voters.
    Voter,
}

impl Role {
    /// Every role, in the order of their bits.
    pub const ALL: [Self; 7] =
        [Self::Node, Self::Operator, Self::Admin, Self::Viewer, Self::Invoker, Self::Spawner, Self::Voter];

    fn bit(self) -> u8 {
        match self {
            Self::Node => 1,
            Self::Operator => 2,
            Self::Admin => 4,
            Self::Viewer => 8,
            Self::Invoker => 16,
            Self::Spawner => 32,
            Self::Voter => 64,
        }
    }

    /// The name people use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Viewer => "viewer",
            Self::Invoker => "invoker",
            Self::Spawner => "spawner",
            Self::Voter => "voter",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| format!("`{text}` is not a role; the roles are {}", Roles::ALL))
    }
}

/// A set of [`Role`]s, one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Roles(u8);

impl Roles {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// Only `node`: all that a bearer invitation may give.
    pub const NODE: Self = Self(1);
    /// Every role.
    pub const ALL: Self = Self(127);

    /// The set of these roles.
    #[must_use]
    pub fn of(roles: &[Role]) -> Self {
        Self(roles.iter().fold(0, |bits, role| bits | role.bit()))
    }

    /// Whether `role` is in the set.
    #[must_use]
    pub fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// Whether every role of `other` is in this set.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The roles of this set that `other` has not.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether only known bits are set, and at least one.
    pub(crate) fn is_well_formed(self) -> bool {
        self.0 != 0 && self.0 & !Self::ALL.0 == 0
    }

    /// The roles in the set, in the order of their bits.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Role::name).collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roles({self})")
    }
}
