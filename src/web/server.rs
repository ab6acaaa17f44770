//! The listener: sockets taken over at the upgrade, everything else an ordinary actix-web app,
//! both on one port.

use std::cell::OnceCell;
use std::future::ready;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_codec::Framed;
use actix_http::error::DispatchError;
use actix_http::{HttpService, Request, ResponseHead, h1};
use actix_rt::net::TcpStream;
use actix_server::Server;
use actix_service::{ServiceFactoryExt as _, fn_factory, fn_service, map_config};
use actix_web::body::{BodySize, EitherBody, MessageBody};
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, Version};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpRequest, web};
use rustix::net::sockopt;

use super::api::{self, Api, Counted, times};
use super::body::{self, Holding, Max};
use super::caller;
use super::cross_origin;
use super::fallback::Fallbacks;
use super::guard::Guard;
use super::kept::{KEPT_FOR, Kept, Turns};
use super::peer::Proxies;
use super::socket::{Door, take_over};
use super::ui;
use crate::actors::Stage;
use crate::actors::hub::Hub;
use crate::actors::places::Places;
use crate::protocol::ErrorCode;

/// What the listener is given.
#[derive(Clone)]
pub struct Options {
    /// Worker threads.
    pub workers: usize,
    /// HTTP connections that each of them may have open at a time, sockets up to their upgrade among
    /// them; while all have so many nobody is accepted.
    pub connections_per_worker_max: usize,
    /// The places of sockets, and of what stands in for them.
    pub connections: Arc<Places>,
    /// Which `Host` and `Origin` may come in.
    pub guard: Guard,
    /// Whose word is taken for a client's address.
    pub proxies: Proxies,
}

/// How long requests in flight have when the process ends, in seconds.
const SHUTDOWN_SECONDS: u64 = 1;
/// A connection over which nothing was sent for so long is asked for by the system, so often until it
/// is given up: a client whose machine or line is gone says nothing any more.
const ASKED_AFTER: Duration = Duration::from_mins(1);
const ASKED_EVERY: Duration = Duration::from_secs(10);
const ASKED_TIMES: u32 = 3;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4_096;

thread_local! {
    /// This worker's door to sockets and its hub.
    static DOOR: OnceCell<Rc<Door>> = const { OnceCell::new() };
}

/// Serves on a bound address until stopped. Returns the server and the address.
pub fn serve(
    listener: TcpListener,
    stage: &Arc<Stage>,
    api: &Api,
    options: &Options,
) -> io::Result<(Server, SocketAddr)> {
    let address = listener.local_addr()?;
    let entrance = Entrance {
        guard: Arc::new(options.guard.clone()),
        proxies: Arc::new(options.proxies.clone()),
        connections: options.connections.clone(),
    };
    let head_within = Duration::from_millis(stage.limits.head_timeout_ms);
    let (stage, api, log) = (stage.clone(), api.clone(), stage.log.clone());
    let fallbacks = web::Data::new(Fallbacks::default());
    let server = Server::build()
        .workers(options.workers)
        .max_concurrent_connections(options.connections_per_worker_max)
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .disable_signals()
        .listen("http", listener, move || {
            let (stage, entrance, api, fallbacks) =
                (stage.clone(), entrance.clone(), api.clone(), fallbacks.clone());
            let (of_app, of_drain) = (door(&stage, &entrance), stage.clone());
            let at_door = of_app.clone();
            let http = HttpService::build()
                // Connections without a request are closed then, the others behind their answer.
                .graceful_shutdown_signal(move || {
                    let stage = of_drain.clone();
                    async move { stage.drain.closes().await }
                })
                .client_request_timeout(head_within)
                .keep_alive(KEPT_FOR)
                .on_connect_ext(|io: &Kept, of_connection| drop(of_connection.insert(io.turns())))
                // Who sends nothing more has gone: an answer that waits for something to say, such as a
                // followed stream of a quiet room, would find out by its next word only, if ever.
                .h1_allow_half_closed(false)
                .upgrade(fn_factory(move || {
                    let door = door(&stage, &entrance);
                    async move {
                        Ok::<_, ()>(fn_service(
                            move |(request, framed): (Request, Framed<Kept, h1::Codec>)| {
                                take_over(door.clone(), request, framed)
                            },
                        ))
                    }
                }))
                .h1(map_config(app(&api, &of_app, fallbacks), |()| AppConfig::default()));
            fn_service(move |io: TcpStream| {
                let peer = io.peer_addr().ok();
                let kept = Kept::take(io, peer, &at_door.stage, &at_door.proxies);
                ready(kept.map(|io| (io, peer)).ok_or(DispatchError::Io(ErrorKind::ConnectionRefused.into())))
            })
            .and_then(http)
        })?
        .run();
    actix_rt::spawn(times::watch(log));
    Ok((server, address))
}

/// Binds the address.
pub fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(listen)?;
    // It was bound with a queue of 128; asked again, the system makes that longer. What overflows is
    // tried again by the client's system after a second.
    rustix::net::listen(&listener, BACKLOG)?;
    // What is accepted from it is set alike.
    sockopt::set_socket_keepalive(&listener, true)?;
    sockopt::set_tcp_keepidle(&listener, ASKED_AFTER)?;
    sockopt::set_tcp_keepintvl(&listener, ASKED_EVERY)?;
    sockopt::set_tcp_keepcnt(&listener, ASKED_TIMES)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Takes no connection any more, and gives up those that nobody has taken: who comes meanwhile is
