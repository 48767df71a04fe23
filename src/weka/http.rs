//! The management port over HTTP: one connection to each backend, kept for the run.
//!
//! It speaks to hyper's connection and not to a pooling client, so that it knows whether a request was written.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::client::{CONNECT, Reply, Request, Transport, TransportError};

const PATH: &str = "/api/v1";
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The largest answer that is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024 * 1024;
/// A connection that was idle for longer is not used again: the backend may be about to close it, and a request
/// written to a closed connection has an unknown outcome.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// A call that needs no login: tells a backend that speaks plain HTTP from one that does not.
const HARMLESS: &str = r#"{"jsonrpc":"2.0","id":"1","method":"client_query_backend","params":{}}"#;

/// Which certificates a backend may show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Every one: a cluster makes its own unless it was given one. Plain HTTP is taken from old clusters, too.
    #[default]
    Any,
    /// Those of this authority, in PEM, that name the backend's address. Never plain HTTP.
    Ca(String),
    /// The one with this SHA-256. Never plain HTTP.
    Pin([u8; 32]),
}

/// A [`Trust`] that can not be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The authority's PEM can not be read.
    #[error("reading the certificates of Weka's authority")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// It holds no certificate that can be used.
    #[error("the certificates of Weka's authority hold none that can be used")]
    NoAuthority,
    /// TLS can not be set up.
    #[error("setting up TLS")]
    Tls(#[source] rustls::Error),
}

/// [`Transport`] over HTTP or HTTPS, for one cluster: what one backend speaks, all speak.
pub struct HttpTransport {
    port: u16,
    tls: TlsConnector,
    may_be_plain: bool,
    scheme: Mutex<Option<Scheme>>,
    idle: Mutex<HashMap<String, Vec<Connection>>>,
}

