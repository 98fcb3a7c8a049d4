//! Encrypts a session, as far as its address asks for it.
//!
//! libpq's `allow` and `prefer` may take two connections, one with TLS and one without, which the
//! library does not know. So it is told to require TLS without negotiation, and the connector
//! below, which it then calls first of all, negotiates itself, or leaves the connection plain.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Config, Socket};
use tokio_rustls::{TlsConnector, client};

use super::address::{Address, Encryption};
use super::session::STEP_TIMEOUT;
use crate::visits::tls::{Client, Refusal, Tls, end_point};

/// What a client sends to ask for TLS (PostgreSQL manual, "Message Formats": SSLRequest).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Time for a handshake: a little less than for the whole step of which it is a part, so that the
/// error tells where it ended.
const HANDSHAKE_TIMEOUT: Duration = STEP_TIMEOUT.saturating_sub(Duration::from_millis(500));
/// The protocol's name in a handshake (RFC 7301; PostgreSQL manual, "Protocol Flow": "SSL Session
/// Encryption").
const PROTOCOL: &[u8] = b"postgresql";

/// Makes one connection: plain, or with TLS.
#[derive(Debug, Clone)]
pub(super) struct Connector(Option<Arc<Wanted>>);

#[derive(Debug)]
pub(super) struct Wanted {
    client: Client,
    direct: bool,
    /// A server without TLS is taken as it is.
    optional: bool,
    /// Protocol, cipher and what was verified; `None` where the server offered no TLS. Once, since
    /// a connector is for one connection.
    found: OnceLock<Option<String>>,
}

/// The kinds of connection to try, in turn: the second one where the server, or the handshake,
/// refuses the first. Reads the files.
///
/// # Errors
/// A sentence that names the file which cannot be used.
pub(super) fn connectors(address: &Address, host: &str) -> Result<Vec<Connector>, Refusal> {
    let with = |tls: &Tls, optional| {
        let client = Client::new(tls, host, &[PROTOCOL])?;
        Ok(encrypted(client, address.direct, optional))
    };
    Ok(match &address.encryption {
        Encryption::Never => vec![plain()],
        Encryption::IfAsked(tls) => vec![plain(), with(tls, false)?],
        Encryption::IfOffered(tls) => vec![with(tls, true)?, plain()],
        Encryption::Always(tls) => vec![with(tls, false)?],
    })
}

fn encrypted(client: Client, direct: bool, optional: bool) -> Connector {
    Connector(Some(Arc::new(Wanted {
        client,
        direct,
        optional,
        found: OnceLock::new(),
    })))
}

/// The kind without TLS.
pub(super) fn plain() -> Connector {
    Connector(None)
}

/// The kind for a connection beside one that `connector` made: with TLS alone where that has TLS,
/// whatever the server then says. Reads the files.
///
/// # Errors
/// A sentence that names the file which cannot be used.
pub(super) fn as_encrypted(connector: &Connector) -> Result<Connector, Refusal> {
    match &connector.0 {
        Some(wanted) if !was_declined(connector) => {
            let client = wanted.client.anew(&[PROTOCOL])?;
            Ok(encrypted(client, wanted.direct, false))
        }
        _ => Ok(plain()),
    }
}

/// Has the library call a connector for each session over TCP.
pub(super) fn prepare(config: &mut Config) {
    config
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
}

/// Protocol, cipher and what was verified; `None` where the connection is plain.
pub(super) fn found(connector: &Connector) -> Option<&str> {
    connector.0.as_ref()?.found.get()?.as_deref()
}

/// Whether the server offered no TLS, and was taken as it is.
pub(super) fn was_declined(connector: &Connector) -> bool {
    let wanted = connector.0.as_ref();
    wanted.is_some_and(|wanted| wanted.found.get() == Some(&None))
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Stream<Socket>;
    type TlsConnect = Connector;
    type Error = Refusal;

    fn make_tls_connect(&mut self, _: &str) -> Result<Connector, Refusal> {
        Ok(self.clone())
    }
}

impl<S> TlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type Error = Refusal;
    type Future = Pin<Box<dyn Future<Output = Result<Stream<S>, Refusal>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            match self.0 {
                None => Ok(Stream::Plain(stream)),
                Some(wanted) => {
                    let late = wanted.client.late(HANDSHAKE_TIMEOUT);
                    tokio::time::timeout(HANDSHAKE_TIMEOUT, wanted.connect(stream))
                        .await
                        .unwrap_or(Err(late))
                }
            }
        })
    }
}

impl Wanted {
    async fn connect<S>(self: Arc<Self>, mut stream: S) -> Result<Stream<S>, Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let client = &self.client;
        if !self.direct {
            let broken = |error| client.refusal(&error);
            stream.write_all(&SSL_REQUEST).await.map_err(broken)?;
            let answer = stream.read_u8().await.map_err(broken)?;
            match answer {
                b'S' => {}
                b'N' if self.optional => {
                    let _ = self.found.set(None);
                    return Ok(Stream::Plain(stream));
                }
                _ => return Err(client.not_offered()),
            }
        }
        let connector = TlsConnector::from(Arc::clone(&client.config));
        let connected = connector.connect(client.name.clone(), stream).await;
        let stream = connected.map_err(|error| client.refusal(&error))?;
        let (_, connection) = stream.get_ref();
        if self.direct && connection.alpn_protocol() != Some(PROTOCOL) {
            return Err(Refusal(
                "what answers the TLS of sslnegotiation=direct is no PostgreSQL".to_owned(),
            ));
        }
        let _ = self.found.set(Some(client.describe(connection)));
        Ok(Stream::Tls(Box::new(stream), self))
    }
}

impl Wanted {
    /// The error in a sentence: with TLS 1.3 a server refuses the client's certificate after the
    /// handshake, and whichever of reading and writing comes first finds it.
    fn told<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        result.map_err(|error| match self.client.explain(&error) {
            Some(refusal) => io::Error::other(refusal),
            None => error,
        })
    }
}

/// A connection that may be encrypted.
pub(super) enum Stream<S> {
    Plain(S),
    Tls(Box<client::TlsStream<S>>, Arc<Wanted>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let Stream::Tls(stream, _) = self else {
            return ChannelBinding::none();
        };
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        certificate
            .and_then(end_point)
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream, wanted) => wanted.told(Pin::new(stream).poll_read(context, buffer)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream, wanted) => wanted.told(Pin::new(stream).poll_write(context, bytes)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream, wanted) => wanted.told(Pin::new(stream).poll_flush(context)),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream, wanted) => wanted.told(Pin::new(stream).poll_shutdown(context)),
        }
    }
}
