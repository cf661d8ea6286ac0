//! Serving: from a client's connection to an instance's answer and back.
//!
//! ```text
//! client ─► carry ─► vet, strip, forward (headers) ─► exchange ─► queue ─► pool ─► instance
//!    ▲                                                   │ retry, hedge, time out
//!    └──── body (counted to its last byte) ◄─────────────┘
//! ```
//!
//! [`respond`] is the only place that makes answers of our own.

mod body;
mod carry;
mod client;
mod connection;
mod exchange;
mod forwarded;
mod headers;
mod hedge;
mod queue;
mod relay;
mod respond;
mod streams;
mod upgrade;
mod websocket;

pub(crate) use client::Client;
pub(crate) use connection::serve;
pub(crate) use forwarded::Origin;
pub(crate) use relay::copy_both;
