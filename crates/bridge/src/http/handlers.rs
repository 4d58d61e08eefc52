//! What each request does. Parsing is in `request`, the protocol in `pipe`.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use super::body::Sender;
use super::message::{Incoming, Part, Reply};
use super::ready::Readiness;
use super::request::{NextRequest, Position, RecordsRequest, Request, parse_ack, parse_end, parse_seek};
use crate::metrics::Metrics;
use crate::pipe::status::{ShardState, Snapshot};
use crate::pipe::{Pipes, PullOptions, Served, one_stream};
use crate::read::plan::Planned;
use crate::read::records::{Range, Reading};
use domain::error::Error;
use domain::lease::Lease;
use domain::limits::{BODY_QUEUE, WRITE_TIMEOUT};
use domain::moment::Moment;
use domain::names::{BatchId, PipeName, ShardId, StreamName, WorkerId};
use domain::range::{Bound, Until};
use domain::record::Chunk;
use domain::seat::worker_of;
use domain::sequence::{Checkpoint, RowPosition};
use domain::shape::BatchShape;
use domain::start::Beginning;
use domain::unpacking::Unpacking;
use formats::encode::{
    Columns, Encoder, Form, Format, PipeRow, PlanRow, Row, WorkerRow, encode_batch, encode_rows, encoded_len,
};

/// What handlers work with.
pub struct App {
    /// All pipes.
    pub pipes: Pipes,
    /// Bounded reads.
    pub reading: Reading,
    /// Metrics.
    pub metrics: Metrics,
    /// Whether the state store answers.
    pub readiness: Readiness,
}

impl App {
    /// Carries out a request that is not `HEAD`.
    pub async fn answer(self: &Arc<Self>, request: Request, incoming: Incoming) -> Result<Reply, Error> {
        if incoming.range.is_some() && !matches!(request, Request::Next(_)) {
            return Err(Error::RangeNotSatisfiable(
                "the connection broke in the middle of a response that cannot be resumed: run the query again".into(),
            ));
        }
        match request {
            Request::Streams { format } => rows(&self.reading.kinesis.streams().await?, format),
            Request::Shards { stream, format } => rows(&self.reading.kinesis.shards(&stream).await?, format),
            Request::Sample { stream, limit, unpacking, form } => self.sample(&stream, limit, unpacking, form).await,
            Request::Records(request) => self.records(request, incoming.cut).await,
            Request::Plan { range, until_pipe, format } => {
                rows(&self.plan_rows(range, until_pipe.as_ref()).await?, format)
            }
            Request::Next(request) => self.next(request, incoming).await,
            Request::Pipes { format } => rows(&self.pipe_rows().await?, format),
            Request::Workers { format } => rows(&self.worker_rows().await?, format),
            Request::Seek { pipe } => self.seek(&pipe, &incoming).await,
            Request::End => self.end(&incoming).await,
            Request::Ack { pipe } => self.ack(&pipe, &incoming.body).await,
            Request::Metrics => self.metrics_text(),
            Request::Healthz => Ok(Reply::whole("ok\n", TEXT)),
            Request::Readyz => {
                self.readiness.ask(&self.pipes.deps().store).await?;
                Ok(Reply::whole("ready\n", TEXT))
            }
        }
    }

