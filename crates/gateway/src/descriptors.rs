//! Open files: a connection of a client may need one more to its instance, so that as many connections as are allowed need
//! twice as many descriptors. A limit that is lower would first be met in the middle of the traffic.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside those of clients and instances: listening sockets and runtimes of each worker, checks, logs, the
/// session, scrapers.
const RESERVE: u64 = 256;
/// With less room than this for clients a gateway is of no use.
const CONNECTIONS_MIN: u64 = 64;

/// The process may not have as many open files as a gateway needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "this process may have {files} open files, and a gateway needs {} and more: raise its limit (LimitNOFILE= of its \
     unit, or ulimit -n)",
    RESERVE + 2 * CONNECTIONS_MIN
)]
pub struct DescriptorError {
    /// How many it may have.
    files: u64,
}

/// Raises the limit of open files as far as it is allowed to, and answers how many connections of clients then fit, of
/// `wanted` ones.
///
/// # Errors
/// Next to none would fit.
pub(crate) fn make_room(wanted: usize) -> Result<usize, DescriptorError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit, which the soft one can be only where the hard one is.
    let Some(soft) = current else { return Ok(wanted) };
    let hard = maximum.unwrap_or(u64::MAX);
    let needed = needed(wanted).min(hard);
    let mut files = soft;
    if needed > soft {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }) {
            Ok(()) => files = needed,
            Err(error) => tracing::warn!(%error, soft, needed, "the limit of open files cannot be raised"),
        }
    }
    let fits = fitting(wanted, files)?;
    if fits < wanted {
        tracing::warn!(
            open_files = files,
            wanted,
            connections = fits,
            "fewer connections of clients are taken than limits.connections says, since each needs two open files: \
             raise the limit of this process (LimitNOFILE= of its unit, or ulimit -n), or lower limits.connections"
        );
    }
    Ok(fits)
}

fn needed(connections: usize) -> u64 {
    u64::try_from(connections).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(RESERVE)
}

/// How many of the wanted connections fit.
fn fitting(wanted: usize, files: u64) -> Result<usize, DescriptorError> {
    if needed(wanted) <= files {
        return Ok(wanted);
    }
    let fits = files.saturating_sub(RESERVE) / 2;
    if fits < CONNECTIONS_MIN {
        return Err(DescriptorError { files });
    }
    Ok(usize::try_from(fits).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_are_taken_as_there_are_descriptors_for() {
        assert_eq!(fitting(20_000, 40_256).unwrap(), 20_000);
        assert_eq!(fitting(20_000, 40_255).unwrap(), 19_999);
        assert_eq!(fitting(20_000, 1_024).unwrap(), 384);
        assert_eq!(fitting(10, 276).unwrap(), 10, "few were wanted");
        let error = fitting(20_000, 300).unwrap_err().to_string();
        assert!(error.contains("300 open files") && error.contains("LimitNOFILE="), "{error}");
    }
}
