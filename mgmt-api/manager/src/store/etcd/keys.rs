//! Where in etcd what is kept. The whole layout:
//!
//! ```text
//! PREFIX/layout                          the layout's number
//! PREFIX/live/head                       the newest revision, in decimal: every commit is guarded by it
//! PREFIX/live/records/TABLE              changes with each change of that table, so that others hear of it
//! PREFIX/live/leader                     name of the manager that does what one alone must do; leased
//! PREFIX/live/managers/NAME              who a manager is and where; leased
//! PREFIX/live/hosts/HOST                 what a host last said, and to which manager; leased
//! PREFIX/won/REVISION                    which attempt became that revision, and in how many pieces
//! PREFIX/log/REVISION/ATTEMPT/PIECE      what an attempt at a revision changes, as JSON cut in pieces
//! PREFIX/base                            the revision whose whole state is kept, its attempt and pieces
//! PREFIX/bases/REVISION/ATTEMPT/PIECE    that state
//! PREFIX/records/TABLE/KEY               records
//! PREFIX/audit/done/ID-NAME              audit log: newest first, since ID counts down
//! PREFIX/audit/refused/ID-NAME
//! ```
//!
//! State is the base with the log after it. Only what is under `live` is watched. Numbers have twenty digits, so that
//! keys sort as numbers do.

/// Makes keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

/// A range of keys: from the first, up to but not including the second.
pub(super) type Span = (String, String);

/// Makes the methods that only put a name behind the prefix.
macro_rules! fixed {
    ($($name:ident $key:literal),+) => {
        $(pub(super) fn $name(&self) -> String {
            format!(concat!("{}", $key), self.prefix)
        })+
    };
}

impl Keys {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix }
    }

    fixed!(layout "/layout", live "/live/", head "/live/head", leader "/live/leader", base "/base");

    pub(super) fn manager(&self, name: &str) -> String {
        format!("{}/live/managers/{name}", self.prefix)
    }

    pub(super) fn managers(&self) -> Span {
        below(format!("{}/live/managers/", self.prefix))
    }

    pub(super) fn host(&self, name: &str) -> String {
        format!("{}/live/hosts/{name}", self.prefix)
    }

    pub(super) fn hosts(&self) -> Span {
        below(format!("{}/live/hosts/", self.prefix))
    }

    /// What changes with each change of a table of records.
    pub(super) fn table_changed(&self, table: &str) -> String {
        format!("{}/live/records/{table}", self.prefix)
    }

    pub(super) fn all_live(&self) -> Span {
        below(self.live())
    }

    pub(super) fn record(&self, table: &str, key: &str) -> String {
        format!("{}/records/{table}/{key}", self.prefix)
    }

    pub(super) fn records(&self, table: &str) -> Span {
        below(format!("{}/records/{table}/", self.prefix))
    }

    pub(super) fn won(&self, revision: u64) -> String {
        format!("{}/won/{revision:020}", self.prefix)
    }

    /// Winners of `from` up to and including `to`.
    pub(super) fn won_between(&self, from: u64, to: u64) -> Span {
        (self.won(from), self.won(to) + "\0")
    }

    pub(super) fn piece(&self, revision: u64, attempt: &str, number: u32) -> String {
        format!("{}/log/{revision:020}/{attempt}/{number:04}", self.prefix)
    }

    /// Every piece of every attempt at `from` up to and including `to`.
    pub(super) fn pieces_between(&self, from: u64, to: u64) -> Span {
        (format!("{}/log/{from:020}/", self.prefix), format!("{}/log/{to:020}0", self.prefix))
    }

    /// Every piece of one attempt.
    pub(super) fn pieces(&self, revision: u64, attempt: &str) -> Span {
        below(format!("{}/log/{revision:020}/{attempt}/", self.prefix))
    }

    pub(super) fn base_piece(&self, revision: u64, attempt: &str, number: u32) -> String {
        format!("{}/bases/{revision:020}/{attempt}/{number:04}", self.prefix)
    }

    pub(super) fn base_pieces(&self, revision: u64, attempt: &str) -> Span {
        below(format!("{}/bases/{revision:020}/{attempt}/", self.prefix))
    }

    /// Every piece of every base.
    pub(super) fn bases(&self) -> Span {
        below(format!("{}/bases/", self.prefix))
    }

    /// An entry of the audit log; the newest has the smallest key.
    pub(super) fn audit(&self, log: Log, id: u64, name: &str) -> String {
        format!("{}/audit/{}/{:020}-{name}", self.prefix, log.as_str(), u64::MAX - id)
    }

    /// Entries with a number below `before`.
    pub(super) fn audits(&self, log: Log, before: Option<u64>) -> Span {
        let all = below(format!("{}/audit/{}/", self.prefix, log.as_str()));
        match before {
            // All keys with that number begin with it, and '.' comes right after '-'.
            Some(id) => (format!("{}{:020}.", all.0, u64::MAX - id), all.1),
            None => all,
        }
    }
}

/// The two parts of the audit log: refusals push out only refusals.
#[derive(Debug, Clone, Copy)]
pub(super) enum Log {
    Done,
    Refused,
}

impl Log {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// Revision and attempt of a key of a piece.
pub(super) fn attempt_of(key: &str) -> Option<(u64, &str)> {
    let mut parts = key.rsplit('/');
    let _piece = parts.next()?;
    let attempt = parts.next()?;
    Some((parts.next()?.parse().ok()?, attempt))
}

/// Revision of a key of a winner.
pub(super) fn revision_of(key: &str) -> Option<u64> {
    key.rsplit('/').next()?.parse().ok()
}

/// Every key that begins with `prefix`, which ends with a slash: '0' comes right after '/'.
fn below(prefix: String) -> Span {
    let end = format!("{}0", prefix.trim_end_matches('/'));
    (prefix, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_do_and_spans_hold_what_they_say() {
        let keys = Keys::new("/p".to_owned());
        let holds = |span: &Span, key: &str| span.0.as_str() <= key && key < span.1.as_str();
        assert!(keys.won(9) < keys.won(10));
        let span = keys.won_between(9, 10);
        let held: Vec<u64> = (8..12).filter(|n| holds(&span, &keys.won(*n))).collect();
        assert_eq!(held, [9, 10]);
        let span = keys.pieces_between(9, 10);
        let held: Vec<u64> = (8..12).filter(|n| holds(&span, &keys.piece(*n, "zz-1", 9999))).collect();
        assert_eq!(held, [9, 10]);
        assert!(!holds(&keys.pieces(9, "a-1"), &keys.piece(9, "a-10", 0)));
        assert_eq!(attempt_of(&keys.piece(9, "a-1", 3)), Some((9, "a-1")));
        assert_eq!(revision_of(&keys.won(77)), Some(77));
        let page = keys.audits(Log::Done, Some(5));
        assert!(
            holds(&page, &keys.audit(Log::Done, 4, "zz")) && !holds(&page, &keys.audit(Log::Done, 5, "zz"))
        );
        assert!(!holds(&page, &keys.audit(Log::Refused, 4, "zz")));
    }
}
