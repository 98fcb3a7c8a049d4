//! Logs in at a server (PostgreSQL manual, "Start-up", "SASL Authentication").

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use super::address::{Address, ChannelBinding};
use super::client::{Client, server_error};
use super::failure::{Failure, ServerError};
use crate::visits::tls::Refusal;

/// Logs in within the client's limit.
pub(super) fn log_in(client: &mut Client, address: &Address) -> Result<(), Failure> {
    let user = address.user.as_str();
    let mut parameters = vec![
        ("client_encoding", "UTF8"),
        ("user", user),
        ("database", address.database.as_deref().unwrap_or(user)),
        ("application_name", &address.application_name),
    ];
    if let Some(options) = &address.options {
        parameters.push(("options", options));
    }
    client.write(|to| frontend::startup_message(parameters, to))?;
    authenticate(client, address)?;
    let mut process = (0, 0);
    loop {
        match client.next_message()? {
            Message::BackendKeyData(body) => process = (body.process_id(), body.secret_key()),
            Message::ReadyForQuery(_) => break,
            other => return Err(unexpected(other)),
        }
    }
    client.logged_in(process);
    Ok(())
}

fn authenticate(client: &mut Client, address: &Address) -> Result<(), Failure> {
    let bound = match client.next_message()? {
        Message::AuthenticationOk => return unbound(address),
        Message::AuthenticationCleartextPassword => {
            unbound(address)?;
            let password = password(address)?;
            client.write(|to| frontend::password_message(password, to))?;
            false
        }
        Message::AuthenticationMd5Password(body) => {
            unbound(address)?;
            let hash = md5_hash(address.user.as_bytes(), password(address)?, body.salt());
            client.write(|to| frontend::password_message(hash.as_bytes(), to))?;
            false
        }
        Message::AuthenticationSasl(body) => scram(client, address, &body)?,
        Message::AuthenticationGss
        | Message::AuthenticationKerberosV5
        | Message::AuthenticationScmCredential
        | Message::AuthenticationSspi => {
            return Err(Failure::Login(
                "the server asks for another proof than a password".to_owned(),
            ));
        }
        other => return Err(unexpected(other)),
    };
    match client.next_message()? {
        Message::AuthenticationOk if bound => Ok(()),
        Message::AuthenticationOk => unbound(address),
        other => Err(unexpected(other)),
    }
}

fn password(address: &Address) -> Result<&[u8], Failure> {
    match &address.password {
        Some(password) => Ok(password.0.as_bytes()),
        None => Err(Failure::Login(
            "the server asks for a password, and none is set".to_owned(),
        )),
    }
}

/// A login without channel binding, which may not be enough.
fn unbound(address: &Address) -> Result<(), Failure> {
    match address.channel_binding {
        ChannelBinding::Require => Err(Failure::Encryption(Refusal(
            "the server logs in without channel binding, which channel_binding=require asks for"
                .to_owned(),
        ))),
        ChannelBinding::Disable | ChannelBinding::Prefer => Ok(()),
    }
}

/// Proves the password, and has the server prove that it knows it; says whether both proofs are
/// bound to this connection (RFC 5802, RFC 5929 section 4).
fn scram(
    client: &mut Client,
    address: &Address,
    body: &AuthenticationSaslBody,
) -> Result<bool, Failure> {
    let offered = |name: &str| {
        body.mechanisms()
            .any(|found| Ok(found == name))
            .unwrap_or(false)
    };
    let end_point = match address.channel_binding {
        ChannelBinding::Disable => None,
        ChannelBinding::Prefer | ChannelBinding::Require => client.wire().end_point(),
    };
    let (mechanism, binding) = match end_point {
        Some(end_point) if offered(SCRAM_SHA_256_PLUS) => {
            let binding = sasl::ChannelBinding::tls_server_end_point(end_point);
            (SCRAM_SHA_256_PLUS, binding)
        }
        // Told to the server, which refuses where it did offer it: somebody stands between.
        Some(_) => (SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
        None => (SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
    };
    let bound = mechanism == SCRAM_SHA_256_PLUS;
    if !bound {
        unbound(address)?;
    }
    if !offered(mechanism) {
        return Err(Failure::Login(
            "the server offers no SCRAM-SHA-256".to_owned(),
        ));
    }
    let refused = |error: std::io::Error| Failure::Login(error.to_string());
    let mut scram = ScramSha256::new(password(address)?, binding);
    client.write(|to| frontend::sasl_initial_response(mechanism, scram.message(), to))?;
    match client.next_message()? {
        Message::AuthenticationSaslContinue(body) => scram.update(body.data()).map_err(refused)?,
        other => return Err(unexpected(other)),
    }
    client.write(|to| frontend::sasl_response(scram.message(), to))?;
    match client.next_message()? {
        Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(refused)?,
        other => return Err(unexpected(other)),
    }
    Ok(bound)
}

/// An error of the server, or what does not belong here.
fn unexpected(message: Message) -> Failure {
    match message {
        Message::ErrorResponse(body) => server_error(ServerError::read(body.fields())),
        _ => Failure::Protocol("a message that does not belong into a login"),
    }
}
