//! A cable between this machine and a network of a process's own, on which packets can be dropped:
//! a true black hole.
//!
//! Nothing of it outlives the process that holds the network, and nothing else on the machine sees
//! a rule of it.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use super::process::Process;
use super::wait::within;

/// A virtual cable with an address at its far end. For root only.
#[derive(Debug)]
pub struct Cable {
    holder: Process,
    far: Ipv4Addr,
    name: String,
}

impl Cable {
    /// # Errors
    /// Why there can be none here.
    pub fn new() -> Result<Cable, String> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        // Runs beside each other take different networks of the range that is kept for such tests
        // (RFC 2544).
        let third = (std::process::id() % 250) as u8;
        let (near, far) = (
            Ipv4Addr::new(198, 18, third, turn * 4 + 1),
            Ipv4Addr::new(198, 18, third, turn * 4 + 2),
        );
        let name = format!("vis{third}x{turn}");
        if !Command::new("unshare")
            .args(["--net", "true"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
        {
            return Err("nobody may make a network of its own here".to_owned());
        }
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]);
        let holder = Process::start("the holder of a network", &mut command, "KILL");
        let cable = Cable { holder, far, name };
        let own_network = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let here = own_network(std::process::id());
        within(std::time::Duration::from_secs(5), "a network", || {
            own_network(cable.holder.pid()) != here
        });
        let pid = cable.holder.pid().to_string();
        let name = cable.name.as_str();
        let peer = format!("{name}p");
        run(
            "ip",
            &[
                "link", "add", name, "type", "veth", "peer", "name", &peer, "netns", &pid,
            ],
        )?;
        run("ip", &["addr", "add", &format!("{near}/30"), "dev", name])?;
        run("ip", &["link", "set", name, "up"])?;
        cable.inside(&["ip", "addr", "add", &format!("{far}/30"), "dev", &peer])?;
        cable.inside(&["ip", "link", "set", &peer, "up"])?;
        cable.inside(&["ip", "link", "set", "lo", "up"])?;
        // So that a rule can come before the one for local addresses.
        cable.inside(&["ip", "rule", "add", "pref", "10", "lookup", "local"])?;
        cable.inside(&["ip", "rule", "del", "pref", "0"])?;
        Ok(cable)
    }

    /// The address of whatever listens at the far end.
    pub fn far(&self) -> Ipv4Addr {
        self.far
    }

    /// The words to put before a command that is to run at the far end.
    pub fn wrapper(&self) -> Vec<String> {
        ["nsenter", "-t", &self.holder.pid().to_string(), "-n"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Drops every packet that comes to the far end, or lets all pass again.
    pub fn drop_packets(&self, dropping: bool) {
        let peer = format!("{}p", self.name);
        let change = if dropping { "add" } else { "del" };
        self.inside(&["ip", "rule", change, "pref", "5", "iif", &peer, "blackhole"])
            .expect("a rule of the network's own");
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
