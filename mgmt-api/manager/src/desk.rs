//! Questions to hosts: who listens, what is open, which answer belongs to which.
//!
//! A host listens by following its state; what it is asked is pushed into that stream, and it answers by requests of its
//! own. In memory only: whoever asked is gone when the manager is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mgmt_types::question::{Answer, Asked, Question, Reply};
use tokio::sync::mpsc;

/// Questions that wait for one host to take them.
const WAITING: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Desk(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The last number given to a line or a question.
    last: u64,
    lines: HashMap<String, Line>,
    open: HashMap<u64, Open>,
}

/// The way to a host that listens.
#[derive(Debug)]
struct Line {
    number: u64,
    questions: mpsc::Sender<Asked>,
}

/// A question that was put.
#[derive(Debug)]
struct Open {
    host: String,
    line: u64,
    replies: mpsc::Sender<(String, Reply)>,
}

/// A host's end of a line. Dropping it hangs up.
#[derive(Debug)]
pub(crate) struct Ear {
    desk: Arc<Desk>,
    host: String,
    number: u64,
    questions: mpsc::Receiver<Asked>,
}

/// The asker's hold on a question. Dropping it closes the question.
#[derive(Debug)]
pub(crate) struct Asking {
    desk: Arc<Desk>,
    id: u64,
}

/// Why a host cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Deaf {
    #[error("it is not connected, or its agent is too old to be asked")]
    Gone,
    #[error("it does not take {WAITING} questions that were put before")]
    Full,
}

/// The question is closed, or never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

impl Desk {
    /// A host begins to listen. When it listened already, the new line takes the place of the old one.
    pub(crate) fn listen(self: &Arc<Self>, host: &str) -> Ear {
        let (questions, receiver) = mpsc::channel(WAITING);
        let mut inner = self.lock();
        let number = inner.next();
        inner.lines.insert(host.to_owned(), Line { number, questions });
        Ear { desk: Arc::clone(self), host: host.to_owned(), number, questions: receiver }
    }

    /// Puts a question to a host; what it replies comes out of `replies` with its name.
    pub(crate) fn ask(
        self: &Arc<Self>,
        host: &str,
        question: Question,
        replies: &mpsc::Sender<(String, Reply)>,
    ) -> Result<Asking, Deaf> {
        let mut inner = self.lock();
        let id = inner.next();
        let line = inner.lines.get(host).ok_or(Deaf::Gone)?;
        line.questions.try_send(Asked { id, question }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Deaf::Full,
            mpsc::error::TrySendError::Closed(_) => Deaf::Gone,
        })?;
        let open = Open { host: host.to_owned(), line: line.number, replies: replies.clone() };
        inner.open.insert(id, open);
        Ok(Asking { desk: Arc::clone(self), id })
    }

    /// Whose question it is and where its replies go.
    pub(crate) fn asker(&self, id: u64) -> Result<(String, mpsc::Sender<(String, Reply)>), Closed> {
        let inner = self.lock();
        let open = inner.open.get(&id).ok_or(Closed)?;
        Ok((open.host.clone(), open.replies.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Ear {
    /// The next question.
    pub(crate) async fn next(&mut self) -> Option<Asked> {
        self.questions.recv().await
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut inner = self.desk.lock();
        if inner.lines.get(&self.host).is_some_and(|line| line.number == self.number) {
            inner.lines.remove(&self.host);
        }
        // Nobody waits for what will not come.
        let number = self.number;
        for (_, open) in inner.open.extract_if(|_, open| open.line == number) {
            let answer = Answer::Refused("its connection ended".to_owned());
            let _ = open.replies.try_send((open.host, Reply { answer, last: true }));
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.desk.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mgmt_types::question::VerdictQuery;

    fn question() -> Question {
        Question::Verdicts(VerdictQuery::default())
    }

    #[tokio::test]
    async fn a_question_finds_its_host_and_closes_with_its_asker() {
        let desk = Arc::new(Desk::default());
        let (replies, mut answers) = mpsc::channel(4);
        assert_eq!(desk.ask("a", question(), &replies).expect_err("nobody listens"), Deaf::Gone);

        let mut ear = desk.listen("a");
        let asking = desk.ask("a", question(), &replies).expect("put");
        let asked = ear.next().await.expect("a question");
        assert_eq!(asked.question, question());
        let (host, back) = desk.asker(asked.id).expect("open");
        let reply = Reply { answer: Answer::Verdicts(Vec::new()), last: true };
        back.try_send((host, reply.clone())).expect("room");
        assert_eq!(answers.recv().await, Some(("a".to_owned(), reply)));

        drop(asking);
        assert!(desk.asker(asked.id).is_err());
    }

    #[tokio::test]
    async fn who_hangs_up_is_waited_for_no_longer_and_who_calls_again_is_asked_on_the_new_line() {
        let desk = Arc::new(Desk::default());
        let (replies, mut answers) = mpsc::channel(4);
        let old = desk.listen("a");
        let _lost = desk.ask("a", question(), &replies).expect("put");
        let mut new = desk.listen("a");
        let _asking = desk.ask("a", question(), &replies).expect("put");
        drop(old);
        let (_, reply) = answers.recv().await.expect("word of the end");
        assert!(matches!(reply.answer, Answer::Refused(_)) && reply.last, "{reply:?}");
        assert!(new.next().await.is_some());
        assert!(answers.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_host_that_takes_nothing_is_asked_a_bounded_number_of_questions() {
        let desk = Arc::new(Desk::default());
        let (replies, _answers) = mpsc::channel(4);
        let _ear = desk.listen("a");
        let asking: Vec<_> =
            (0..WAITING).map(|_| desk.ask("a", question(), &replies).expect("room")).collect();
        assert_eq!(desk.ask("a", question(), &replies).expect_err("no room"), Deaf::Full);
        drop(asking);
        assert!(desk.lock().open.is_empty());
    }
}
