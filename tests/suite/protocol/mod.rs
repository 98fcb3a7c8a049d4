//! A model of the PostgreSQL ledger's commit protocol: every order of events, with every mix of a
//! few faults, is searched.
//!
//! ```text
//!  lane 0 ─┐  request   ┌─ session: key, look, commit ┐       ┌─ kept: confirmed, never lost
//!  lane 1 ─┤ ─────────▶ ├─ session: waits at a key    ├▶ WAL ─┤
//!  others ─┘ ◀───────── └─ ...                        ┘       └─ tail: a standby may lack its end
//!             answer                                             (commits wait, are cancelled, or
//!                                                                are visible)
//! ```
//!
//! **The protocol.** A lane appends a batch under (writer, number) in one transaction. It inserts
//! the log entry, whose key admits no second one. In a later snapshot it looks for the predecessor:
//! number - 1, open, with the total before. Then it inserts the rows. Only a clean commit proves
//! the batch: it was answered, without PostgreSQL's warning about a cancelled wait.
//!
//! After any other result the lane has two ways. It may send the same batch again. Once a duplicate
//! key tells that the batch is there, it sends an empty entry behind it; the clean commit of that
//! entry proves the batch, since it found the batch and waited for the WAL before it. Or it hands
//! over: one transaction closes the old writer at its next number, by the same two steps, carries
//! its total into the changes, and registers a new writer. The number of the closing entry resolves
//! the batch. If it is higher, the batch is there. If not, the batch will never be there and goes
//! out again under the new writer. Without any entry the fate is unknown: 503. Other processes
//! close writers by the same transaction without a new writer.
//!
//! **The model.** Each request is in flight for any time and executes statement by statement. So a
//! lane that is silent, asleep or dead needs no event: it takes no step. Where a lane has a choice,
//! all are tried. A fault is one of these:
//! - a lost connection, whose request may execute hours later (a lock time-out is one of these);
//! - a wait for the standby that is cancelled, or whose session is terminated;
//! - a crash with a restart;
//! - a failover to a standby with any part of the WAL, but at least what it confirmed
//!   (`synchronous`);
//! - an old primary that still answers;
//! - a deadline at which the lane abandons its batch;
//! - another process that closes a writer;
//! - deleted entries: old ones, or all of a closed writer.
//!
//! **What holds in each state.** A batch with a 200 is in every WAL that may survive (asynchronous:
//! was in the WAL). No batch has its rows twice, and the total equals the rows, on the primary and
//! on a standby with any part of its WAL. From each state all batches get resolved without another
//! fault. That no 200 comes after the deadline is up to the lane's clock, which is not modelled.
//!
//! Each rule of `rules.rs` is left out once, and the search finds the shortest way to a violation.
//! `cargo test protocol -- --nocapture` prints these and the number of states.

mod database;
mod explorer;
mod lane;
mod rules;
mod server;
mod session;
mod trace;
mod world;

use explorer::{Outcome, explore};
use rules::{Rule, Setup};

/// One lane with two batches.
fn one_lane(synchronous: bool, faults: u8) -> Setup {
    let lanes = std::iter::once(0..2).collect();
    Setup {
        synchronous,
        lanes,
        registered: true,
        old_primary: true,
        faults,
        left_out: None,
    }
}

/// A lane with two batches and one with one.
fn two_lanes(synchronous: bool, faults: u8) -> Setup {
    Setup {
        lanes: vec![0..2, 2..3],
        ..one_lane(synchronous, faults)
    }
}

/// No state is wrong.
fn holds(setup: &Setup) {
    match explore(setup) {
        Outcome::Holds { states, steps } => {
            let kind = if setup.synchronous {
                "synchronous"
            } else {
                "asynchronous"
            };
            let (lanes, faults) = (setup.lanes.len(), setup.faults);
            println!(
                "{lanes} lanes, {faults} faults, {kind}: {states} states, {steps} steps, all right"
            );
        }
        Outcome::Wrong { what, trace } => panic!("{what}:\n{}", numbered(&trace)),
    }
}

