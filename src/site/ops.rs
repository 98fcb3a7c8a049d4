//! Health and metrics on a port of their own, where `OPS_PORT` is set.

use std::net::IpAddr;
use std::sync::Arc;

use super::routes::{self, Task};
use super::{Site, Waiting};
use crate::http::{Answer, Kind, Request, Service};

/// What the site tells those who run it, and nothing else.
#[derive(Debug)]
pub struct Ops(pub Arc<Site>);

impl Service for Ops {
    type Session = Waiting;
    type Task = Task;

    fn session(&self, worker: usize) -> Waiting {
        self.0.session(worker)
    }

    fn plan(&self, request: &Request<'_>, client: IpAddr) -> Task {
        if routes::is_ops(request.path()) {
            routes::plan(request, client)
        } else {
            routes::nothing()
        }
    }

    fn kind(&self, task: &Task) -> Kind {
        self.0.kind(task)
    }

    fn waits(&self, task: &Task) -> bool {
        self.0.waits(task)
    }

    fn perform(&self, session: &mut Waiting, task: Task, answer: Answer<'_>) {
        self.0.perform(session, task, answer);
    }
}