/// What the cluster was found to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// An open connection; closed when dropped.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: AbortHandle,
    idle_since: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl HttpTransport {
    /// A transport to `port` of every backend: [`super::client::MANAGEMENT_PORT`], another in tests.
    ///
    /// # Errors
    /// The authority's certificates can not be read, or hold none.
    pub fn new(port: u16, trust: &Trust) -> Result<Self, TrustError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TrustError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(verifier(trust, provider)?)
            .with_no_client_auth();
        Ok(Self {
            port,
            tls: TlsConnector::from(Arc::new(config)),
            may_be_plain: *trust == Trust::Any,
            scheme: Mutex::new(None),
            idle: Mutex::default(),
        })
    }

    fn scheme(&self) -> Option<Scheme> {
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what the cluster speaks. HTTPS, once spoken, is never left.
    fn remember(&self, spoken: Scheme) {
        let mut scheme = self.scheme.lock().unwrap_or_else(PoisonError::into_inner);
        if *scheme != Some(Scheme::Https) {
            *scheme = Some(spoken);
        }
    }

    fn take_idle(&self, address: &str) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(address)?;
        while let Some(connection) = kept.pop() {
            if !connection.sender.is_closed() && connection.idle_since.elapsed() <= IDLE_LIMIT {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, address: &str, connection: Connection) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(address.to_owned())
            .or_default()
            .push(connection);
    }

    /// A new connection, by TLS if the backend speaks it. Each step may take `limit`.
    async fn open(&self, address: &str, limit: Duration) -> Result<Connection, TransportError> {
        let ip = ip(address)?;
        let socket = SocketAddr::new(ip, self.port);
        let stream = tcp(socket, limit).await?;
        if self.scheme() == Some(Scheme::Http) {
            return open_http(stream).await;
        }
        match self.tls(ip, stream, limit).await {
            Ok(stream) => {
                self.remember(Scheme::Https);
                open_http(stream).await
            }
            Err(why) if self.may_be_plain && self.scheme() != Some(Scheme::Https) => {
                let connection = plain(socket, limit)
                    .await
                    .ok_or_else(|| TransportError::NotSent(format!("{why}, nor plain HTTP")))?;
                self.remember(Scheme::Http);
                if self.scheme() == Some(Scheme::Http) {
                    Ok(connection)
                } else {
                    Err(TransportError::NotSent(why))
                }
            }
            Err(why) => Err(TransportError::NotSent(why)),
        }
    }

    async fn tls(
        &self,
        ip: IpAddr,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, String> {
        let connecting = self.tls.connect(ServerName::IpAddress(ip.into()), stream);
        match timeout(limit, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(format!("no TLS: {error}")),
            Err(_) => Err(format!("no TLS within {limit:?}")),
        }
    }

    /// One exchange over an open connection, which is kept for the next one after a whole answer.
    async fn exchange(
        &self,
        mut connection: Connection,
        request: &Request<'_>,
        end: Instant,
    ) -> Result<Reply, TransportError> {
        let host = SocketAddr::new(ip(request.address)?, self.port);
        let body = Bytes::copy_from_slice(request.body.expose_secret().as_bytes());
        let reply = exchange(&mut connection, host, request.token, body, end).await?;
        connection.idle_since = Instant::now();
        self.keep(request.address, connection);
        Ok(reply)
    }
}

impl Transport for HttpTransport {
    async fn connect(&self, address: &str, limit: Duration) -> Result<(), TransportError> {
        let connection = match self.take_idle(address) {
            Some(connection) => connection,
            None => self.open(address, limit).await?,
        };
        self.keep(address, connection);
        Ok(())
    }

    async fn post(&self, request: Request<'_>) -> Result<Reply, TransportError> {
        let end = Instant::now() + request.timeout;
        if let Some(connection) = self.take_idle(request.address) {
            match self.exchange(connection, &request, end).await {
                Err(TransportError::NotSent(_)) => {}
                outcome => return outcome,
            }
        }
        let connection = timeout_at(end, self.open(request.address, CONNECT))
            .await
            .map_err(|_| not_sent("no connection in time"))??;
        self.exchange(connection, &request, end).await
    }
}

async fn tcp(socket: SocketAddr, limit: Duration) -> Result<TcpStream, TransportError> {
    let stream = match timeout(limit, TcpStream::connect(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(not_sent(format!("no connection: {error}"))),
        Err(_) => return Err(not_sent(format!("no connection within {limit:?}"))),
    };
    stream
        .set_nodelay(true)
        .map_err(|error| not_sent(format!("no connection: {error}")))?;
    Ok(stream)
}

/// A connection over which the backend was found to speak plain HTTP, before a secret is written to it; `None` where
/// it does not. A port that wants TLS may answer plain HTTP too, but not with success.
async fn plain(socket: SocketAddr, limit: Duration) -> Option<Connection> {
    let mut connection = open_http(tcp(socket, limit).await.ok()?).await.ok()?;
    let body = Bytes::from_static(HARMLESS.as_bytes());
    let end = Instant::now() + limit;
    let reply = exchange(&mut connection, socket, None, body, end).await;
    let status = StatusCode::from_u16(reply.ok()?.status).ok()?;
    (status.is_success() || status == StatusCode::UNAUTHORIZED).then_some(connection)
}

async fn open_http<S>(stream: S) -> Result<Connection, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| not_sent(error.to_string()))?;
    Ok(Connection {
        sender,
        driver: tokio::spawn(driver).abort_handle(),
        idle_since: Instant::now(),
    })
}

/// Writes a request and reads the whole answer. From the first byte on a failure is [`TransportError::Unknown`].
async fn exchange(
    connection: &mut Connection,
    host: SocketAddr,
    token: Option<&SecretString>,
    body: Bytes,
    end: Instant,
) -> Result<Reply, TransportError> {
    let request = http_request(host, token, body)?;
    timeout_at(end, connection.sender.ready())
        .await
        .map_err(|_| not_sent("no connection in time"))?
        .map_err(|error| not_sent(chain(&error)))?;
    let answered = async {
        let response = connection.sender.try_send_request(request).await;
        let response = response.map_err(|error| {
            let why = chain(error.error());
            match error.message() {
                Some(_) => TransportError::NotSent(why),
                None => TransportError::Unknown(why),
            }
        })?;
        read(response).await
    };
    timeout_at(end, answered)
        .await
        .unwrap_or_else(|_| Err(TransportError::Unknown("no answer in time".to_owned())))
}

