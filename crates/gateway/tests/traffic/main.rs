//! The data plane with real sockets: requests as bytes, instances as servers that do as a test says.

mod access;
mod early;
mod fleet;
mod fuzz;
mod handover;
mod hostile;
mod http1;
mod http2;
mod lost;
mod metrics;
mod mirror;
mod queue;
mod stuck;
mod tcp;
mod tls;
mod websocket;
