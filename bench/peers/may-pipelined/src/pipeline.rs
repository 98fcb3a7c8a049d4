//! One connection on which one constant request after the other is sent without awaiting answers.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::exit;
use std::thread;

use bytes::{Bytes, BytesMut};
use may::sync::mpsc;

/// Where an answer goes.
pub type Waiter = mpsc::Sender<i64>;

/// Takes the next whole answer from what was received.
pub trait Answers: Send + 'static {
    fn next(&mut self, received: &mut BytesMut) -> io::Result<Option<i64>>;
}

/// Asks one connection, which has two threads: with coroutines on a cloned stream, reads now and
/// then failed with ENOTCONN. Whatever goes wrong with it ends the process.
#[derive(Clone)]
pub struct Client(mpsc::Sender<Waiter>);

impl Client {
    pub fn new(stream: TcpStream, request: Bytes, answers: impl Answers) -> io::Result<Client> {
        stream.set_nodelay(true)?;
        let (asked, waiters) = mpsc::channel();
        let (sent, pending) = mpsc::channel();
        let reader = stream.try_clone()?;
        thread::spawn(move || over(send(stream, &request, &waiters, &sent)));
        thread::spawn(move || over(receive(reader, answers, &pending)));
        Ok(Client(asked))
    }

    pub fn ask(&self, waiter: Waiter) {
        self.0
            .send(waiter)
            .expect("the connection ends with the process");
    }
}

fn over(result: io::Result<()>) {
    eprintln!("a store's connection ended: {result:?}");
    exit(1);
}

/// All requests that queued are one write.
fn send(
    mut stream: TcpStream,
    request: &[u8],
    waiters: &mpsc::Receiver<Waiter>,
    sent: &mpsc::Sender<Waiter>,
) -> io::Result<()> {
    let mut requests = Vec::new();
    while let Ok(first) = waiters.recv() {
        requests.clear();
        for waiter in std::iter::once(first).chain(waiters.try_iter()) {
            requests.extend_from_slice(request);
            sent.send(waiter).map_err(io::Error::other)?;
        }
        stream.write_all(&requests)?;
    }
    Ok(())
}

fn receive(
    mut stream: TcpStream,
    mut answers: impl Answers,
    pending: &mpsc::Receiver<Waiter>,
) -> io::Result<()> {
    let mut received = BytesMut::new();
    let mut part = [0; 16384];
    loop {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            length => received.extend_from_slice(&part[..length]),
        }
        while let Some(number) = answers.next(&mut received)? {
            let waiter = pending.recv().map_err(io::Error::other)?;
            // A visitor who left concerns nobody.
            let _ = waiter.send(number);
        }
    }
}
