//! The listener: sockets taken over at the upgrade, everything else an ordinary actix-web app,
//! both on one port.

use std::cell::OnceCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_codec::Framed;
use actix_http::{HttpService, Request, h1};
use actix_rt::net::TcpStream;
use actix_server::Server;
use actix_service::{fn_factory, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, web};

use super::api::{self, Api};
use super::caller;
use super::fallback::Fallbacks;
use super::guard::Guard;
use super::socket::{Door, take_over};
use super::ui;
use crate::actors::Stage;
use crate::actors::hub::Hub;
use crate::actors::places::Places;

/// What the listener is given.
#[derive(Clone)]
pub struct Options {
    /// Worker threads.
    pub workers: usize,
    /// Connections that may be open at a time, sockets and HTTP together.
    pub connections_max: usize,
    /// The places of sockets: as many.
    pub connections: Arc<Places>,
    /// Which `Host` and `Origin` may come in.
    pub guard: Guard,
}

/// How long a client may take to send a request's head.
const REQUEST_HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long requests in flight have when the process ends, in seconds.
const SHUTDOWN_SECONDS: u64 = 1;
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
    let connections = options.connections.clone();
    let guard = Arc::new(options.guard.clone());
    let (stage, api) = (stage.clone(), api.clone());
    let fallbacks = web::Data::new(Fallbacks::default());
    let server = Server::build()
        .workers(options.workers)
        .max_concurrent_connections(options.connections_max)
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .disable_signals()
        .listen("http", listener, move || {
            let (stage, guard, connections) = (stage.clone(), guard.clone(), connections.clone());
            let (api, of_app, fallbacks) = (api.clone(), guard.clone(), fallbacks.clone());
            let of_worker = door(&stage, &guard, &connections);
            HttpService::build()
                .client_request_timeout(REQUEST_HEAD_WITHIN)
                .upgrade(fn_factory(move || {
                    let door = door(&stage, &guard, &connections);
                    async move {
                        Ok::<_, ()>(fn_service(
                            move |(request, framed): (Request, Framed<TcpStream, h1::Codec>)| {
                                take_over(door.clone(), request, framed)
                            },
                        ))
                    }
                }))
                .h1(map_config(app(&api, &of_app, &of_worker, fallbacks), |()| AppConfig::default()))
                .tcp()
        })?
        .run();
    Ok((server, address))
}

/// Binds the address.
pub fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(listen)?;
    // It was bound with a queue of 128; asked again, the system makes that longer. What overflows is
    // tried again by the client's system after a second.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn door(stage: &Arc<Stage>, guard: &Arc<Guard>, connections: &Arc<Places>) -> Rc<Door> {
    DOOR.with(|door| {
        door.get_or_init(|| {
            let rooms = Hub::start_here(stage);
            Rc::new(Door {
                stage: stage.clone(),
                rooms,
                guard: guard.clone(),
                connections: connections.clone(),
            })
        })
        .clone()
    })
}

/// The HTTP app of one worker.
fn app(
    api: &Api,
    guard: &Arc<Guard>,
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
    let (api, guard, stage) = (api.clone(), guard.clone(), api.stage.clone());
    App::new()
        .wrap(from_fn(move |request: ServiceRequest, next: Next<_>| {
            let (guard, stage) = (guard.clone(), stage.clone());
            async move { guarded(&guard, &stage, request, next).await }
        }))
        .app_data(api::json_config())
        .app_data(web::Data::new(api))
        .app_data(web::ThinData(Door::clone(door)))
        .app_data(fallbacks)
        .configure(api::configure)
        .configure(ui::configure)
        .default_service(web::to(api::not_found))
}

async fn guarded<B: MessageBody + 'static>(
    guard: &Guard,
    stage: &Stage,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody + use<B>>, Error> {
    let authority = request.uri().authority().map(ToString::to_string);
    let admitted = guard
        .check(request.headers(), authority.as_deref())
        .map_err(|why| caller::Refusal::Forbidden(why.to_owned()))
        .and_then(|()| caller::admit(stage, &request));
    let admitted = match admitted {
        Ok(()) if request.method() == Method::GET => caller::may_read(stage, &request).await,
        admitted => admitted,
    };
    if let Err(refusal) = admitted {
        return Ok(request.into_response(refusal.answer()).map_into_right_body());
    }
    next.call(request).await.map(ServiceResponse::map_into_left_body)
}