    async fn next(self: &Arc<Self>, request: NextRequest, incoming: Incoming) -> Result<Reply, Error> {
        let options = PullOptions {
            confirm: request.confirm,
            shape: BatchShape::new(request.form, request.unpacking),
            unpacking: request.unpacking,
            limits: request.limits,
            linger: request.linger,
            wait: request.wait,
            mode: request.mode,
            on_failure: request.on_failure,
            poll: request.poll,
            start: request.start,
            resume: incoming.range.is_some_and(|(first, _)| first > 0),
        };
        let served = self.pipes.pull(&request.pipe, &request.stream, options).await?;
        let form = request.form;
        let Some(batch) = &served.batch else {
            let columns = Columns { batch: Some(BatchId::default()), stream: served.stream, shards: Vec::new() };
            return encoded(form, &columns, &[]);
        };
        let part = match incoming.range {
            None | Some((0, None)) => None,
            Some((first, last)) => {
                let (batch, pipe) = (batch.clone(), request.pipe);
                let total = tokio::task::spawn_blocking(move || encoded_len(&batch, form)).await;
                let total = total.map_err(|e| Error::Internal(format!("encoding a batch failed: {e}")))??;
                let last = last.unwrap_or(u64::MAX).min(total.saturating_sub(1));
                if first > last {
                    return Err(Error::RangeNotSatisfiable(format!(
                        "the open batch of pipe '{pipe}' has {total} bytes, so it cannot be resumed at byte {first}"
                    )));
                }
                Some(Part { first, last, total })
            }
        };
        let (sender, body) = Sender::new(incoming.cut, WRITE_TIMEOUT);
        tokio::spawn(send_batch(served, form, part, sender));
        Ok(Reply { body, content_type: form.format().content_type(), part })
    }

    async fn records(self: &Arc<Self>, request: RecordsRequest, cut: Arc<Notify>) -> Result<Reply, Error> {
        let RecordsRequest { range, until_pipe, limit, form } = request;
        let range = self.reading.at_now(range).await?;
        let reading = Reading { budget: self.reading.budget.for_another(), ..self.reading.clone() };
        let memory = reading.budget.clone();
        let pipe = self.bounding(until_pipe.as_ref(), &range.stream).await?;
        let spans = reading.spans(&range, pipe.as_deref()).await?;
        let shards = spans.iter().map(|span| span.shard.id.clone()).collect();
        let columns = Columns { batch: None, stream: range.stream.clone(), shards };
        let encoder = Encoder::new(form, &columns)?;
        let (found, mut receiver) = mpsc::channel(BODY_QUEUE);
        tokio::spawn(reading.run(range, spans, found));
        // An error before the first record still has a status of its own.
        let first = receiver.recv().await.transpose()?;
        let (sender, body) = Sender::new(cut, WRITE_TIMEOUT);
        let sender = sender.yielding(memory);
        tokio::spawn(async move {
            let mut left = limit.unwrap_or(usize::MAX);
            if let Err(error) = send_found(encoder, first, &mut receiver, &mut left, &sender).await {
                tracing::warn!(code = error.code(), "a bounded read ended early: {error}");
                sender.fail().await;
            }
        });
        Ok(Reply { body, content_type: form.format().content_type(), part: None })
    }

    /// The leases of the pipe at whose start a read ends.
    async fn bounding(&self, pipe: Option<&PipeName>, stream: &StreamName) -> Result<Option<Vec<Lease>>, Error> {
        let Some(pipe) = pipe else { return Ok(None) };
        let rows = self.pipes.deps().store.leases(Some(pipe)).await?;
        let leases: Vec<Lease> = rows.into_iter().map(|row| row.value).collect();
        match leases.first() {
            Some(_) => {
                one_stream(pipe, &leases, &self.pipes.deps().kinesis.stream(stream).await?)?;
                Ok(Some(leases))
            }
            None => Err(Error::NotFound(format!(
                "until_pipe={pipe}: there is no pipe with that name, or it has not been pulled yet; create its view first"
            ))),
        }
    }

    async fn plan_rows(&self, range: Range<Moment>, until_pipe: Option<&PipeName>) -> Result<Vec<PlanRow>, Error> {
        let pipe = self.bounding(until_pipe, &range.stream).await?;
        let range = self.reading.at_now(range).await?;
        let planned = self.reading.plan(&range, pipe.as_deref()).await?;
        // As reported by Kinesis with its last response.
        let now_ms = self.reading.now_ms();
        let ends_ms = match range.to {
            Bound::Open => Some(now_ms),
            Bound::Time(ms) => Some(ms),
            Bound::Sequence(_) => None,
        };
        let row = |planned: Planned| {
            let (first_time, first_sequence_number) = planned.first.unzip();
            let (until_time, (until_sequence_number, until_sub_sequence_number)) = match planned.until {
                Some(Until::Row(row)) => (None, (row.sequence.to_string(), row.sub)),
                Some(Until::Time(ms)) => (Some(ms.min(ends_ms.unwrap_or(ms))), Default::default()),
                None => (ends_ms, Default::default()),
            };
            PlanRow {
                stream: range.stream.clone(),
                open: planned.shard.open(),
                shard_id: planned.shard.id,
                first_time,
                first_sequence_number: first_sequence_number.unwrap_or_default(),
                until_time,
                until_sequence_number,
                until_sub_sequence_number,
            }
        };
        Ok(planned.into_iter().map(row).collect())
    }

