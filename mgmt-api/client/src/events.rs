//! A stream of values from the manager.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use mgmt_types::Problem;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::sse::{Decoder, Event};

/// Largest event: a host's slice with 100 000 ports.
const MAX_EVENT: usize = 64 << 20;

/// Values of one type, as the manager sends them. Ends by itself when the manager stops; an error ends it too.
#[derive(Debug)]
pub struct Events<T> {
    path: String,
    body: Option<Incoming>,
    decoder: Decoder,
    waiting: VecDeque<Event>,
    silence: Duration,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Events<T> {
    pub(crate) fn new(path: String, body: Incoming, silence: Duration) -> Self {
        Self {
            path,
            body: Some(body),
            decoder: Decoder::new(MAX_EVENT),
            waiting: VecDeque::new(),
            silence,
            item: PhantomData,
        }
    }

    /// The next value; `None` when the manager ended the stream. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When the connection breaks, is silent for too long, or brings something else. The stream is then at its end.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        let event = self.event().await?;
        Some(event.and_then(|event| self.read(&event)))
    }

    /// The next event, unread.
    pub(crate) async fn event(&mut self) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(Ok(event));
            }
            let body = self.body.as_mut()?;
            let frame = match tokio::time::timeout(self.silence, body.frame()).await {
                Err(_) => return Some(self.fail(|path, after| Error::Silent { path, after })),
                Ok(None) => {
                    self.body = None;
                    return None;
                }
                Ok(Some(Err(error))) => {
                    let reason = error.to_string();
                    return Some(self.fail(|path, _| Error::Body { path, reason }));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(bytes) = frame.into_data() else { continue };
            let waiting = &mut self.waiting;
            if let Err(error) = self.decoder.feed(&bytes, |event| waiting.push_back(event)) {
                let reason = error.to_string();
                return Some(self.fail(|path, _| Error::Body { path, reason }));
            }
        }
    }

    /// What an event says, as a value of any type.
    pub(crate) fn read<N: DeserializeOwned>(&mut self, event: &Event) -> Result<N, Error> {
        // The manager may find out only later that it cannot go on.
        if event.name == "problem"
            && let Ok(problem) = serde_json::from_str::<Problem>(&event.data)
        {
            self.end();
            return Err(Error::Problem(Box::new(problem)));
        }
        serde_json::from_str(&event.data).map_err(|source| {
            self.end();
            Error::Answer { path: self.path.clone(), source, got: event.data.chars().take(200).collect() }
        })
    }

    fn fail<N>(&mut self, error: impl FnOnce(String, Duration) -> Error) -> Result<N, Error> {
        self.end();
        Err(error(self.path.clone(), self.silence))
    }

    fn end(&mut self) {
        self.body = None;
        self.waiting.clear();
    }
}
