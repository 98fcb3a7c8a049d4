//! Breadth-first search through all states of a model. It finds the shortest way to a wrong state,
//! and stuck states.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::{BuildHasherDefault, Hash, Hasher};

pub(super) trait Model {
    type State: Clone + Eq + Hash;
    type Step: Display;

    fn start(&self) -> Self::State;
    /// Every step that can be taken from a state, with the state after it.
    fn steps(&self, state: &Self::State) -> Vec<(Self::Step, Self::State)>;
    /// The invariant that the state breaks.
    fn wrong(&self, state: &Self::State) -> Option<String>;
    /// Whether this is a state that every state must be able to reach...
    fn resolved(&self, state: &Self::State) -> bool;
    /// ... without steps of this kind.
    fn is_fault(&self, step: &Self::Step) -> bool;
}

pub(super) enum Outcome {
    Holds {
        states: usize,
        steps: usize,
    },
    /// What is wrong, and the shortest way there, a line a step.
    Wrong {
        what: String,
        trace: Vec<String>,
    },
}

/// Visits every state, in order of steps.
pub(super) fn explore<M: Model>(model: &M) -> Outcome {
    let mut search = Search {
        numbers: HashMap::default(),
        states: Vec::new(),
        parents: Vec::new(),
    };
    // (from, to) of the steps that are no faults.
    let mut quiet = Vec::new();
    let mut steps = 0;
    search.add(model.start(), 0);
    let mut next = 0;
    while next < search.states.len() {
        let state = search.states[next].clone();
        if let Some(what) = model.wrong(&state) {
            return Outcome::Wrong {
                what,
                trace: search.trace(model, next),
            };
        }
        for (step, after) in model.steps(&state) {
            let to = search.add(after, next);
            steps += 1;
            if !model.is_fault(&step) {
                quiet.push((next as u32, to as u32));
            }
        }
        next += 1;
    }
    match first_stuck(model, &search.states, &quiet) {
        Some(stuck) => Outcome::Wrong {
            what: "stuck".to_owned(),
            trace: search.trace(model, stuck),
        },
        None => Outcome::Holds {
            states: search.states.len(),
            steps,
        },
    }
}

struct Search<S> {
    numbers: HashMap<S, usize, BuildHasherDefault<Mix>>,
    states: Vec<S>,
    parents: Vec<usize>,
}

impl<S: Clone + Eq + Hash> Search<S> {
    /// The state's number. A new state is stored with its parent.
    fn add(&mut self, state: S, parent: usize) -> usize {
        if let Some(number) = self.numbers.get(&state) {
            return *number;
        }
        let number = self.states.len();
        self.states.push(state.clone());
        self.parents.push(parent);
        self.numbers.insert(state, number);
        number
    }

    fn trace<M: Model<State = S>>(&self, model: &M, mut number: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while number != 0 {
            let parent = self.parents[number];
            let taken = model
                .steps(&self.states[parent])
                .into_iter()
                .find(|(_, after)| *after == self.states[number]);
            lines.extend(taken.map(|(step, _)| step.to_string()));
            number = parent;
        }
        lines.reverse();
        lines
    }
}

/// The first state from which no sequence of the given steps leads to a resolved one.
fn first_stuck<M: Model>(model: &M, states: &[M::State], steps: &[(u32, u32)]) -> Option<usize> {
    let mut sources = vec![Vec::new(); states.len()];
    for (from, to) in steps {
        sources[*to as usize].push(*from);
    }
    let mut good: Vec<bool> = states.iter().map(|state| model.resolved(state)).collect();
    let mut open: Vec<usize> = (0..states.len()).filter(|&number| good[number]).collect();
    while let Some(number) = open.pop() {
        for &source in &sources[number] {
            if !good[source as usize] {
                good[source as usize] = true;
                open.push(source as usize);
            }
        }
    }
    good.iter().position(|good| !good)
}

/// A fast hash: nobody chooses states that collide.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}