/// refused, and need not find out by waiting.
pub fn unbind(listener: &TcpListener) {
    // Where the system does not know that, they wait until the listener is closed.
    let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
}

/// What the doors of all threads are made with.
#[derive(Clone)]
struct Entrance {
    guard: Arc<Guard>,
    proxies: Arc<Proxies>,
    connections: Arc<Places>,
}

fn door(stage: &Arc<Stage>, entrance: &Entrance) -> Rc<Door> {
    DOOR.with(|door| {
        door.get_or_init(|| {
            let rooms = Hub::start_here(stage);
            Rc::new(Door {
                stage: stage.clone(),
                rooms,
                guard: entrance.guard.clone(),
                proxies: entrance.proxies.clone(),
                connections: entrance.connections.clone(),
            })
        })
        .clone()
    })
}

/// The HTTP app of one worker.
fn app(
    api: &Api,
    door: &Rc<Door>,
    fallbacks: web::Data<Fallbacks>,
) -> App<
    impl actix_service::ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody + use<>>,
        Error = Error,
        InitError = (),
    > + use<>,
> {
    let (api, of_guard) = (api.clone(), door.clone());
    let body_bytes_max = door.stage.limits.frame_bytes_max;
    App::new()
        .wrap(from_fn(move |request: ServiceRequest, next: Next<_>| {
            let door = of_guard.clone();
            async move { guarded(&door, request, next).await }
        }))
        .app_data(api::json_config())
        .app_data(web::PayloadConfig::new(body_bytes_max))
        .app_data(Max(body_bytes_max))
        .app_data(web::Data::new(api))
        .app_data(web::ThinData(Door::clone(door)))
        .app_data(fallbacks)
        .configure(api::configure)
        .configure(ui::configure)
        .default_service(web::to(api::not_found))
}

async fn guarded<B: MessageBody + 'static>(
    door: &Door,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody + use<B>>, Error> {
    let under_way = request.conn_data::<Turns>().map(Turns::begin);
    let elsewhere = door.guard.page_elsewhere(request.headers());
    let mut answer = match admitted(door, &request).await {
        Ok(()) if elsewhere.is_some() && cross_origin::is_preflight(request.request()) => {
            request.into_response(cross_origin::preflight()).map_into_right_body()
        }
        Ok(()) => answered(door, request, next).await?,
        Err(refusal) => request.into_response(refusal.answer()).map_into_right_body(),
    };
    if let Some(code) = answer.response().extensions().get::<ErrorCode>() {
        door.stage.metrics.request_refused(code.as_str());
    }
    if let Some(origin) = elsewhere {
        cross_origin::open(answer.headers_mut(), origin);
    }
    if answer.request().version() < Version::HTTP_11 && answer.response().body().size() == BodySize::Stream {
        end_by_close(answer.response_mut().head_mut());
    }
    Ok(answer.map_body(|_, body| Holding::new(body, under_way)))
}

/// Has the handlers answer, and counts the answer until it is taken.
async fn answered<B: MessageBody + 'static>(
    door: &Door,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let counted = api::counted(request.match_info().get_ref().path());
    let take = |request: &HttpRequest| caller::may_be_answered(&door.stage, request);
    let mut permit = None;
    if counted == Counted::FromTheStart {
        match take(request.request()) {
            Ok(taken) => permit = taken,
            Err(refusal) => return Ok(request.into_response(refusal.answer()).map_into_right_body()),
        }
    }
    let within = Duration::from_millis(door.stage.limits.body_timeout_ms);
    let watched = body::watch(&mut request, &door.rooms, within);
    let answer = watched.held_by(next.call(request).await?);
    if let Err(refusal) = caller::may_still_read(&door.stage, answer.request()).await {
        return Ok(answer.into_response(refusal.answer()).map_into_right_body());
    }
    if counted == Counted::OnceAnswered {
        match take(answer.request()) {
            Ok(taken) => permit = taken,
            Err(refusal) => return Ok(answer.into_response(refusal.answer()).map_into_right_body()),
        }
    }
    Ok(body::holding(answer, permit))
}

/// Before HTTP/1.1 there were no chunks: a body of no known length ends with its connection.
fn end_by_close(head: &mut ResponseHead) {
    head.no_chunking(true);
    head.set_connection_type(ConnectionType::Close);
}

async fn admitted(door: &Door, request: &ServiceRequest) -> Result<(), caller::Refusal> {
    let Door { stage, guard, proxies, .. } = door;
    let authority = request.uri().authority().map(ToString::to_string);
    guard
        .check(request.headers(), authority.as_deref())
        .map_err(|why| caller::Refusal::Forbidden(why.to_owned()))?;
    caller::admit_address(stage, proxies, request)?;
    // A browser that asks first shows no token yet.
    if cross_origin::is_preflight(request.request()) {
        return Ok(());
    }
    caller::admit_user(stage, request)?;
    // What an answer would have been tells of what is there, too.
    caller::may_read(stage, request.request()).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn the_system_asks_for_clients_that_say_nothing() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), ASKED_AFTER);
    }
}
