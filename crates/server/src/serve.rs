//! Connections: accepted from an injected socket until an injected shutdown, then drained. Does not know what is served on them.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tower::Service;

use crate::app::{App, StartError};
use crate::router::router;

/// Time that the last bytes get to reach slow clients, and cut streams their last chunk. Idle connections close at once.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// Pause after the system refuses a connection (mostly: no file handles left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` completes; then new requests answer 503, those in flight get `drain_time`, and the store is closed.
///
/// # Errors
/// [`StartError::Address`] for a public address while there is no owner.
pub async fn serve(listener: TcpListener, app: App, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), StartError> {
    let address = listener.local_addr().map_err(|source| StartError::Io { action: "read the listening address", source })?;
    app.check_address(address).await?;
    let router = router(&app);
    let limits = app.limits().clone();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_time);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(limits.header_time);
    let places = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut open = JoinSet::new();
    let drained = async {
        shutdown.await;
        app.drain();
        tracing::info!(in_flight = app.flights().count(), "draining");
        if tokio::time::timeout(limits.drain_time, app.flights().none()).await.is_err() {
            tracing::warn!(in_flight = app.flights().count(), "requests are cut off");
            app.cut();
        }
    };
    let mut drained = pin!(drained);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            () = &mut drained => break,
            Some(_) = open.join_next() => {}
            (accepted, place) = accepted => match (accepted, place) {
                (Ok((stream, _)), Ok(place)) => connection(&mut open, &builder, (stream, place), (&router, &graceful)),
                (Err(error), _) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                (_, Err(_)) => break,
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(CLOSE_TIME, graceful.shutdown()).await;
    open.shutdown().await;
    app.close().await;
    Ok(())
}

type Accepted = (TcpStream, OwnedSemaphorePermit);

fn connection(
    open: &mut JoinSet<()>,
    builder: &Builder<TokioExecutor>,
    (stream, place): Accepted,
    (router, graceful): (&Router, &GracefulShutdown),
) {
    // Tokens are small writes that must not wait for each other.
    let _ = stream.set_nodelay(true);
    let router = router.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut router = router.clone();
        async move {
            poll_fn(|context| Service::<Request<Body>>::poll_ready(&mut router, context)).await?;
            router.call(request.map(Body::new)).await
        }
    });
    let served = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let served = graceful.watch(served);
    open.spawn(async move {
        if let Err(error) = served.await {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(place);
    });
}
