//! A veth pair between this machine and a network namespace, where packets can be dropped: a true
//! black hole.
//!
//! It ends with the process that holds the namespace. Its rules affect nothing else.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use super::process::Process;
use super::wait::{LIMIT, within};

/// A veth pair with an address at its far end. For root only.
#[derive(Debug)]
pub struct VethPair {
    holder: Process,
    far: Ipv4Addr,
    name: String,
}

impl VethPair {
    /// # Errors
    /// Why it cannot be made here.
    pub fn new() -> Result<VethPair, String> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let index = NEXT.fetch_add(1, Ordering::Relaxed);
        // Parallel runs use different networks of the range for such tests (RFC 2544).
        let third = (std::process::id() % 250) as u8;
        let (near, far) = (
            Ipv4Addr::new(198, 18, third, index * 4 + 1),
            Ipv4Addr::new(198, 18, third, index * 4 + 2),
        );
        let name = format!("vis{third}x{index}");
        if !Command::new("unshare")
            .args(["--net", "true"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
        {
            return Err("no network namespace can be made".to_owned());
        }
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]);
        let holder = Process::start("the holder of a network namespace", &mut command, "KILL");
        let veth = VethPair { holder, far, name };
        let own_network = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let here = own_network(std::process::id());
        within(LIMIT, "a network namespace", || {
            own_network(veth.holder.pid()) != here
        });
        let pid = veth.holder.pid().to_string();
        let name = veth.name.as_str();
        let peer = format!("{name}p");
        run(
            "ip",
            &[
                "link", "add", name, "type", "veth", "peer", "name", &peer, "netns", &pid,
            ],
        )?;
        run("ip", &["addr", "add", &format!("{near}/30"), "dev", name])?;
        run("ip", &["link", "set", name, "up"])?;
        veth.inside(&["ip", "addr", "add", &format!("{far}/30"), "dev", &peer])?;
        veth.inside(&["ip", "link", "set", &peer, "up"])?;
        veth.inside(&["ip", "link", "set", "lo", "up"])?;
        // So that a rule can come before the rule for local addresses.
        veth.inside(&["ip", "rule", "add", "pref", "10", "lookup", "local"])?;
        veth.inside(&["ip", "rule", "del", "pref", "0"])?;
        Ok(veth)
    }

    /// The address at the far end.
    pub fn far(&self) -> Ipv4Addr {
        self.far
    }

    /// The start of a command line that runs a program at the far end.
    pub fn wrapper(&self) -> Vec<String> {
        ["nsenter", "-t", &self.holder.pid().to_string(), "-n"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Drops every packet to the far end, or lets all pass again.
    pub fn drop_packets(&self, dropping: bool) {
        let peer = format!("{}p", self.name);
        let change = if dropping { "add" } else { "del" };
        self.inside(&["ip", "rule", change, "pref", "5", "iif", &peer, "blackhole"])
            .expect("a rule in the namespace");
    }

    fn inside(&self, words: &[&str]) -> Result<(), String> {
        let wrapper = self.wrapper();
        let all: Vec<&str> = wrapper
            .iter()
            .map(String::as_str)
            .chain(words.iter().copied())
            .collect();
        run(all[0], &all[1..])
    }
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    match Command::new(program).args(words).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{program} {words:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
