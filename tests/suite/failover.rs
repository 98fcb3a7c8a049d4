//! Failovers under Patroni: the leader is killed, frozen and cut off while three processes count
//! visits. `scripts/test-failover` runs it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::support::audit::TABLE;
use crate::support::load::Outcomes;
use crate::support::postgres::DEFAULT_NAME;
use crate::support::rows::Rows;
use crate::support::{Clients, Load, Patroni, Settings, Visitas, machine, within};

const PROCESSES: usize = 3;
/// Per process.
const VISITORS: usize = 4;
/// Between two visits of a client.
const PAUSE: Duration = Duration::from_millis(20);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// An answer may be this late, since many programs share the machine.
const LATE_AT_MOST: Duration = Duration::from_secs(3);
/// From a new leader to counted visits in each process: usually a second or two.
const BACK_LIMIT: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(90);

/// What happens to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    /// Until there is another leader.
    Frozen,
    /// From etcd, the other node and visitas.
    CutOff,
    /// From etcd and the other node, but not from visitas.
    CutOffFromPeers,
}

const SYNCHRONOUS: [Fault; 10] = {
    use Fault::{CutOff, CutOffFromPeers, Frozen, Killed};
    [
        Killed,
        Frozen,
        CutOff,
        Killed,
        CutOffFromPeers,
        Frozen,
        Killed,
        CutOffFromPeers,
        Frozen,
        Killed,
    ]
};
const ASYNCHRONOUS: [Fault; 3] = [Fault::Killed, Fault::Frozen, Fault::CutOffFromPeers];

/// One failover.
struct Failover {
    fault: Fault,
    to_leader: Duration,
    /// Until every process counts visits again.
    to_visits: Duration,
    /// Until there is a standby again.
    to_standby: Duration,
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failover {
            fault,
            to_leader,
            to_visits,
            to_standby,
        } = self;
        let [to_leader, to_standby] = [to_leader, to_standby].map(Duration::as_secs_f64);
        write!(
            f,
            "| {fault:?} | {to_leader:.1} s | {} ms | {to_standby:.1} s |",
            to_visits.as_millis()
        )
    }
}

/// Processes over both nodes, each with its own clients.
struct Web {
    processes: Vec<Visitas>,
    loads: Vec<Load>,
}

impl Web {
    fn start(patroni: &Patroni) -> Web {
        let start = |index: usize| {
            let name = format!("web{index}");
            // With one worker no two rows of a process share a moment.
            let settings = Settings::new()
                .set("DATABASE_URL", patroni.url(&name))
                .set("WORKERS", 1);
            settings
                .set("REQUEST_TIMEOUT", format!("{}s", REQUEST_TIMEOUT.as_secs()))
                .start()
        };
        let processes: Vec<Visitas> = (0..PROCESSES).map(start).collect();
        let load = |visitas: &Visitas| {
            Load::of(&Clients {
                ports: vec![visitas.port()],
                count: VISITORS,
                pause: PAUSE,
                keep_counts: true,
            })
        };
        let loads = processes.iter().map(load).collect();
        Web { processes, loads }
    }

    /// Waits until every process counts visits.
    fn wait_for_visits(&self, limit: Duration) {
        let before: Vec<u64> = self.loads.iter().map(Load::ok_so_far).collect();
        within(limit, "visits to go on", || {
            self.loads
                .iter()
                .zip(&before)
                .all(|(load, before)| load.ok_so_far() > before + 5)
        });
    }

    fn stop(self) -> (Vec<Visitas>, Outcomes) {
        let all_outcomes = self.loads.into_iter().map(Load::stop);
        (
            self.processes,
            all_outcomes.fold(Outcomes::default(), Outcomes::merge),
        )
    }
}

/// Breaks the leader, waits for a new leader and visits there, heals the old one, and waits until
/// it is a standby.
fn fail_over(patroni: &Patroni, web: &Web, fault: Fault, synchronous: bool) -> Failover {
    let (leader, standby) = patroni.leader_and_standby();
    web.wait_for_visits(LIMIT);
    let began = Instant::now();
    match fault {
        Fault::Killed => leader.kill(),
        Fault::Frozen => leader.freeze(),
        Fault::CutOff => leader.cut_off(true),
        Fault::CutOffFromPeers => leader.cut_off(false),
    }
    standby.wait_primary();
    let (to_leader, elected) = (began.elapsed(), Instant::now());
    web.wait_for_visits(BACK_LIMIT);
    let to_visits = elected.elapsed();
    match fault {
        Fault::Killed => leader.restart(),
        Fault::Frozen => leader.thaw(),
        Fault::CutOff | Fault::CutOffFromPeers => leader.heal(),
    }
    let healed = Instant::now();
    patroni.wait_whole(synchronous);
    Failover {
        fault,
        to_leader,
        to_visits,
        to_standby: healed.elapsed(),
    }
}

/// The number of lost visits. Checks what holds after every failover: no row twice, and a total
/// equal to the rows.
fn lost(patroni: &Patroni, web: Web) -> u64 {
    let (leader, _) = patroni.leader_and_standby();
    web.wait_for_visits(LIMIT);
    let (processes, outcomes) = web.stop();
    let rows = Rows::of(&mut leader.superuser(DEFAULT_NAME));
    let lost = rows.lost(&outcomes);
    println!(
        "\n200: {}, 503: {}, rows: {}, lost: {lost}, twice: {}, longest wait: {} ms",
        outcomes.ok(),
        outcomes.refused,
        rows.count(),
        rows.twice,
        outcomes.longest.as_millis()
    );
    assert_eq!(rows.twice, 0, "rows are there twice");
    for visitas in &processes {
        assert_eq!(
            visitas.stats().total,
            rows.count(),
            "the total\n{}",
            visitas.output()
        );
    }
    let check = Settings::new()
        .set("DATABASE_URL", patroni.url("check"))
        .argument("check")
        .argument("--count")
        .run();
    assert_eq!(check.code, Some(0), "{check:?}");
    outcomes.only_200_and_503();
    assert!(
        outcomes.longest <= REQUEST_TIMEOUT + LATE_AT_MOST,
        "a visit waited {:?}",
        outcomes.longest
    );
    lost
}

fn start() -> Option<Patroni> {
    let patroni = Patroni::start()?;
    let (leader, _) = patroni.leader_and_standby();
    let table = format!("SET ROLE {}; {TABLE}", crate::support::postgres::USER);
    leader
        .superuser(DEFAULT_NAME)
        .batch_execute(&table)
        .expect("a table of visits");
    println!(
        "| leader | to the next one | then to visits in each process | \
         then to a standby |\n|---|---|---|---|"
    );
    Some(patroni)
}

#[test]
#[ignore = "takes minutes; scripts/test-failover runs it"]
fn a_synchronous_failover_loses_nothing() {
    let _machine = machine();
    let Some(patroni) = start() else { return };
    let web = Web::start(&patroni);
    for fault in SYNCHRONOUS {
        println!("{}", fail_over(&patroni, &web, fault, true));
    }
    let lost = lost(&patroni, web);
    assert_eq!(lost, 0, "answered with 200, and no row");
}

#[test]
#[ignore = "takes minutes; scripts/test-failover runs it"]
fn an_asynchronous_failover_counts_nothing_twice() {
    let _machine = machine();
    let Some(patroni) = start() else { return };
    patroni.nodes[0].patch_configuration(r#"{"synchronous_mode": false}"#);
    let web = Web::start(&patroni);
    for fault in ASYNCHRONOUS {
        println!("{}", fail_over(&patroni, &web, fault, false));
    }
    lost(&patroni, web);
}
