//! What every role tells scrapers: the page in the text form of OpenMetrics ([`page`]), and the port at which it is asked
//! for ([`port`]). What is on the page is the role's own; docs/metrics.md lists it, and a test of each role holds the
//! list.

pub mod page;
pub mod port;
