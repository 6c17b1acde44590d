//! The endpoint.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey, TransportAddr,
    address_lookup::memory::MemoryLookup,
    endpoint::{BindOpts, Builder, ConnectionError, QuicTransportConfig, VarInt, presets},
};

use super::config::{MeshConfig, MeshError};
use crate::{
    PeerId,
    limits::{BOOK_ADDRS_MAX, CONNECTION_WINDOW_BYTES, STREAMS_MAX},
};

/// An endpoint for a closed network: no relays, no DNS, no publishing. Addresses are only those that
/// members tell each other.
pub(super) fn builder(config: &MeshConfig, bind: Option<SocketAddr>) -> Result<Builder, MeshError> {
    let refuse = |bind: String, why: String| MeshError::Bind { bind, why };
    let idle = config
        .idle_timeout
        .try_into()
        .map_err(|_| MeshError::Config { wrong: "idle_timeout is too long".to_owned() })?;
    // Both kinds of keep-alive and of timeout are needed: the path's alone does not end a connection
    // whose peer died, and the connection's alone leaves dead paths selected.
    let transport = QuicTransportConfig::builder()
        .keep_alive_interval(config.keep_alive)
        .default_path_keep_alive_interval(config.keep_alive)
        .max_idle_timeout(Some(idle))
        .default_path_max_idle_timeout(config.idle_timeout)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .build();
    let builder = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&config.secret))
        .relay_mode(RelayMode::Disabled)
        .transport_config(transport);
    let on = |builder: Builder, addr: SocketAddr, opts: BindOpts| {
        let bound = builder.bind_addr_with_opts(addr, opts);
        bound.map_err(|error| refuse(addr.to_string(), format!("{error:#}")))
    };
    match (bind, config.port) {
        (None, None) => Ok(builder),
        (None, Some(port)) => {
            // As iroh does by itself: IPv4 is needed, IPv6 where the machine has it.
            let builder = builder.clear_ip_transports();
            let builder = on(builder, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), BindOpts::default())?;
            let optional = BindOpts::default().set_is_required(false);
            on(builder, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), optional)
        }
        (Some(addr), port) => {
            let port = if addr.port() == 0 { port.unwrap_or(0) } else { addr.port() };
            on(builder.clear_ip_transports(), SocketAddr::new(addr.ip(), port), BindOpts::default())
        }
    }
}

pub(super) async fn bind(builder: Builder, bind: Option<SocketAddr>) -> Result<Endpoint, MeshError> {
    builder.bind().await.map_err(|error| MeshError::Bind {
        bind: bind.map_or_else(|| "every interface".to_owned(), |addr| addr.to_string()),
        why: format!("{error:#}"),
    })
}

/// The addresses at which peers can reach the endpoint, as far as it can tell.
pub(super) fn usable_addrs(endpoint: &Endpoint) -> Vec<SocketAddr> {
    let mut addrs: Vec<SocketAddr> = endpoint.addr().ip_addrs().copied().collect();
    addrs.extend(endpoint.bound_sockets());
    let mut seen = Vec::new();
    for addr in addrs {
        let link_local = match addr {
            SocketAddr::V6(v6) => v6.ip().is_unicast_link_local(),
            SocketAddr::V4(_) => false,
        };
        if !addr.ip().is_unspecified() && !link_local && !seen.contains(&addr) {
            seen.push(addr);
        }
    }
    seen.truncate(BOOK_ADDRS_MAX);
    seen
}

/// The peer as iroh names it; `None` when the bytes are not a point on the curve.
pub(super) fn endpoint_id(peer: &PeerId) -> Option<EndpointId> {
    EndpointId::from_bytes(peer.as_bytes()).ok()
}

pub(super) fn peer_id(id: &EndpointId) -> PeerId {
    PeerId::from_bytes(*id.as_bytes())
}

pub(super) fn endpoint_addr(id: EndpointId, addrs: impl IntoIterator<Item = SocketAddr>) -> EndpointAddr {
    EndpointAddr::from_parts(id, addrs.into_iter().map(TransportAddr::Ip))
}

/// Tells iroh's own dials, those of gossip, where a peer listens.
pub(super) fn publish(lookup: &MemoryLookup, peer: &PeerId, addrs: Vec<SocketAddr>) {
    if let Some(id) = endpoint_id(peer) {
        lookup.set_endpoint_info(endpoint_addr(id, addrs));
    }
}

/// The code with which the peer closed the connection on purpose.
pub(super) fn close_code(error: &ConnectionError) -> Option<u32> {
    match error {
        ConnectionError::ApplicationClosed(close) => u32::try_from(close.error_code.into_inner()).ok(),
        _ => None,
    }
}

/// Why a connection ended, for people.
pub(super) fn describe_close(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => {
            let reason: String = String::from_utf8_lossy(&close.reason)
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect();
            format!("the peer closed it: {reason}")
        }
        ConnectionError::ApplicationClosed(_) => "the peer closed it".to_owned(),
        ConnectionError::TimedOut => "the peer fell silent".to_owned(),
        ConnectionError::Reset => "the peer restarted".to_owned(),
        ConnectionError::LocallyClosed => "this node closed it".to_owned(),
        other => other.to_string(),
    }
}
