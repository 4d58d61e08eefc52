//! Bodies that are produced while they are sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

use crate::read::budget::Budget;
use domain::limits::{BODY_QUEUE, SENDER_LOOK, STALLED_NEXT, STALLED_READ};

/// The body of a response.
pub enum Answer {
    /// All of it.
    Whole(Option<Bytes>),
    /// Pieces as they are produced. An `Err` breaks the connection, so that a client can tell an
    /// incomplete body from a complete one.
    Pieces(mpsc::Receiver<Result<Bytes, Broken>>),
}

/// The body could not be completed.
#[derive(Debug, thiserror::Error)]
#[error("the response could not be completed")]
pub struct Broken;

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Answer::Whole(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            Answer::Pieces(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|p| p.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(bytes) if bytes.as_ref().is_none_or(Bytes::is_empty))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Answer::Whole(bytes) => hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Answer::Pieces(_) => hyper::body::SizeHint::default(),
        }
    }
}

/// The sending side of [`Answer::Pieces`].
pub struct Sender {
    pieces: mpsc::Sender<Result<Bytes, Broken>>,
    cut: Arc<Notify>,
    patience: Duration,
    memory: Option<Budget>,
}

impl Sender {
    /// A body and its sender. `cut` ends the connection if the client reads nothing for `patience`.
    pub fn new(cut: Arc<Notify>, patience: Duration) -> (Sender, Answer) {
        let (pieces, receiver) = mpsc::channel(BODY_QUEUE);
        (Sender { pieces, cut, patience, memory: None }, Answer::Pieces(receiver))
    }

    /// The response holds some of this memory: while others wait for it, a client that reads
    /// nothing is disconnected after [`STALLED_READ`], or [`STALLED_NEXT`].
    pub fn yielding(self, memory: Budget) -> Sender {
        Sender { memory: Some(memory), ..self }
    }

    /// Queues a piece. False if the client is gone, or was disconnected for being slow.
    pub async fn send(&self, piece: Bytes) -> bool {
        if piece.is_empty() {
            return !self.pieces.is_closed();
        }
        let began = Instant::now();
        let mut sending = std::pin::pin!(self.pieces.send(Ok(piece)));
        loop {
            if let Ok(sent) = timeout(SENDER_LOOK, &mut sending).await {
                return sent.is_ok();
            }
            let patience = match self.memory.as_ref().and_then(Budget::awaited_by_others) {
                None => self.patience,
                Some(waited) if waited < STALLED_READ => self.patience.min(STALLED_READ),
                // The memory went from one client that does not read to the next.
                Some(_) => self.patience.min(STALLED_NEXT),
            };
            if began.elapsed() >= patience {
                self.cut.notify_one();
                return false;
            }
        }
    }

    /// Breaks the connection after the pieces sent so far.
    pub async fn fail(self) {
        let _ = timeout(self.patience, self.pieces.send(Err(Broken))).await;
    }
}
