//! An echo on the server's own transport, for Autobahn's fuzzing client: the same handshake,
//! reader, writer and outbox as a session has, with nothing behind them that knows messages.

use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_codec::Framed;
use actix_http::ws::{OpCode, Parser};
use actix_http::{HttpService, Request, Response, StatusCode, h1};
use actix_rt::net::TcpStream;
use actix_service::fn_service;
use bytes::BytesMut;
use dramatis::actors::outbox::Outbox;
use dramatis::actors::session::Inbound;
use dramatis::actors::share::Share;
use dramatis::actors::unfinished::{Budget, Unfinished};
use dramatis::config::{Config, SocketConfig};
use dramatis::protocol::CloseCode;
use dramatis::web::socket::{Patience, TakeOverError, carry, shake_hands};
use futures_util::StreamExt as _;
use prometheus_client::metrics::gauge::Gauge;

/// The suite's largest message is 16 MiB.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

fn main() -> anyhow::Result<()> {
    actix::System::new().block_on(serve())
}

async fn serve() -> anyhow::Result<()> {
    let limits = SocketConfig { frame_bytes_max: FRAME_BYTES_MAX, ..Config::defaults()?.socket };
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    writeln!(std::io::stdout(), "echo listens on ws://{}", listener.local_addr()?)?;
    let server = actix_server::Server::build().workers(2).listen("echo", listener, move || {
        let limits = limits.clone();
        HttpService::build()
            .upgrade(fn_service(move |(request, framed): (Request, Framed<TcpStream, h1::Codec>)| {
                echo(limits.clone(), request, framed)
            }))
            .h1(fn_service(|_: Request| async {
                Ok::<_, TakeOverError>(Response::new(StatusCode::NOT_FOUND))
            }))
            .tcp()
    })?;
    Ok(server.run().await?)
}

/// One message at a time: the writer joins what waits together, which here would change it.
async fn echo(
    limits: SocketConfig,
    request: Request,
    framed: Framed<TcpStream, h1::Codec>,
) -> Result<(), TakeOverError> {
    let (io, early) = shake_hands(&request, framed).await?;
    let share = Rc::new(Share::new(Gauge::default(), Gauge::default(), FRAME_BYTES_MAX * 4));
    let outbox = Rc::new(Outbox::new(share, 1, 1));
    outbox.greeted();
    let budget = Arc::new(Budget::new(Gauge::default(), FRAME_BYTES_MAX * 4));
    let unfinished = Rc::new(Unfinished::new(budget, Arc::default()));
    let patience = Patience::new(Duration::from_millis(limits.write_timeout_ms), Duration::ZERO);
    let mut inbound = Box::pin(carry(io, &early, &outbox, &limits, patience, &unfinished, ()));
    while let Some(message) = inbound.next().await {
        match message {
            Inbound::Text(text) => outbox.push(text.into()),
            Inbound::Binary(bytes) => {
                let mut frame = BytesMut::new();
                Parser::write_message(&mut frame, bytes, OpCode::Binary, true, false);
                outbox.control(frame.freeze());
            }
            Inbound::Violation(code) => outbox.close(code),
            // No token comes by a socket alone.
            Inbound::Pass(_) => {}
        }
        outbox.has_room().await;
    }
    outbox.close(CloseCode::Normal);
    Ok(())
}
