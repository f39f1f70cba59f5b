//! Streams of server-sent events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use mgmt_types::agent::Slice;
use mgmt_types::{Problem, Revision};
use serde::de::DeserializeOwned;

use crate::client::{Error, chain};

/// The manager sends a comment every 15 seconds at least; a connection silent for three of them is dead.
const SILENCE: Duration = Duration::from_secs(45);
/// Largest event that is read, in bytes.
const MAX_EVENT: usize = 64 << 20;

/// Events as they come in.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    url: Arc<str>,
    parser: Parser,
}

impl Events {
    pub(crate) fn new(body: Incoming, url: Arc<str>) -> Self {
        Self { body, url, parser: Parser::default() }
    }

    /// The next event of a name, read as `T`; none when the manager ended the stream. An event named `problem` is an
    /// error, others are passed over.
    async fn next<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Error> {
        loop {
            while let Some(event) = self.parser.events.pop_front() {
                if event.name == "problem" {
                    return Err(Error::Refused(Box::new(self.read::<Problem>(&event.data)?)));
                }
                if event.name == name {
                    return self.read(&event.data).map(Some);
                }
            }
            let frame = match tokio::time::timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Err(Error::Reach { url: self.url.to_string(), reason: chain(&error) });
                }
                Ok(None) => return Ok(None),
                Err(_) => return Err(Error::Silent { url: self.url.to_string(), after: SILENCE }),
            };
            if let Ok(data) = frame.into_data()
                && !self.parser.feed(&data)
            {
                let reason = format!("an event is larger than {MAX_EVENT} bytes");
                return Err(Error::Answer { url: self.url.to_string(), status: 200, reason });
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, data: &str) -> Result<T, Error> {
        serde_json::from_str(data).map_err(|error| Error::Answer {
            url: self.url.to_string(),
            status: 200,
            reason: format!("an event cannot be read: {error}"),
        })
    }
}

/// The slices of one host.
#[derive(Debug)]
pub struct SliceStream(Events);

impl SliceStream {
    pub(crate) const fn new(events: Events) -> Self {
        Self(events)
    }

    /// The next slice; the first comes at once. None when the manager ended the stream: connect again.
    pub async fn next(&mut self) -> Result<Option<Slice>, Error> {
        self.0.next("slice").await
    }
}

/// Revisions as they come about.
#[derive(Debug)]
pub struct WatchStream(Events);

impl WatchStream {
    pub(crate) const fn new(events: Events) -> Self {
        Self(events)
    }

    /// The next revision. None when the manager ended the stream: watch again from the last revision seen.
    pub async fn next(&mut self) -> Result<Option<Revision>, Error> {
        self.0.next("revision").await
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Event {
    name: String,
    data: String,
}

/// The event stream format of the HTML standard, section 9.2.6, as far as servers of JSON use it.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    after_return: bool,
    name: String,
    data: String,
    has_data: bool,
    events: VecDeque<Event>,
}

impl Parser {
    /// Takes bytes off the wire; false when an event grows beyond all bounds.
    fn feed(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            match byte {
                // CR LF ends one line, not two.
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    self.end_of_line();
                }
                _ => {
                    self.after_return = false;
                    self.line.push(*byte);
                }
            }
            if self.line.len() + self.data.len() > MAX_EVENT {
                return false;
            }
        }
        true
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            if std::mem::take(&mut self.has_data) {
                self.events.push_back(Event { name, data });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            // Comments, ids and retry times are of no use here.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(chunks: &[&str]) -> Vec<(String, String)> {
        let mut parser = Parser::default();
        for chunk in chunks {
            assert!(parser.feed(chunk.as_bytes()));
        }
        parser.events.into_iter().map(|event| (event.name, event.data)).collect()
    }

    #[test]
    fn events_are_read_as_the_html_standard_says() {
        // The examples of section 9.2.6.
        let pair = |name: &str, data: &str| (name.to_owned(), data.to_owned());
        assert_eq!(parse(&["data: YHOO\ndata: +2\ndata: 10\n\n"]), [pair("", "YHOO\n+2\n10")]);
        assert_eq!(
            parse(&[
                ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
            ]),
            [pair("", "first event"), pair("", "second event"), pair("", " third event")]
        );
        assert_eq!(parse(&["data\n\ndata\ndata\n\ndata:"]), [pair("", ""), pair("", "\n")]);
        assert_eq!(parse(&["data:test\n\ndata: test\n\n"]), [pair("", "test"), pair("", "test")]);
    }

    #[test]
    fn it_does_not_matter_how_bytes_are_cut() {
        let text = "event: a\r\ndata: x\r\n\r\n: c\n\nevent:b\rdata:y\r\rdata: ü\n\n";
        let whole = parse(&[text]);
        assert_eq!(whole.len(), 3);
        let mut parser = Parser::default();
        for byte in text.as_bytes() {
            assert!(parser.feed(&[*byte]));
        }
        let cut: Vec<_> = parser.events.into_iter().map(|event| (event.name, event.data)).collect();
        assert_eq!(cut, whole);
    }
}
