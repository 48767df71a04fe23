//! The model as it is really reached: on port 14000 of every instance that runs Weka, over http and https, and by the
//! sandbox, which tells here what became of instances and what their `weka` command was asked.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::cli;
use super::http::{self, Request, Response};
use super::model::{Machine, Weka};
use super::rpc::{Exchange, Listener};

/// Where Weka's management listens.
const PORT: u16 = 14000;
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// A connection on which nothing is asked for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

/// What `/dist/v1/install` gives: there is nothing to install, the stand-in for `weka` is there already.
const INSTALLER: &str = "#!/bin/sh\necho 'Weka is installed.'\n";

/// What a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Both,
    Http,
    Https,
}

/// A cluster that is served until this value ends.
pub(crate) struct Server {
    shared: Arc<Shared>,
    control: Listening,
    /// `http://127.0.0.1:<port>`, for the sandbox: `POST /machines`, `POST /machines/<id>/stop`,
    /// `DELETE /machines/<id>`, `POST /weka`.
    pub(crate) url: String,
}

impl Server {
    /// Serves the cluster. From now on its clock is the wall clock.
    pub(crate) fn start(weka: Weka) -> Self {
        let shared = Arc::new(Shared {
            weka: Mutex::new(weka),
            transport: Mutex::new(Transport::Both),
            listeners: Mutex::default(),
            tls: self_signed(),
        });
        shared.follow();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let control = Arc::clone(&shared);
        Self {
            control: Listening::start(listener, move |stream| {
                serve(stream, |request| Some(control.control(request))).ok();
            }),
            url: format!("http://{address}"),
            shared,
        }
    }

    /// Looks at the cluster or changes it; the listeners follow.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Weka) -> T) -> T {
        self.shared.with(change)
    }

    /// So many minutes pass in the cluster: its recorded times move back, and it does what it does in them.
    pub(crate) fn tick(&self, minutes: u32) {
        self.with(|weka| {
            for _ in 0..minutes {
                weka.age(MINUTE);
                weka.progress();
            }
        });
    }

    pub(crate) fn set_transport(&self, transport: Transport) {
        *lock(&self.shared.transport) = transport;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.control.stop();
        for (_, mut listener) in std::mem::take(&mut *lock(&self.shared.listeners)) {
            listener.stop();
        }
    }
}

struct Shared {
    weka: Mutex<Weka>,
    transport: Mutex<Transport>,
    /// By address.
    listeners: Mutex<BTreeMap<String, Listening>>,
    tls: Arc<ServerConfig>,
}

impl Shared {
    fn with<T>(self: &Arc<Self>, change: impl FnOnce(&mut Weka) -> T) -> T {
        let result = change(&mut self.now());
        self.follow();
        result
    }