async fn read(response: Response<Incoming>) -> Result<Reply, TransportError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, BODY_LIMIT)
        .collect()
        .await
        .map_err(|error| TransportError::Unknown(chain(error.as_ref())))?
        .to_bytes();
    let location = head.headers.get(header::LOCATION);
    Ok(Reply {
        status: head.status.as_u16(),
        body: String::from_utf8_lossy(&body).into_owned(),
        location: location
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned),
    })
}

fn http_request(
    host: SocketAddr,
    token: Option<&SecretString>,
    body: Bytes,
) -> Result<hyper::Request<Full<Bytes>>, TransportError> {
    let mut request = hyper::Request::post(PATH)
        .header(header::HOST, host.to_string())
        .header(header::ACCEPT, JSON)
        .header(header::CONTENT_TYPE, JSON);
    if let Some(token) = token {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
            .map_err(|_| not_sent("the access token does not fit into a header"))?;
        bearer.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, bearer);
    }
    request
        .body(Full::new(body))
        .map_err(|error| not_sent(error.to_string()))
}

fn ip(address: &str) -> Result<IpAddr, TransportError> {
    address
        .parse()
        .map_err(|_| not_sent("it is not an IP address"))
}

fn not_sent(why: impl Into<String>) -> TransportError {
    TransportError::NotSent(why.into())
}

/// An error with its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn verifier(
    trust: &Trust,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TrustError> {
    Ok(match trust {
        Trust::Any => Arc::new(AnyCertificate(provider)),
        Trust::Pin(pin) => Arc::new(PinnedCertificate {
            pin: *pin,
            provider,
        }),
        Trust::Ca(pem) => {
            let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(TrustError::Pem)?;
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates);
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|_| TrustError::NoAuthority)?
        }
    })
}

/// Takes every certificate. Signatures are not looked at: they would prove nothing, and a certificate too old for
/// them must not shut us out.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes one certificate, from whoever has its key.
#[derive(Debug)]
struct PinnedCertificate {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Sha256::digest(end_entity)[..] == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

    const LOCALHOST: &str = "127.0.0.1";
    const LOGIN: &str = r#"{"method":"user_login","params":["admin","hunter2"]}"#;

