//! A server that answers every request at once with the same words: what the client alone can do. Does not look at what is asked.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Tokens that it says a prompt has.
pub(super) const TOKENS: u64 = 8;

/// Starts it on a thread of its own, for as long as the process lives.
pub(super) fn start() -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("trivial-server".into()).spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
    })?;
    Ok(address)
}

/// Requests come one by one and whole: this program's own client sends them.
async fn answer(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let body = format!("{{\"tokens_evaluated\":{TOKENS},\"content\":\"a word\"}}");
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut request = vec![0; 64 << 10];
    while matches!(stream.read(&mut request).await, Ok(1..)) && stream.write_all(answer.as_bytes()).await.is_ok() {}
}