    async fn sample(
        &self,
        stream: &StreamName,
        limit: usize,
        unpacking: Unpacking,
        form: Form,
    ) -> Result<Reply, Error> {
        let (shards, chunks) = self.reading.sample(stream, limit, unpacking).await?;
        encoded(form, &Columns { batch: None, stream: stream.clone(), shards }, &chunks)
    }

    async fn seek(&self, pipe: &PipeName, incoming: &Incoming) -> Result<Reply, Error> {
        let mut moves: BTreeMap<PipeName, Vec<(ShardId, Checkpoint)>> = BTreeMap::new();
        // The same for all shards of a pipe.
        let mut now_ms: BTreeMap<PipeName, i64> = BTreeMap::new();
        for row in parse_seek(&incoming.body, pipe)? {
            let to = match row.position {
                Position::Start(start) => {
                    let relative = matches!(start, Beginning::From(Moment::Ago(_)));
                    if relative && !now_ms.contains_key(&row.pipe) {
                        now_ms.insert(row.pipe.clone(), self.pipes.now_ms(&row.pipe).await?);
                    }
                    start.checkpoint(now_ms.get(&row.pipe).copied().unwrap_or_default())
                }
                Position::Sequence(sequence) => {
                    Checkpoint::After(RowPosition::new(sequence, row.sub_sequence_number.unwrap_or(u32::MAX)))
                }
            };
            moves.entry(row.pipe).or_default().push((row.shard_id.unwrap_or_default(), to));
        }
        for (pipe, moves) in moves {
            self.pipes.seek(&pipe, &moves).await?;
            tracing::info!(pipe = pipe.as_str(), by = %incoming.caller, "seek: {}", told(&moves));
        }
        Ok(Reply::whole("", TEXT))
    }

    async fn ack(&self, pipe: &PipeName, body: &[u8]) -> Result<Reply, Error> {
        for batch in parse_ack(body)? {
            self.pipes.ack(pipe, &batch).await?;
        }
        Ok(Reply::whole("", TEXT))
    }

    async fn end(&self, incoming: &Incoming) -> Result<Reply, Error> {
        for pipe in parse_end(&incoming.body)? {
            self.pipes.end(&pipe).await?;
            tracing::info!(pipe = pipe.as_str(), by = %incoming.caller, "the pipe was ended");
        }
        Ok(Reply::whole("", TEXT))
    }

    async fn pipe_rows(&self) -> Result<Vec<PipeRow>, Error> {
        let mut leases: Vec<Lease> =
            self.pipes.deps().store.leases(None).await?.into_iter().map(|row| row.value).collect();
        leases.sort_by_key(Lease::key);
        let here = self.pipes.snapshots();
        // What is not held here is shown with the errors of the pipe's first seat.
        let first = |pipe: &PipeName| here.range((pipe.clone(), WorkerId::default())..).next();
        let any = |pipe: &PipeName| first(pipe).filter(|((of, _), _)| of == pipe).map(|(_, snapshot)| snapshot);
        let own = |lease: &Lease| here.get(&(lease.pipe.clone(), lease.owner.clone()));
        Ok(leases.iter().map(|lease| self.pipe_row(lease, own(lease), any(&lease.pipe))).collect())
    }

