//! Server-sent events, as they come (WHATWG HTML, section 9.2.6).
//!
//! Bytes arrive cut anywhere: within a line, within CR LF, within a character. [`Decoder`] takes them as they are.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its type; `message` when the server names none.
    pub(crate) name: String,
    /// Its lines of data, joined by newlines.
    pub(crate) data: String,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    /// One event is larger than is kept.
    #[error("an event has more than {limit} bytes")]
    TooLarge {
        /// Most bytes of one event.
        limit: usize,
    },
    /// The stream is not UTF-8.
    #[error("an event is not UTF-8")]
    NotUtf8,
}

/// Takes bytes, gives events.
#[derive(Debug)]
pub(crate) struct Decoder {
    limit: usize,
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The line before ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    first_line: bool,
    name: String,
    data: String,
    has_data: bool,
}

impl Decoder {
    /// A decoder that keeps at most `limit` bytes of a line and of an event.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            after_cr: false,
            first_line: true,
            name: String::new(),
            data: String::new(),
            has_data: false,
        }
    }

    /// Takes the next bytes; hands each event that they complete to `each`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Event)) -> Result<(), SseError> {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() > self.limit {
                return Err(SseError::TooLarge { limit: self.limit });
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { break };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if let Some(event) = self.end_line()? {
                each(event);
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Event>, SseError> {
        let line = std::mem::take(&mut self.line);
        let line = std::str::from_utf8(&line).map_err(|_| SseError::NotUtf8)?;
        let line = match std::mem::take(&mut self.first_line) {
            true => line.strip_prefix('\u{feff}').unwrap_or(line),
            false => line,
        };
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => {
                if self.data.len() + value.len() + 1 > self.limit {
                    return Err(SseError::TooLarge { limit: self.limit });
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // An empty field is a comment, the server's sign of life; ids and retry times are not used here.
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        let name = if name.is_empty() { "message".to_owned() } else { name };
        std::mem::take(&mut self.has_data).then_some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.to_owned() }
    }

    /// The examples of section 9.2.6, comments and all, and what the standard says they mean.
    const STREAM: &str = "\u{feff}: test stream\n\ndata: first event\nid: 1\n\n\
        data:second event\nid\n\ndata:  third event\r\n\r\n\
        event: add\rdata: 73857293\r\rdata: YHOO\ndata: +2\ndata: 10\n\n\
        data\n\ndata\ndata\n\nid: 7\n\nevent: nothing\n\nretry: 10\nfoo: bar\ndata: {\"é\":\"😀\"}\n\n\
        data: never dispatched\n";

    fn expected() -> Vec<Event> {
        vec![
            event("message", "first event"),
            event("message", "second event"),
            event("message", " third event"),
            event("add", "73857293"),
            event("message", "YHOO\n+2\n10"),
            event("message", ""),
            event("message", "\n"),
            event("message", "{\"é\":\"😀\"}"),
        ]
    }

    #[test]
    fn a_stream_means_the_same_wherever_it_is_cut() {
        let bytes = STREAM.as_bytes();
        for first in 0..bytes.len() {
            for step in [1, 2, 3, 7, bytes.len()] {
                let mut decoder = Decoder::new(1024);
                let mut events = Vec::new();
                decoder.feed(&bytes[..first], |event| events.push(event)).expect("well formed");
                for chunk in bytes[first..].chunks(step) {
                    decoder.feed(chunk, |event| events.push(event)).expect("well formed");
                }
                assert_eq!(events, expected(), "cut at {first}, then every {step}");
            }
        }
    }

    #[test]
    fn a_line_or_event_without_end_is_refused() {
        let refused = Err(SseError::TooLarge { limit: 16 });
        let mut decoder = Decoder::new(16);
        assert_eq!(decoder.feed(b"data: 1234567890", |_| ()), Ok(()));
        assert_eq!(decoder.feed(b"1", |_| ()), refused);

        let mut decoder = Decoder::new(16);
        assert_eq!(decoder.feed(b"data: 1234567\n", |_| ()), Ok(()));
        assert_eq!(decoder.feed(b"data: 12345678\n", |_| ()), Ok(()));
        assert_eq!(decoder.feed(b"data: 1\n", |_| ()), refused);
    }

    #[test]
    fn what_is_not_utf8_is_refused() {
        assert_eq!(Decoder::new(16).feed(b"data: \xff\n", |_| ()), Err(SseError::NotUtf8));
    }
}
