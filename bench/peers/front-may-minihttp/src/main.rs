//! may_minihttp answering a constant: how fast its HTTP/1.1 front alone is.

use std::{env, io};

use may_minihttp::{HttpServer, HttpService, Request, Response};

#[derive(Clone)]
struct Constant;

impl HttpService for Constant {
    fn call(&mut self, _: Request, response: &mut Response) -> io::Result<()> {
        response.header("Content-Type: text/plain");
        response.body("ok\n");
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let host = env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let port = env::var("PORT").unwrap_or_else(|_| "5000".to_owned());
    let server = HttpServer(Constant).start(format!("{host}:{port}"))?;
    server.join().map_err(|_| io::Error::other("the server's coroutine panicked"))
}