    /// A shard's row. `own` is the state of the seat here that has its lease, `any` that of one that
    /// runs the pipe.
    fn pipe_row(&self, lease: &Lease, own: Option<&Snapshot>, any: Option<&Snapshot>) -> PipeRow {
        let deps = self.pipes.deps();
        let mine = worker_of(&lease.owner) == &*deps.worker_id;
        let progress = own.and_then(|s| s.buffer(&lease.shard_id)).map(|b| b.progress());
        let snapshot = own.or(any);
        let state = match own {
            Some(own) => own.state(lease),
            _ if lease.finished() => ShardState::Finished,
            _ if mine || deps.members.is_nobodys(lease) => ShardState::Unowned,
            _ => ShardState::Reading,
        };
        let shard_error = progress.as_ref().and_then(|p| p.error.as_ref()).map(|e| e.to_string());
        let fallback = progress.as_ref().and_then(|p| p.fallback.clone());
        let mode = progress.as_ref().map_or("", |p| p.mode.name());
        let pipe_error = snapshot.map(|s| s.last_error.clone()).filter(|e| !e.is_empty());
        PipeRow {
            pipe: lease.pipe.clone(),
            stream: lease.stream.clone(),
            shard_id: lease.shard_id.clone(),
            owner: lease.owner.clone(),
            epoch: lease.epoch,
            state: state.name().into(),
            sequence_number: lease.checkpoint.sequence_text(),
            sub_sequence_number: lease.checkpoint.sub_sequence(),
            millis_behind_latest: progress.and_then(|p| p.millis_behind_latest),
            offered_rows: lease.offer.as_ref().map_or(0, |o| o.rows),
            committed_rows: lease.committed_rows,
            failed_attempts: snapshot.map_or(0, |s| s.failed_attempts.into()),
            mode: mode.into(),
            last_error: shard_error.or(fallback).or(pipe_error).unwrap_or_default(),
            warning: snapshot.map_or_else(String::new, |s| s.warning().into()),
            last_commit_time: (lease.last_commit_ms > 0).then_some(lease.last_commit_ms),
        }
    }

    async fn worker_rows(&self) -> Result<Vec<WorkerRow>, Error> {
        let deps = self.pipes.deps();
        let leases = deps.store.leases(None).await?;
        let mut workers = deps.store.workers().await?;
        workers.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
        let mut held: BTreeMap<&str, u64> = BTreeMap::new();
        for lease in &leases {
            *held.entry(worker_of(&lease.value.owner)).or_default() += 1;
        }
        Ok(workers
            .into_iter()
            .map(|worker| WorkerRow {
                leases: held.get(worker.worker_id.as_str()).copied().unwrap_or(0),
                alive: !deps.members.is_dead(&worker.worker_id),
                worker_id: worker.worker_id,
                address: worker.address,
                version: worker.version,
            })
            .collect())
    }

    fn metrics_text(&self) -> Result<Reply, Error> {
        let (metrics, deps) = (&self.metrics, self.pipes.deps());
        let reads = &self.reading.budget;
        metrics.memory_used.set((deps.budget.used() + reads.used()) as i64);
        metrics.memory_limit.set((deps.budget.limit() + reads.limit()) as i64);
        metrics.lag.reset();
        metrics.buffered_rows.reset();
        metrics.leases.reset();
        metrics.failed_attempts.reset();
        metrics.gaps.reset();
        metrics.fan_out_fallbacks.reset();
        for ((pipe, owner), snapshot) in self.pipes.snapshots() {
            // Several views may pull one pipe.
            let label = [pipe.as_str()];
            let held = snapshot.leases.iter().filter(|l| l.owner == owner).count();
            metrics.leases.with_label_values(&label).add(held as f64);
            let failed = metrics.failed_attempts.with_label_values(&label);
            failed.set(failed.get().max(f64::from(snapshot.failed_attempts)));
            let fallbacks = snapshot.buffers.iter().filter(|b| b.progress().fallback.is_some()).count();
            metrics.fan_out_fallbacks.with_label_values(&label).add(fallbacks as f64);
            let gaps = snapshot.leases.iter().filter(|l| snapshot.state(l) == ShardState::Gap).count();
            metrics.gaps.with_label_values(&label).add(gaps as f64);
            for buffer in &snapshot.buffers {
                let labels = [pipe.as_str(), buffer.shard_id.as_str()];
                metrics.buffered_rows.with_label_values(&labels).set(buffer.rows() as f64);
                if let Some(behind) = buffer.progress().millis_behind_latest {
                    metrics.lag.with_label_values(&labels).set(behind as f64 / 1_000.0);
                }
            }
        }
        let text = metrics.render().map_err(|e| Error::Internal(format!("the metrics cannot be written: {e}")))?;
        Ok(Reply::whole(text, "text/plain; version=0.0.4; charset=utf-8"))
    }
}

