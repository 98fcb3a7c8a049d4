//! The rate limit on visits: a token bucket per address, in a table of fixed size.
//!
//! A bucket is one number, the time when it will be full again (the generic cell rate algorithm,
//! ITU-T I.371). A visit moves that time on by one token, and is refused where it would move more
//! than a whole bucket ahead.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Buckets that share a lock.
const WAYS: usize = 16;
/// Sets of buckets, a power of two: 65,536 buckets in all, 1 MB.
const SETS: usize = 4096;
/// The coarse clock counts milliseconds, a bucket microseconds: a token may take less than 1 ms.
const MICROSECONDS: u64 = 1000;

#[derive(Debug)]
pub(super) struct RateLimit {
    /// Microseconds that one token takes to fill.
    token: u64,
    /// Microseconds that a whole bucket takes to fill.
    whole: u64,
    sets: Box<[Mutex<[Bucket; WAYS]>]>,
    /// Hides which addresses share a set.
    secret: RandomState,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// A hash of the address. Two addresses hardly ever share one of 64 bits.
    who: u64,
    /// When it is full again. A full bucket is as good as none.
    full_at: u64,
}

impl RateLimit {
    /// Lets an address make `visits` visits in `time`.
    pub(super) fn new(visits: u32, time: Duration) -> RateLimit {
        let whole = u64::try_from(time.as_micros())
            .unwrap_or(u64::MAX / 4)
            .max(1);
        let sets = (0..SETS).map(|_| Mutex::default()).collect();
        RateLimit {
            token: (whole / u64::from(visits)).max(1),
            whole,
            sets,
            secret: RandomState::new(),
        }
    }

    /// Takes a token for a visit by that address.
    ///
    /// # Errors
    /// The time until there is one.
    pub(super) fn take(&self, address: IpAddr, now_ms: u64) -> Result<(), Duration> {
        let who = self.secret.hash_one(share(address));
        let now = now_ms * MICROSECONDS;
        let mut set = self.sets[who as usize % SETS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = set.iter().position(|bucket| bucket.who == who);
        // In a full set the fullest bucket goes: its loss lets the fewest visits through.
        let fullest = || {
            set.iter()
                .enumerate()
                .min_by_key(|(_, bucket)| bucket.full_at)
                .map_or(0, |(index, _)| index)
        };
        let index = known.unwrap_or_else(fullest);
        let full_at = known.map_or(now, |index| set[index].full_at.max(now)) + self.token;
        if full_at > now + self.whole {
            return Err(Duration::from_micros(full_at - now - self.whole));
        }
        set[index] = Bucket { who, full_at };
        Ok(())
    }
}

/// What shares a bucket: an IPv6 client chooses its address from a whole /64 (RFC 7421).
fn share(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // Above every IPv4 address.
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[test]
    fn a_bucket_empties_at_once_and_fills_with_time() {
        let limit = RateLimit::new(60, Duration::from_secs(60));
        for _ in 0..60 {
            assert_eq!(limit.take(v4(1), 5000), Ok(()));
        }
        assert_eq!(limit.take(v4(1), 5000), Err(Duration::from_secs(1)));
        assert_eq!(limit.take(v4(2), 5000), Ok(()), "another address");
        assert_eq!(limit.take(v4(1), 5500), Err(Duration::from_millis(500)));
        assert_eq!(limit.take(v4(1), 6000), Ok(()));
        assert!(limit.take(v4(1), 6000).is_err());
        for _ in 0..60 {
            assert_eq!(
                limit.take(v4(1), 70_000),
                Ok(()),
                "full again, and no fuller"
            );
        }
        assert!(limit.take(v4(1), 70_000).is_err());
    }

    #[test]
    fn a_network_of_ipv6_shares_a_bucket() {
        let limit = RateLimit::new(2, Duration::from_secs(60));
        let v6 = |network: u128, host: u128| {
            IpAddr::from(Ipv6Addr::from(0x2001_0db8 << 96 | network << 64 | host))
        };
        assert_eq!(limit.take(v6(1, 1), 1), Ok(()));
        assert_eq!(limit.take(v6(1, 2), 1), Ok(()));
        assert!(limit.take(v6(1, 3), 1).is_err());
        assert_eq!(limit.take(v6(2, 3), 1), Ok(()));
    }

    #[test]
    fn many_addresses_take_no_more_room_and_leave_an_empty_bucket_empty() {
        let limit = RateLimit::new(10, Duration::from_secs(3600));
        for _ in 0..10 {
            assert_eq!(limit.take(v4(0), 1), Ok(()));
        }
        for number in 1..200_000 {
            assert_eq!(limit.take(v4(number), 1), Ok(()));
        }
        assert!(
            limit.take(v4(0), 1).is_err(),
            "it was not pushed out by those that made one visit"
        );
    }
}
