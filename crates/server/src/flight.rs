//! One request from its first header to its answer's last byte: what it holds, its time, its line in the log.
//! Does not know what it asks for; never sees a body.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tiger_wire::{ErrorCode, ErrorType};
use tokio::sync::Notify;

use crate::auth::Holder;
use crate::error::ApiError;
use crate::metrics;

/// Counts requests in flight, for a graceful stop.
#[derive(Debug, Default)]
pub struct Flights {
    count: AtomicUsize,
    landed: Notify,
}

impl Flights {
    /// Waits until no request is in flight.
    pub async fn none(&self) {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            landed.await;
        }
    }

    /// Requests in flight.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// One request. Its end is when the last handle is dropped.
#[derive(Debug)]
pub struct Flight {
    /// Names it in logs and answers.
    pub request_id: String,
    method: String,
    route: String,
    started: Instant,
    status: AtomicU16,
    place: Mutex<Option<Place>>,
    flights: Arc<Flights>,
}

impl Flight {
    /// Begins one.
    pub fn begin(request_id: String, method: &str, route: &str, flights: &Arc<Flights>) -> Arc<Flight> {
        flights.count.fetch_add(1, Ordering::SeqCst);
        Arc::new(Flight {
            request_id,
            method: method.to_owned(),
            route: route.to_owned(),
            started: Instant::now(),
            status: AtomicU16::new(0),
            place: Mutex::new(None),
            flights: Arc::clone(flights),
        })
    }

    /// When its headers were there.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The answer's status is known.
    pub fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// Keeps a place until the end.
    pub fn hold(&self, place: Place) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        // 499 as others log it: the client left before there was an answer.
        let status = match self.status.load(Ordering::Relaxed) {
            0 => 499,
            status => status,
        };
        metrics::request(&self.route, &self.method, status, duration);
        tracing::info!(
            request_id = self.request_id,
            method = self.method,
            route = self.route,
            status,
            duration_s = duration.as_secs_f64(),
            "request"
        );
        self.flights.count.fetch_sub(1, Ordering::SeqCst);
        self.flights.landed.notify_waiters();
    }
}

/// Places of each key: how many requests it has at once.
#[derive(Debug)]
pub struct Places {
    limit: usize,
    taken: Mutex<HashMap<Holder, usize>>,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub struct Place {
    holder: Holder,
    places: Arc<Places>,
}

impl Places {
    /// `limit` places for each holder.
    pub fn new(limit: usize) -> Arc<Places> {
        Arc::new(Places { limit, taken: Mutex::new(HashMap::new()) })
    }

    /// Takes a place, or answers 429.
    pub fn take(self: &Arc<Places>, holder: Holder) -> Result<Place, ApiError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(holder).or_insert(0);
        if *count >= self.limit {
            let message = format!("this key has {count} requests in flight, the most allowed; wait for some to end");
            return Err(ApiError::new(ErrorType::RateLimit, ErrorCode::TooManyInFlight, message).retry_after(1));
        }
        *count += 1;
        Ok(Place { holder, places: Arc::clone(self) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}