/// What a seek did, in a few words.
fn told(moves: &[(ShardId, Checkpoint)]) -> String {
    match moves {
        [(shard, to)] if shard.as_str().is_empty() => format!("all shards to {}", to.sequence_text()),
        [(shard, to)] => format!("shard {shard} to {}", to.sequence_text()),
        moves => format!("{} moves", moves.len()),
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn rows<R: Row>(rows: &[R], format: Format) -> Result<Reply, Error> {
    Ok(Reply::whole(encode_rows(rows, format)?, format.content_type()))
}

/// Few records, encoded at once.
fn encoded(form: Form, columns: &Columns, chunks: &[(usize, Chunk)]) -> Result<Reply, Error> {
    let mut encoder = Encoder::new(form, columns)?;
    for (shard, chunk) in chunks {
        for record in chunk.records() {
            encoder.push(record, *shard)?;
        }
    }
    let mut whole = Vec::new();
    while let Some(piece) = encoder.take() {
        whole.extend_from_slice(&piece);
    }
    let (rest, tail) = encoder.finish()?;
    rest.iter().chain([&tail]).for_each(|piece| whole.extend_from_slice(piece));
    Ok(Reply::whole(whole, form.format().content_type()))
}

/// Sends a batch, or a part of it. The refresh cannot end before the last piece: WAIT VIEW has been
/// issued by then (**held-back-end**).
async fn send_batch(served: Served, form: Form, part: Option<Part>, sender: Sender) {
    let Some(batch) = served.batch.clone() else { return };
    let pieces = match encode_batch(batch, form) {
        Ok(pieces) => pieces,
        Err(error) => {
            tracing::error!("{error}");
            return sender.fail().await;
        }
    };
    let (mut skip, mut left) = part.map_or((0, u64::MAX), |p| (p.first, p.last - p.first + 1));
    let mut pieces = pieces.peekable();
    while let Some(piece) = pieces.next() {
        let Ok(piece) = piece else { return sender.fail().await };
        let start = skip.min(piece.len() as u64);
        let end = (start + left).min(piece.len() as u64);
        (skip, left) = (skip - start, left - (end - start));
        if pieces.peek().is_none() && end == piece.len() as u64 {
            // Before the bytes leave: the refresh may end the moment they arrive.
            if !served.deliver() {
                tracing::warn!(
                    "the end of a batch is not sent: this process was paused, and others may hold its leases"
                );
                return sender.fail().await;
            }
        }
        if !sender.send(piece.slice(start as usize..end as usize)).await || left == 0 {
            return;
        }
    }
}

/// Sends what a bounded read finds, at most `left` records.
async fn send_found(
    mut encoder: Encoder,
    first: Option<(usize, Chunk)>,
    receiver: &mut mpsc::Receiver<crate::read::records::Found>,
    left: &mut usize,
    sender: &Sender,
) -> Result<(), Error> {
    let mut next = first;
    while let Some((shard, chunk)) = next {
        for record in chunk.records().take(*left) {
            encoder.push(record, shard)?;
            while let Some(piece) = encoder.take() {
                if !sender.send(piece).await {
                    return Ok(());
                }
            }
        }
        *left -= chunk.len().min(*left);
        drop(chunk);
        next = if *left == 0 { None } else { receiver.recv().await.transpose()? };
    }
    receiver.close();
    let (rest, tail) = encoder.finish()?;
    for piece in rest.into_iter().chain([tail]) {
        if !sender.send(piece).await {
            return Ok(());
        }
    }
    Ok(())
}
