//! Health and metrics on a port of their own, where `OPS_PORT` is set.

use std::net::IpAddr;
use std::sync::Arc;

use super::routes::Task;
use super::{Session, Site};
use crate::http::{Answer, Answered, Plan, Request, Service};

/// The part of the site for those who operate it.
#[derive(Debug)]
pub struct Ops(pub Arc<Site>);

impl Service for Ops {
    type Session = Session;
    type Task = Task;

    fn session(&self, worker: usize) -> Session {
        self.0.session(worker)
    }

    fn plan(&self, request: &Request<'_>, client: IpAddr) -> Plan<Task> {
        self.0.routes.ops_task(request, client).plan()
    }

    fn perform(&self, session: &mut Session, task: Task, answer: Answer<'_>) -> Answered {
        self.0.perform(session, task, answer)
    }
}
