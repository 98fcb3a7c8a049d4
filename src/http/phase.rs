//! What a connection is doing, and which connections go first when others need room.

/// What a connection is doing, and so what its deadline means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for a request to begin.
    Idle = 0,
    /// Waits for the rest of a request.
    Reading = 1,
    /// Is being served: the service bounds that wait.
    Serving = 2,
    /// Waits for the client to take an answer, or to close.
    Writing = 3,
    /// Follows a feed.
    Following = 4,
}

impl Phase {
    /// Each at its own number.
    pub(super) const ALL: [Phase; 5] = [
        Phase::Idle,
        Phase::Reading,
        Phase::Serving,
        Phase::Writing,
        Phase::Following,
    ];
}

/// Why connections are evicted. Among those of one phase the oldest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortage {
    /// Of connections, descriptors or mappings: those that do nothing go first.
    Connections,
    /// Of memory: those that hold some for an unfinished request go first.
    Memory,
}

impl Shortage {
    /// The rank at which a connection in that phase goes, the lowest first; `None`: never.
    pub(super) fn rank(self, phase: Phase) -> Option<u8> {
        let order = match self {
            Shortage::Connections => [
                Phase::Idle,
                Phase::Following,
                Phase::Reading,
                Phase::Writing,
            ],
            Shortage::Memory => [
                Phase::Reading,
                Phase::Idle,
                Phase::Following,
                Phase::Writing,
            ],
        };
        order
            .iter()
            .position(|one| *one == phase)
            .map(|rank| rank as u8)
    }
}
