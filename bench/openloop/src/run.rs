//! Carries a plan out, on one thread.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::timeout;

use crate::client::Connection;
use crate::pace::{Pace, now_ns};
use crate::report::{Ending, Report, note};
use crate::wire::invoke_request;
use crate::{Arrival, Plan, PlanError, Schedule};

const CONNECT: Duration = Duration::from_secs(5);
const CONNECT_LOOK: Duration = Duration::from_millis(2);
/// Between the last look at the clock and the first arrival.
const HEAD_NS: u64 = 5_000_000;
/// An answer may be on its way when the server's deadline has passed.
const GRACE: Duration = Duration::from_millis(500);
/// Arrivals that are sent one after the other before answers are looked at.
const CROWD: u32 = 16;

/// A plan that can be run once, stopped, and watched from another thread.
#[derive(Debug)]
pub struct Load {
    plan: Plan,
    stopped: AtomicBool,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    fn ended(&self, ending: &Ending) {
        match ending {
            Ending::Ok(_) => &self.succeeded,
            Ending::Failed(_) => &self.failed,
        }
        .fetch_add(1, Relaxed);
    }
}

/// What all the requests of a run share.
struct Shared {
    report: RefCell<Report>,
    bodies: Vec<Bytes>,
    connections: Vec<Vec<Rc<Connection>>>,
    under_way: RefCell<usize>,
    ended: Notify,
}

impl Load {
    /// Refuses a plan that makes no sense.
    pub fn new(plan: Plan) -> Result<Self, PlanError> {
        plan.check()?;
        Ok(Self {
            plan,
            stopped: AtomicBool::new(false),
            counts: Arc::default(),
        })
    }

    /// No more requests arrive.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Requests that arrived, succeeded, and failed, up to now.
    pub fn progress(&self) -> (u64, u64, u64) {
        let counts = &self.counts;
        let each = [&counts.sent, &counts.succeeded, &counts.failed];
        each.map(|count| count.load(Relaxed)).into()
    }

    /// Sends all requests and waits for all answers. An error if no front door can be reached.
    pub fn run(&self) -> io::Result<Report> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(LocalSet::new().run_until(self.drive()))
    }

    async fn drive(&self) -> io::Result<Report> {
        let plan = &self.plan;
        let connections: Vec<Vec<_>> = plan
            .endpoints
            .iter()
            .map(|address| {
                (0..plan.connections)
                    .map(|_| Connection::new(*address))
                    .collect()
            })
            .collect();
        for connection in connections.iter().flatten() {
            spawn_local(connection.clone().keep());
        }
        self.until_open(&connections).await?;
        let began_ns = now_ns() + HEAD_NS;
        let bucket_ns = nanos(plan.bucket);
        let names = plan.targets.iter().map(|target| target.action.clone());
        let shared = Rc::new(Shared {
            report: RefCell::new(Report::new(began_ns, bucket_ns, names)),
            bodies: plan
                .targets
                .iter()
                .map(|target| invoke_request(&target.action, &target.payload))
                .collect(),
            connections,
            under_way: RefCell::new(0),
            ended: Notify::new(),
        });
        self.send_all(&shared, began_ns).await?;
        while *shared.under_way.borrow() > 0 {
            shared.ended.notified().await;
        }
        Ok(shared.report.borrow().clone())
    }

    async fn until_open(&self, connections: &[Vec<Rc<Connection>>]) -> io::Result<()> {
        let all_open = async {
            while !connections
                .iter()
                .flatten()
                .all(|connection| connection.is_open())
            {
                tokio::time::sleep(CONNECT_LOOK).await;
            }
        };
        if timeout(CONNECT, all_open).await.is_ok() {
            return Ok(());
        }
        let closed = connections
            .iter()
            .zip(&self.plan.endpoints)
            .filter(|(all, _)| !all.iter().all(|connection| connection.is_open()));
        let names: Vec<String> = closed.map(|(_, address)| address.to_string()).collect();
        let message = format!("no front door answers at {}", names.join(", "));
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, message))
    }

    async fn send_all(&self, shared: &Rc<Shared>, began_ns: u64) -> io::Result<()> {
        let (pace, mut crowd, mut turn) = (Pace::new()?, 0, 0usize);
        for arrival in Schedule::new(&self.plan) {
            let at_ns = began_ns + nanos(arrival.at);
            if now_ns() < at_ns {
                pace.until(at_ns).await?;
                crowd = 0;
            } else {
                crowd += 1;
                if crowd % CROWD == 0 {
                    yield_now().await;
                }
            }
            if self.stopped.load(Relaxed) {
                break;
            }
            turn += 1;
            self.send(shared, arrival, at_ns, turn);
        }
        Ok(())
    }

    fn send(&self, shared: &Rc<Shared>, arrival: Arrival, at_ns: u64, turn: usize) {
        self.counts.sent.fetch_add(1, Relaxed);
        let mut report = shared.report.borrow_mut();
        report.arrived(arrival.target, at_ns);
        let sent_ns = now_ns();
        note(&mut report.lag, sent_ns.saturating_sub(at_ns));
        let late_ns = nanos(self.plan.late);
        if *shared.under_way.borrow() >= self.plan.outstanding_max {
            let ending = Ending::Failed("not sent".to_owned());
            self.counts.ended(&ending);
            report.ended(arrival.target, at_ns, sent_ns, late_ns, &ending);
            return;
        }
        drop(report);
        *shared.under_way.borrow_mut() += 1;
        let (shared, counts) = (shared.clone(), self.counts.clone());
        let connections = &shared.connections[arrival.endpoint];
        let connection = connections[turn % connections.len()].clone();
        let left = self
            .plan
            .deadline
            .saturating_sub(Duration::from_nanos(sent_ns.saturating_sub(at_ns)));
        let body = shared.bodies[arrival.target].clone();
        spawn_local(async move {
            let call = timeout(left + GRACE, connection.invoke(body, left));
            let ending = call
                .await
                .unwrap_or_else(|_| Ending::Failed("no answer".to_owned()));
            counts.ended(&ending);
            let mut report = shared.report.borrow_mut();
            report.ended(arrival.target, at_ns, now_ns(), late_ns, &ending);
            drop(report);
            *shared.under_way.borrow_mut() -= 1;
            shared.ended.notify_one();
        });
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a plan of less than 584 years")
}