/// Without this rule some state is wrong: `what`.
fn breaks_without(rule: Rule, setup: &Setup, what: &str) {
    let setup = Setup {
        left_out: Some(rule),
        old_primary: false,
        ..setup.clone()
    };
    match explore(&setup) {
        Outcome::Holds { states, .. } => {
            panic!("{states} states, all right: {rule:?} is not needed")
        }
        Outcome::Wrong { what: found, trace } => {
            println!("without {rule:?} {found}:\n{}", numbered(&trace));
            assert!(
                found.contains(what),
                "without {rule:?} {found}, expected: {what}"
            );
        }
    }
}

fn numbered(trace: &[String]) -> String {
    (1..)
        .zip(trace)
        .map(|(number, line)| format!("{number:4}. {line}\n"))
        .collect()
}

#[test]
fn it_holds_with_a_synchronous_standby() {
    holds(&one_lane(true, 3));
}

#[test]
fn it_holds_where_a_failover_may_lose_commits() {
    holds(&one_lane(false, 3));
}

#[test]
fn it_holds_with_two_lanes() {
    holds(&two_lanes(true, 1));
    holds(&two_lanes(false, 1));
}

#[test]
#[ignore = "takes minutes and gigabytes: cargo test --release protocol -- --ignored --nocapture"]
fn it_holds_with_more_faults() {
    holds(&one_lane(true, 4));
    holds(&one_lane(false, 4));
    holds(&two_lanes(true, 2));
    holds(&two_lanes(false, 2));
}

#[test]
fn a_batch_in_doubt_under_another_number_counts_twice() {
    breaks_without(Rule::SameNumber, &one_lane(true, 1), "twice");
}

#[test]
fn an_entry_without_its_predecessor_makes_the_total_wrong() {
    breaks_without(Rule::Predecessor, &one_lane(true, 3), "the total is");
    breaks_without(Rule::Predecessor, &one_lane(false, 1), "the total is");
}

#[test]
fn checking_before_taking_the_key_counts_deleted_entries_again() {
    breaks_without(Rule::KeyFirst, &one_lane(true, 2), "the total is");
}

#[test]
fn a_closing_entry_without_a_second_check_loses_the_total() {
    breaks_without(Rule::ClosingChained, &one_lane(true, 2), "the total is");
}

#[test]
fn a_duplicate_key_taken_for_a_proof_loses_a_200() {
    breaks_without(Rule::SettleDuplicate, &one_lane(true, 2), "can be lost");
}

#[test]
fn a_warning_taken_for_a_proof_loses_a_200() {
    breaks_without(Rule::SettleWarning, &one_lane(true, 1), "can be lost");
    breaks_without(Rule::SettleHandOver, &one_lane(true, 2), "can be lost");
}

#[test]
fn a_hand_over_that_closes_nothing_counts_twice() {
    breaks_without(Rule::Fence, &one_lane(true, 1), "twice");
}

#[test]
fn closing_at_the_number_of_the_batch_leaves_a_hole_for_a_late_one() {
    breaks_without(Rule::NextNumber, &one_lane(false, 2), "the total is");
}

#[test]
fn closing_and_registering_apart_loses_a_200() {
    breaks_without(Rule::OneTransaction, &one_lane(false, 2), "can be lost");
    breaks_without(Rule::OneTransaction, &one_lane(true, 3), "can be lost");
}

#[test]
fn a_closed_writer_s_total_is_lost_unless_it_is_carried() {
    breaks_without(Rule::CarryTotal, &one_lane(true, 1), "the total is");
}

#[test]
fn a_batch_of_unknown_fate_sent_again_counts_twice() {
    breaks_without(Rule::UnknownIsRefused, &one_lane(false, 2), "twice");
    breaks_without(Rule::UnknownIsRefused, &one_lane(true, 3), "twice");
}

#[test]
fn a_writer_registered_twice_comes_back_from_the_dead() {
    let setup = Setup {
        registered: false,
        ..one_lane(true, 3)
    };
    breaks_without(Rule::RegisterOnce, &setup, "the total is");
}

#[test]
fn the_number_of_an_abandoned_batch_answers_for_the_next() {
    breaks_without(Rule::FreshNumber, &one_lane(true, 1), "can be lost");
}
