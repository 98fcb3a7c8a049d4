//! Networks of addresses, as `TRUSTED_PROXIES` has them.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A few networks, each an address and how many of its first bits count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    /// IPv4 is mapped into IPv6 (RFC 4291, section 2.5.5.2).
    bits: u128,
    length: u32,
}

impl Networks {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contain(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.0
            .iter()
            .any(|network| (bits ^ network.bits) & mask(network.length) == 0)
    }
}

/// `10.0.0.0/8, 192.168.1.7 fd00::/8`
impl FromStr for Networks {
    type Err = ();

    fn from_str(text: &str) -> Result<Networks, ()> {
        let words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        words
            .map(str::parse)
            .collect::<Result<Vec<Network>, ()>>()
            .map(Networks)
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, length) = text
            .split_once('/')
            .map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().map_err(|_| ())?
            }
            Some(_) => return Err(()),
            None => longest,
        };
        if length > longest {
            return Err(());
        }
        Ok(Network {
            bits: bits(address),
            length: 128 - longest + length,
        })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => Ipv6Addr::to_bits(address),
    }
}

fn mask(length: u32) -> u128 {
    u128::MAX.checked_shl(128 - length).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_the_networks_they_begin_with() {
        let networks: Networks = "10.0.0.0/8, 192.168.1.7 fd00::/8,2001:db8::1"
            .parse()
            .unwrap_or_default();
        for inside in [
            "10.1.2.3",
            "192.168.1.7",
            "::ffff:10.9.9.9",
            "fdff::1",
            "2001:db8::1",
        ] {
            assert!(
                inside
                    .parse()
                    .is_ok_and(|address| networks.contain(address)),
                "{inside}"
            );
        }
        for outside in [
            "11.0.0.1",
            "192.168.1.8",
            "fe00::1",
            "2001:db8::2",
            "::10.1.2.3",
            "::1",
        ] {
            assert!(
                outside
                    .parse()
                    .is_ok_and(|address| !networks.contain(address)),
                "{outside}"
            );
        }
        let all: Networks = "0.0.0.0/0".parse().unwrap_or_default();
        assert!("1.2.3.4".parse().is_ok_and(|address| all.contain(address)));
        assert!("2001::".parse().is_ok_and(|address| !all.contain(address)));
        let every: Networks = "::/0".parse().unwrap_or_default();
        assert!(
            "1.2.3.4"
                .parse()
                .is_ok_and(|address| every.contain(address))
        );
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in [
            "proxy",
            "10.0.0.0/33",
            "10.0.0/8",
            "::1/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "*",
        ] {
            assert_eq!(wrong.parse::<Networks>(), Err(()), "{wrong}");
        }
    }
}