    /// What a backend does with a request it has read.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Act {
        Answer(u16),
        AnswerAndClose,
        Moved,
        Close,
        CloseInTheBody,
        Flood,
        Silence,
    }

    /// What it does with TLS.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum OnTls {
        /// Says in plain HTTP that it does not understand.
        Complain,
        /// Goes on waiting for a line's end.
        Wait,
    }

    struct Backend {
        port: u16,
        state: Arc<State>,
    }

    struct State {
        tls: Option<TlsAcceptor>,
        speaks_tls: AtomicBool,
        on_tls: OnTls,
        act: Act,
        connections: AtomicUsize,
        /// Every request read, head and body, and over what.
        requests: Mutex<Vec<(Scheme, String)>>,
    }

    impl Backend {
        async fn start(tls: Option<ServerConfig>, on_tls: OnTls, act: Act) -> Self {
            let listener = TcpListener::bind((LOCALHOST, 0)).await.expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let state = Arc::new(State {
                speaks_tls: AtomicBool::new(tls.is_some()),
                tls: tls.map(|config| TlsAcceptor::from(Arc::new(config))),
                on_tls,
                act,
                connections: AtomicUsize::new(0),
                requests: Mutex::default(),
            });
            let shared = Arc::clone(&state);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(Arc::clone(&shared).serve(stream));
                }
            });
            Self { port, state }
        }

        async fn plain(act: Act) -> Self {
            Self::start(None, OnTls::Complain, act).await
        }

        async fn https(act: Act) -> (Self, CertificateDer<'static>) {
            let key = KeyPair::generate().expect("a key");
            let certificate = params()
                .self_signed(&key)
                .expect("a certificate")
                .der()
                .clone();
            let backend = Self::start(
                Some(server_config(certificate.clone(), &key)),
                OnTls::Complain,
                act,
            )
            .await;
            (backend, certificate)
        }

        fn transport(&self, trust: &Trust) -> HttpTransport {
            HttpTransport::new(self.port, trust).expect("certificates that can be read")
        }

        fn requests(&self) -> Vec<(Scheme, String)> {
            self.state.requests.lock().expect("no panic").clone()
        }

        fn connections(&self) -> usize {
            self.state.connections.load(Ordering::Relaxed)
        }
    }

    impl State {
        async fn serve(self: Arc<Self>, stream: TcpStream) {
            let mut first = [0];
            if stream.peek(&mut first).await.is_err() {
                return;
            }
            let is_tls = first == [0x16];
            match &self.tls {
                Some(acceptor) if self.speaks_tls.load(Ordering::Relaxed) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        self.answer(stream, Scheme::Https).await;
                    }
                }
                _ if is_tls && self.on_tls == OnTls::Complain => {
                    let mut stream = stream;
                    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                }
                _ => self.answer(stream, Scheme::Http).await,
            }
        }

        async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S, scheme: Scheme) {
            let mut read = Vec::new();
            while let Some(request) = next_request(&mut stream, &mut read).await {
                self.requests
                    .lock()
                    .expect("no panic")
                    .push((scheme, request));
                let head = |status, length, more: &str| {
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{more}\r\n")
                };
                let answer = match self.act {
                    Act::Answer(status) => head(status, 2, "") + "{}",
                    Act::AnswerAndClose => head(200, 2, "") + "{}",
                    Act::Moved => head(301, 0, "Location: https://10.0.0.9:14000/api/v1\r\n"),
                    Act::CloseInTheBody => head(200, 100, "") + "{",
                    Act::Flood => head(200, BODY_LIMIT + 1, ""),
                    Act::Close => return,
                    Act::Silence => return std::future::pending().await,
                };
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                if self.act == Act::Flood {
                    let chunk = vec![b' '; 1 << 20];
                    while stream.write_all(&chunk).await.is_ok() {}
                }
                if [Act::AnswerAndClose, Act::CloseInTheBody].contains(&self.act) {
                    let _ = stream.shutdown().await;
                    return;
                }
            }
        }
    }

    async fn next_request<S: AsyncRead + Unpin>(
        stream: &mut S,
        read: &mut Vec<u8>,
    ) -> Option<String> {
        loop {
            let text = String::from_utf8_lossy(read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_lowercase();
                let (_, length) = head.split_once("content-length: ")?;
                let length: usize = length.lines().next()?.parse().ok()?;
                if body.len() >= length {
                    read.clear();
                    return Some(format!("{head}\n\n{body}"));
                }
            }
            if stream.read_buf(read).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn params() -> CertificateParams {
        CertificateParams::new([LOCALHOST.to_owned()]).expect("a name")
    }

    fn server_config(certificate: CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())
            .expect("a key that fits")
    }

    async fn post(transport: &HttpTransport, limit: Duration) -> Result<Reply, TransportError> {
        let body = SecretString::from(LOGIN);
        let token = SecretString::from("the-token");
        transport
            .post(Request {
                address: LOCALHOST,
                token: Some(&token),
                body: &body,
                timeout: limit,
            })
            .await
    }

    const LIMIT: Duration = Duration::from_secs(5);

    fn assert_not_sent(outcome: Result<Reply, TransportError>) {
        match outcome {
            Err(TransportError::NotSent(_)) => {}
            Err(error) => panic!("{error:?}"),
            Ok(reply) => panic!("answered: {}", reply.status),
        }
    }

    fn assert_unknown(outcome: Result<Reply, TransportError>) {
        match outcome {
            Err(TransportError::Unknown(_)) => {}
            Err(error) => panic!("{error:?}"),
            Ok(reply) => panic!("answered: {}", reply.status),
        }
    }

    #[tokio::test]
    async fn https_is_spoken_over_one_connection() {
        let (backend, _) = Backend::https(Act::Answer(200)).await;
        let transport = backend.transport(&Trust::Any);
        transport
            .connect(LOCALHOST, CONNECT)
            .await
            .expect("a connection");
        for _ in 0..20 {
            let reply = post(&transport, LIMIT).await.expect("an answer");
            assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
        }
        assert_eq!(backend.connections(), 1);
        let requests = backend.requests();
        assert_eq!(requests.len(), 20);
        let (scheme, request) = &requests[0];
        assert_eq!(*scheme, Scheme::Https);
        let (head, body) = request.split_once("\n\n").expect("a body");
        let mut lines: Vec<&str> = head.lines().collect();
        lines.sort_unstable();
        let host = format!("host: {LOCALHOST}:{}", backend.port);
        let length = format!("content-length: {}", LOGIN.len());
        let mut expected = [
            "post /api/v1 http/1.1",
            "accept: application/json",
            "content-type: application/json",
            "authorization: bearer the-token",
            &host,
            &length,
        ];
        expected.sort_unstable();
        assert_eq!(lines, expected);
        assert_eq!(body, LOGIN);
    }

    #[tokio::test]
    async fn plain_http_is_found_out_before_a_secret_is_written_and_remembered() {
        for on_tls in [OnTls::Complain, OnTls::Wait] {
            let backend = Backend::start(None, on_tls, Act::Answer(200)).await;
            let transport = backend.transport(&Trust::Any);
            for _ in 0..20 {
                post(&transport, LIMIT).await.expect("an answer");
            }
            let requests = backend.requests();
            assert_eq!(requests.len(), 21);
            assert!(requests[0].1.ends_with(HARMLESS));
            assert!(!requests[0].1.contains("authorization"));
            assert_eq!(backend.connections(), 2, "one for TLS, one for the rest");

            transport.idle.lock().expect("no panic").clear();
            post(&transport, LIMIT).await.expect("an answer");
            assert_eq!(backend.connections(), 3, "TLS is not tried again");
        }
    }

    #[tokio::test]
    async fn a_port_that_answers_plain_http_without_success_gets_no_secret() {
        for status in [400, 301, 426, 500] {
            let backend = Backend::plain(Act::Answer(status)).await;
            assert_not_sent(post(&backend.transport(&Trust::Any), LIMIT).await);
            assert_eq!(backend.requests().len(), 1);
            assert!(backend.requests()[0].1.ends_with(HARMLESS));
        }
    }

    #[tokio::test]
    async fn plain_http_is_never_spoken_after_https() {
        let (backend, _) = Backend::https(Act::Answer(401)).await;
        let transport = backend.transport(&Trust::Any);
        assert_eq!(
            post(&transport, LIMIT).await.expect("an answer").status,
            401
        );
        backend.state.speaks_tls.store(false, Ordering::Relaxed);
        transport.idle.lock().expect("no panic").clear();
        assert_not_sent(post(&transport, LIMIT).await);
        assert_eq!(backend.requests().len(), 1);
    }

    #[test]
    fn of_two_backends_found_at_once_the_one_with_https_decides() {
        for order in [[Scheme::Http, Scheme::Https], [Scheme::Https, Scheme::Http]] {
            let transport = HttpTransport::new(1, &Trust::Any).expect("a transport");
            for spoken in order {
                transport.remember(spoken);
            }
            assert_eq!(transport.scheme(), Some(Scheme::Https));
        }
    }

    #[tokio::test]
    async fn a_pin_or_an_authority_rules_plain_http_out() {
        let key = KeyPair::generate().expect("a key");
        let authority = params().self_signed(&key).expect("a certificate").pem();
        for trust in [Trust::Pin([0; 32]), Trust::Ca(authority)] {
            let backend = Backend::plain(Act::Answer(200)).await;
            assert_not_sent(post(&backend.transport(&trust), LIMIT).await);
            assert_eq!(backend.requests(), []);
        }
    }

    #[tokio::test]
    async fn only_the_pinned_certificate_is_taken() {
        let (backend, certificate) = Backend::https(Act::Answer(200)).await;
        let pin: [u8; 32] = Sha256::digest(&certificate).into();
        post(&backend.transport(&Trust::Pin(pin)), LIMIT)
            .await
            .expect("an answer");
        let mut other = pin;
        other[31] ^= 1;
        assert_not_sent(post(&backend.transport(&Trust::Pin(other)), LIMIT).await);
        assert_eq!(backend.requests().len(), 1);
    }

    #[tokio::test]
    async fn only_certificates_of_the_authority_are_taken() {
        let authority_key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = authority
            .self_signed(&authority_key)
            .expect("a certificate")
            .pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().expect("a key");
        let certificate = params()
            .signed_by(&key, &issuer)
            .expect("a certificate")
            .der()
            .clone();
        let elsewhere = CertificateParams::new(["10.0.0.9".to_owned()]).expect("a name");
        let elsewhere = elsewhere
            .signed_by(&key, &issuer)
            .expect("a certificate")
            .der()
            .clone();

        for (certificate, is_taken) in [(certificate, true), (elsewhere, false)] {
            let config = server_config(certificate, &key);
            let backend = Backend::start(Some(config), OnTls::Complain, Act::Answer(200)).await;
            let outcome = post(&backend.transport(&Trust::Ca(pem.clone())), LIMIT).await;
            assert_eq!(outcome.is_ok(), is_taken);
        }
        let (stranger, _) = Backend::https(Act::Answer(200)).await;
        assert_not_sent(post(&stranger.transport(&Trust::Ca(pem)), LIMIT).await);
    }

    #[test]
    fn an_authority_without_certificates_is_an_error() {
        for pem in [
            "",
            "no PEM",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(
                HttpTransport::new(1, &Trust::Ca(pem.to_owned())).is_err(),
                "{pem}"
            );
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_leaves_the_outcome_unknown() {
        for act in [Act::Close, Act::CloseInTheBody, Act::Flood] {
            let (backend, _) = Backend::https(act).await;
            let transport = backend.transport(&Trust::Any);
            assert_unknown(post(&transport, Duration::from_secs(60)).await);
            assert_eq!(backend.requests().len(), 1, "{act:?}");
            assert!(transport.take_idle(LOCALHOST).is_none(), "{act:?}");
        }
    }

    #[tokio::test]
    async fn silence_ends_in_time_with_an_unknown_outcome() {
        let (backend, _) = Backend::https(Act::Silence).await;
        let transport = backend.transport(&Trust::Any);
        assert_unknown(post(&transport, Duration::from_millis(300)).await);
        assert_eq!(backend.requests().len(), 1);
        assert!(transport.take_idle(LOCALHOST).is_none());
    }

    #[tokio::test]
    async fn where_nobody_listens_nothing_is_sent() {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let transport = HttpTransport::new(port, &Trust::Any).expect("a transport");
        assert_not_sent(post(&transport, LIMIT).await);
        assert!(transport.connect(LOCALHOST, CONNECT).await.is_err());
        assert!(transport.connect("localhost", CONNECT).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_idle_is_replaced() {
        let (backend, _) = Backend::https(Act::AnswerAndClose).await;
        let transport = backend.transport(&Trust::Any);
        for _ in 0..3 {
            post(&transport, LIMIT).await.expect("an answer");
            let is_closed = || {
                let idle = transport.idle.lock().expect("no panic");
                idle[LOCALHOST].iter().all(|each| each.sender.is_closed())
            };
            while !is_closed() {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(backend.connections(), 3);
    }

    #[tokio::test]
    async fn a_connection_that_was_idle_for_long_is_not_used_again() {
        let (backend, _) = Backend::https(Act::Answer(200)).await;
        let transport = backend.transport(&Trust::Any);
        post(&transport, LIMIT).await.expect("an answer");
        tokio::time::pause();
        tokio::time::advance(IDLE_LIMIT + Duration::from_millis(1)).await;
        tokio::time::resume();
        post(&transport, LIMIT).await.expect("an answer");
        assert_eq!(backend.connections(), 2);
    }

    #[tokio::test]
    async fn a_redirect_is_told_and_not_followed() {
        let (backend, _) = Backend::https(Act::Moved).await;
        let reply = post(&backend.transport(&Trust::Any), LIMIT)
            .await
            .expect("an answer");
        assert_eq!(reply.status, 301);
        assert_eq!(
            reply.location.as_deref(),
            Some("https://10.0.0.9:14000/api/v1")
        );
        assert_eq!(backend.requests().len(), 1);
    }
}
