//! Opening a connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Opens a connection within a time; zero is without one.
///
/// # Errors
/// It was refused, or not there in time.
pub(crate) async fn connect(address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let opened = TcpStream::connect(address);
    let stream = if within.is_zero() {
        opened.await?
    } else {
        tokio::time::timeout(within, opened).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}