    /// The cluster, at this moment.
    fn now(&self) -> MutexGuard<'_, Weka> {
        let mut weka = lock(&self.weka);
        weka.now = SystemTime::now();
        weka
    }

    /// Listens where Weka would, and nowhere else.
    fn follow(self: &Arc<Self>) {
        let mut listeners = lock(&self.listeners);
        let wanted: Vec<String> = {
            let weka = lock(&self.weka);
            let ips = weka.machines.values().flat_map(|machine| &machine.ips);
            ips.filter(|ip| weka.listener(ip) != Listener::Nobody)
                .cloned()
                .collect()
        };
        listeners.retain(|address, listener| {
            let stays = wanted.contains(address);
            if !stays {
                listener.stop();
            }
            stays
        });
        for address in wanted {
            listeners.entry(address).or_insert_with_key(|address| {
                let listener = TcpListener::bind((address.as_str(), PORT))
                    .unwrap_or_else(|error| panic!("{address}:{PORT}: {error}"));
                let (shared, address) = (Arc::clone(self), address.clone());
                Listening::start(listener, move |stream| {
                    shared.talk(&address, stream).ok();
                })
            });
        }
    }

    /// A connection to a backend, plain or encrypted.
    fn talk(&self, address: &str, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(IDLE))?;
        let mut first = [0];
        stream.peek(&mut first)?;
        let encrypted = first[0] == TLS_HANDSHAKE;
        let answer = |request: &Request| self.answer(address, request);
        // Not in the match: the lock would be held as long as the connection lasts, and no other could begin.
        let transport = *lock(&self.transport);
        match (transport, encrypted) {
            (Transport::Both | Transport::Https, true) => {
                let tls = ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
                serve(StreamOwned::new(tls, stream), answer)
            }
            (Transport::Both | Transport::Http, false) => serve(stream, answer),
            _ => Ok(()),
        }
    }

    /// `None`: the connection ends.
    fn answer(&self, address: &str, request: &Request) -> Option<Response> {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/api/v1") => {
                let exchange =
                    self.now()
                        .exchange(address, request.token.as_deref(), &request.body);
                match exchange {
                    Exchange::Answered { status, body } => Some(Response::json(status, body)),
                    Exchange::Slow {
                        status,
                        body,
                        after,
                    } => {
                        std::thread::sleep(after);
                        Some(Response::json(status, body))
                    }
                    Exchange::Refused | Exchange::Unanswered => None,
                }
            }
            ("GET", "/api/v2/healthcheck/") => Some(Response::json(200, "{}".to_owned())),
            ("GET", "/dist/v1/install") => Some(Response::text(200, INSTALLER)),
            _ => Some(Response::text(404, "")),
        }
    }

    /// What the sandbox tells.
    fn control(self: &Arc<Self>, request: &Request) -> Response {
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let path: Vec<&str> = request.path.split('/').skip(1).collect();
        let result = match (request.method.as_str(), path.as_slice()) {
            ("POST", ["machines"]) => machine(&body).map(|machine| {
                self.with(|weka| started(weka, machine));
                Value::Null
            }),
            ("POST", ["machines", id, "stop"]) => Some(self.befalls(id, Weka::stop)),
            ("DELETE", ["machines", id]) => Some(self.befalls(id, Weka::vanish)),
            ("POST", ["weka"]) => cli::Command::of(&body).map(|command| {
                let said = self.with(|weka| command.run(weka));
                json!({"exit": said.exit, "stdout": said.stdout, "stderr": said.stderr})
            }),
            _ => None,
        };
        match result {
            Some(result) => Response::json(200, result.to_string()),
            None => Response::json(400, json!({"unknown": request.path}).to_string()),
        }
    }

    /// The account has instances that Weka never heard of.
    fn befalls(self: &Arc<Self>, instance: &str, event: fn(&mut Weka, &str)) -> Value {
        self.with(|weka| {
            if weka.machines.contains_key(instance) {
                event(weka, instance);
            }
        });
        Value::Null
    }
}

/// A new instance, or a stopped one again.
fn started(weka: &mut Weka, machine: Machine) {
    if weka.machines.contains_key(&machine.instance_id) {
        weka.come_back(&machine.instance_id);
    } else {
        weka.boot(machine);
    }
}

/// An instance in the sandbox's words.
fn machine(body: &Value) -> Option<Machine> {
    let text = |field: &str| body[field].as_str();
    let mut machine = Machine::new(text("instance_id")?, text("private_ip")?);
    text("instance_type")?.clone_into(&mut machine.instance_type);
    text("availability_zone")?.clone_into(&mut machine.zone);
    if let Some(ips) = body["ips"].as_array() {
        let more = ips.iter().filter_map(Value::as_str).map(ToOwned::to_owned);
        machine.ips.extend(more);
        machine.ips.dedup();
    }
    Some(machine)
}

/// A listener with its thread.
struct Listening {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// Each connection gets a thread.
    fn start(listener: TcpListener, talk: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let ended = Arc::new(AtomicBool::new(false));
        let (end, talk) = (Arc::clone(&ended), Arc::new(talk));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let talk = Arc::clone(&talk);
                std::thread::spawn(move || talk(stream));
            }
        });
        Self {
            address,
            ended,
            thread: Some(thread),
        }
    }

    /// Nobody can connect any more when this returns.
    fn stop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // It sees that at the next connection.
        TcpStream::connect(self.address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Answers the requests of a connection until either side ends it.
fn serve(
    stream: impl Read + Write,
    answer: impl Fn(&Request) -> Option<Response>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = http::read(&mut stream)? {
        let Some(response) = answer(&request) else {
            return Ok(());
        };
        http::write(stream.get_mut(), &response)?;
    }
    Ok(())
}

fn self_signed() -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["weka".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("the key is the certificate's");
    Arc::new(config)
}

/// A test that panicked while it held the lock has failed by itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
