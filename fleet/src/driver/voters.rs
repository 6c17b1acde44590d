//! The desk, for those who seal pages of summaries.

use std::collections::BTreeSet;

use osiris_ledger::{BlockId, Role};

use super::{answer::ApiError, desk::Desk, people::device, rows};
use crate::{api, node::Request};

impl Desk {
    pub(crate) fn voters(&self) -> api::Voters {
        let view = self.view();
        let Some(named) = view.voters() else { return api::Voters::default() };
        let row = |device: &osiris_ledger::Author| api::VoterRow {
            device: device.to_string(),
            label: rows::label(&view, device),
            able: view.members().get(device).is_some_and(|m| m.active && m.roles.has(Role::Voter)),
            sealed: view.pages().iter().filter(|page| page.by.contains(device)).count() as u64,
        };
        let sealed = view.pages().iter().filter(|page| page.sealed).count();
        api::Voters {
            block: named.id.to_string(),
            founder: named.id == BlockId(self.fleet.0),
            voters: named.devices.iter().map(row).collect(),
            sealed: sealed as u64,
            proposed: (view.pages().len() - sealed) as u64,
        }
    }

    pub(crate) async fn name_voters(&self, name: api::NameVoters) -> Result<api::Written, ApiError> {
        let devices = name.devices.iter().map(|text| device(text)).collect::<Result<BTreeSet<_>, _>>()?;
        let reply = self.ask(Request::NameVoters { devices, timeout_ms: name.timeout_ms }).await?;
        self.written(reply)
    }
}
