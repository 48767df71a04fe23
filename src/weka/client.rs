//! The management client: JSON-RPC calls to the backends of one cluster, for the length of one run.
//!
//! A read may be asked of any backend and more than once. A mutation is sent once: after that its outcome is known,
//! or said to be unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use futures::stream::{FuturesUnordered, StreamExt};
use rand::Rng;
use rand::seq::SliceRandom;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

/// The port on which every backend is managed.
pub const MANAGEMENT_PORT: u16 = 14_000;
/// How long a backend may take to accept a connection. S18 of the scaling rules.
pub const CONNECT: Duration = Duration::from_secs(1);

/// How many backends are probed at once. S18 of the scaling rules.
const PROBES: usize = 3;
/// The pause before a busy backend is asked again.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// What a busy backend answers. 500 too: backends say it during an upgrade. Source: the vendor's Go client.
const BUSY: &[u16] = &[500, 502, 503];
const SUCCESS: &[u16] = &[200, 201, 202];
const MOVED: u16 = 301;
const UNAUTHORISED: u16 = 401;
/// Answers to a login that speak of the user and not of the backend.
const LOGIN_REFUSED: &[u16] = &[UNAUTHORISED, 403];
/// How often one read follows a backend that sends it elsewhere.
const REDIRECTS: usize = 3;
/// A token with less time left than this is renewed before it is used.
const TOKEN_MARGIN: Duration = Duration::from_secs(30);
/// How long a token lives whose age limit the backend does not tell.
const TOKEN_LIFE: Duration = Duration::from_secs(300);
const LOGIN: &str = "user_login";
const REFRESH: &str = "user_refresh_token";
const STATUS: &str = "status";
/// Methods that every backend in a cluster has: one that lacks them is in none.
const CLUSTER_METHODS: &[&str] = &[STATUS, "hosts_list"];
/// JSON-RPC's code for a method the backend lacks.
const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC's code for an error without a code of its own, as Weka uses it.
const UNKNOWN_ERROR: i64 = -32001;
/// How many characters of a backend's text are kept.
const TEXT_LIMIT: usize = 300;
const NO_CLUSTER: &str = "it is not in a cluster";
const FORGOTTEN: &str = "its machine leaves the cluster";

/// One HTTP exchange with a backend's management port.
pub trait Transport: Send + Sync {
    /// Opens a connection for the posts to come, in vain where there is one already or no such thing. Each step of it
    /// may take `limit`.
    ///
    /// # Errors
    /// [`TransportError::NotSent`].
    fn connect(
        &self,
        _address: &str,
        _limit: Duration,
    ) -> impl Future<Output = Result<(), TransportError>> + Send {
        async { Ok(()) }
    }

    /// Posts one JSON-RPC request and waits for the answer, of whatever status.
    ///
    /// # Errors
    /// No answer; whether the request was written decides the kind.
    fn post(
        &self,
        request: Request<'_>,
    ) -> impl Future<Output = Result<Reply, TransportError>> + Send;
}

/// What is posted.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The backend's IP address, without a port.
    pub address: &'a str,
    /// The access token; `None` for a login.
    pub token: Option<&'a SecretString>,
    /// The JSON text. That of a login holds the password.
    pub body: &'a SecretString,
    /// For all of it: connecting, writing, and reading the whole answer.
    pub timeout: Duration,
}

/// What came back. Not printable: the answer to a login holds tokens.
#[derive(Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body, as text.
    pub body: String,
    /// The `Location` header, if there was one.
    pub location: Option<String>,
}

/// Why there was no answer. The text holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nothing of the request was written: the backend can not have acted on it.
    #[error("{0}")]
    NotSent(String),
    /// It was written, in part at least, and not answered: the backend may have acted on it.
    #[error("{0}")]
    Unknown(String),
}

/// The cluster's administrator.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: SecretString,
}

/// How long calls may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// When the run has to be over; no call lasts longer.
    pub run: Instant,
    /// For all reads between two mutations together.
    pub reads: Duration,
    /// For one read at one backend, repetitions included, before another is asked.
    pub backend: Duration,
    /// For one mutation.
    pub mutation: Duration,
    /// No mutation starts with less than this left of the run.
    pub margin: Duration,
    /// For a backend to accept a connection.
    pub connect: Duration,
}

impl Deadlines {
    /// Those of S3 and S18 of the scaling rules, for a run that has to be over at `run`.
    pub fn until(run: Instant) -> Self {
        Self {
            run,
            reads: Duration::from_secs(15),
            backend: Duration::from_secs(5),
            mutation: Duration::from_secs(10),
            margin: Duration::from_secs(2),
            connect: CONNECT,
        }
    }
}

/// Backends that were of no use, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried(pub BTreeMap<String, String>);

impl fmt::Display for Tried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, why)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}{address}: {why}")?;
        }
        Ok(())
    }
}

/// A call that brought no result. Only [`CallError::Unknown`] may have changed something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The cluster answered with an error.
    #[error("Weka refused {method}: {text} ({code})")]
    Refused {
        /// The method called.
        method: String,
        /// JSON-RPC's code.
        code: i64,
        /// Weka's words: one line of at most 300 characters, none of them a control character.
        text: String,
    },
    /// A backend that is in a cluster lacks the method: its version is too old.
    #[error("this version of Weka has no {method}")]
    MethodNotFound {
        /// The method called.
        method: String,
    },
    /// A backend answered with an HTTP status that says it did not act; 401 is a token refused.
    #[error("{address} answered {method} with HTTP status {status}")]
    Rejected {
        /// The method called.
        method: String,
        /// Who answered.
        address: String,
        /// The HTTP status.
        status: u16,
    },
    /// User or password are wrong. No further login is tried: Weka locks a user after five failures.
    #[error("{address} refused the login of the Weka user: {why}")]
    LoginRefused {
        /// Who refused.
        address: String,
        /// In which way.
        why: String,
    },
    /// Every backend was tried in vain.
    #[error("no usable backend{}{tried}", if tried.0.is_empty() { " is known" } else { ": " })]
    NoUsableBackend {
        /// All of them, and why.
        tried: Tried,
    },
    /// The mutation was sent, and whether it took effect is not known.
    #[error("whether {address} carried out {method} is not known: {why}")]
    Unknown {
        /// The method called.
        method: String,
        /// Whom it was sent to.
        address: String,
        /// What happened instead of an answer.
        why: String,
    },
    /// No time was left: a mutation was not sent, a read not answered.
    #[error("no time was left for {method}{}{tried}", if tried.0.is_empty() { "" } else { "; " })]
    OutOfTime {
        /// The method called.
        method: String,
        /// The backends that were tried before, and why they were of no use.
        tried: Tried,
    },
    /// What a backend answered a read with is not JSON-RPC.
    #[error("{address} answered {method} with something other than JSON-RPC: {why}")]
    Malformed {
        /// The method called.
        method: String,
        /// Who answered.
        address: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Calls to one cluster in one run. Calls made at the same time wait for each other.
pub struct Client<T> {
    transport: T,
    credentials: Credentials,
    deadlines: Deadlines,
    calls: AtomicUsize,
    pool: Mutex<Pool>,
}

/// What the run has learnt of the backends.
#[derive(Default)]
struct Pool {
    /// Those that may be asked, in order.
    usable: Vec<String>,
    /// The one to stay with.
    active: Option<String>,
    /// The one that answered last.
    answered: Option<String>,
    /// Those that have shown to be in a cluster.
    members: BTreeSet<String>,
    tried: Tried,
    session: Option<Session>,
    login_refused: Option<CallError>,
    /// When the reads since the last mutation have to be over.
    reads_end: Option<Instant>,
}

struct Session {
    token: SecretString,
    refresh: Option<SecretString>,
    expires: Instant,
}

impl Session {
    fn is_fresh(&self) -> bool {
        Instant::now() + TOKEN_MARGIN <= self.expires
    }
}

impl Pool {
    fn give_up(&mut self, address: &str, why: impl Into<String>) {
        self.usable.retain(|each| each != address);
        self.active.take_if(|active| active == address);
        self.tried.0.insert(address.to_owned(), why.into());
    }

    /// A backend's words, fit for a log: without our tokens, of one line, of bounded length.
    fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self
            .session
            .iter()
            .flat_map(|session| [Some(&session.token), session.refresh.as_ref()])
            .flatten()
        {
            text = text.replace(secret.expose_secret(), "***");
        }
        let line = text
            .split(|each: char| each.is_control() || each.is_whitespace())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        if line.chars().count() <= TEXT_LIMIT {
            return line;
        }
        line.chars().take(TEXT_LIMIT - 1).chain(['…']).collect()
    }
}

/// Why one backend brought no result.
enum Trouble {
    /// It is of no use; another may be.
    Backend(String),
    /// None would do better.
    Call(CallError),
}

impl From<TransportError> for Trouble {
    fn from(error: TransportError) -> Self {
        Self::Backend(error.to_string())
    }
}

/// One attempt at a busy backend.
enum Attempt {
    Busy(u16),
    Failed(TransportError),
}

/// A JSON-RPC answer.
enum Answer<V> {
    Result(V),
    Error { code: i64, text: String },
    NoResult,
}

impl<T: Transport> Client<T> {
    /// A client that tries the backends in random order, so that not every run begins with the same one.
    /// `addresses`: their IP addresses, without ports.
    pub fn new(
        transport: T,
        mut addresses: Vec<String>,
        credentials: Credentials,
        deadlines: Deadlines,
        rng: &mut impl Rng,
    ) -> Self {
        addresses.shuffle(rng);
        Self::in_order(transport, addresses, credentials, deadlines)
    }

    /// A client that tries the backends in the order given.
    pub fn in_order(
        transport: T,
        addresses: Vec<String>,
        credentials: Credentials,
        deadlines: Deadlines,
    ) -> Self {
        let mut known = BTreeSet::new();
        let usable = addresses
            .into_iter()
            .filter(|address| known.insert(address.clone()))
            .collect();
        Self {
            transport,
            credentials,
            deadlines,
            calls: AtomicUsize::new(0),
            pool: Mutex::new(Pool {
                usable,
                ..Pool::default()
            }),
        }
    }

    /// How many requests were sent so far, logins and repetitions included.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Asks the active backend no more and never again: its machine's hosts are deactivated or about to be removed.
    pub async fn forget(&self, address: &str) {
        self.pool.lock().await.give_up(address, FORGOTTEN);
    }

    /// The result of a method that changes nothing, from whichever backend gives one in time.
    ///
    /// # Errors
    /// Every kind but [`CallError::Unknown`].
    pub async fn read<V: DeserializeOwned + Send>(
        &self,
        method: &str,
        params: Value,
    ) -> Result<V, CallError> {
        self.read_avoiding(None, &mut *self.pool.lock().await, method, &params)
            .await
    }

    /// The same, from another backend than the one that answered last, where there is another of use.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_elsewhere<V: DeserializeOwned + Send>(
        &self,
        method: &str,
        params: Value,
    ) -> Result<V, CallError> {
        let mut pool = self.pool.lock().await;
        let last = pool.answered.clone();
        self.read_avoiding(last.as_deref(), &mut pool, method, &params)
            .await
    }

    /// The result of a method that changes something. It goes to another backend only where nothing was written to
    /// the one before. S3 of the scaling rules.
    ///
    /// # Errors
    /// [`CallError::Unknown`] where it may have taken effect; every other kind but [`CallError::Malformed`] where it
    /// has not.
    pub async fn mutate(&self, method: &str, params: Value) -> Result<Value, CallError> {
        let mut pool = self.pool.lock().await;
        pool.reads_end = None;
        let last_start = self.deadlines.run - self.deadlines.margin;
        let body = request(method, &params);
        loop {
            let address = self.active(&mut pool, None, method, last_start).await?;
            let until = last_start.min(Instant::now() + self.deadlines.backend);
            let token = match self.token(&mut pool, &address, until).await {
                Ok(token) => token,
                Err(Trouble::Call(error)) => return Err(error),
                Err(Trouble::Backend(why)) => {
                    pool.give_up(&address, why);
                    continue;
                }
            };
            // Again: the login took time, and the process may have stood still.
            let now = Instant::now();
            if now > last_start {
                return Err(out_of_time(method, &pool));
            }
            let limit = self.deadlines.mutation.min(self.deadlines.run - now);
            match self.post(&address, Some(&token), &body, limit).await {
                Err(TransportError::NotSent(why)) => pool.give_up(&address, why),
                Err(TransportError::Unknown(why)) => {
                    pool.give_up(&address, why.clone());
                    return Err(unknown(method, &address, why));
                }
                Ok(reply) => return mutation_outcome(&mut pool, &address, method, &reply),
            }
        }
    }

    async fn read_avoiding<V: DeserializeOwned + Send>(
        &self,
        avoid: Option<&str>,
        pool: &mut Pool,
        method: &str,
        params: &Value,
    ) -> Result<V, CallError> {
        let body = request(method, params);
        let reads_end = Instant::now() + self.deadlines.reads;
        let end = (*pool.reads_end.get_or_insert(reads_end)).min(self.deadlines.run);
        loop {
            let address = self.active(pool, avoid, method, end).await?;
            let until = end.min(Instant::now() + self.deadlines.backend);
            match self.read_at(pool, &address, method, &body, until).await {
                Ok(result) => {
                    pool.answered = Some(address);
                    return Ok(result);
                }
                Err(Trouble::Call(error)) => return Err(error),
                Err(Trouble::Backend(why)) => pool.give_up(&address, why),
            }
        }
    }

    /// The backend to ask: the active one, else the first of the next three that accepts a connection. One to avoid
    /// is only taken when there is no other.
    async fn active(
        &self,
        pool: &mut Pool,
        avoid: Option<&str>,
        method: &str,
        until: Instant,
    ) -> Result<String, CallError> {
        loop {
            if Instant::now() >= until {
                return Err(out_of_time(method, pool));
            }
            if let Some(active) = &pool.active
                && avoid != Some(active)
            {
                return Ok(active.clone());
            }
            let mut candidates: Vec<String> = pool
                .usable
                .iter()
                .filter(|address| avoid != Some(address))
                .take(PROBES)
                .cloned()
                .collect();
            if candidates.is_empty() {
                candidates.clone_from(&pool.usable);
            }
            if candidates.is_empty() {
                let tried = pool.tried.clone();
                return Err(CallError::NoUsableBackend { tried });
            }
            let Ok(first) = timeout_at(until, self.first_to_connect(pool, &candidates)).await
            else {
                return Err(out_of_time(method, pool));
            };
            if let Some(first) = first {
                pool.active = Some(first.clone());
                return Ok(first);
            }
        }
    }

    /// The first that accepts a connection; those that refuse are given up.
    async fn first_to_connect(&self, pool: &mut Pool, candidates: &[String]) -> Option<String> {
        let mut probes: FuturesUnordered<_> = candidates
            .iter()
            .map(|address| async move {
                let limit = self.deadlines.connect;
                (address, self.transport.connect(address, limit).await)
            })
            .collect();
        while let Some((address, outcome)) = probes.next().await {
            match outcome {
                Ok(()) => return Some(address.clone()),
                Err(error) => pool.give_up(address, error.to_string()),
            }
        }
        None
    }

    /// A read at one backend. A method it lacks is only taken for one its version lacks when it has shown to be in a
    /// cluster: else a machine that left the cluster would pass for an old version with empty lists.
    async fn read_at<V: DeserializeOwned + Send>(
        &self,
        pool: &mut Pool,
        address: &str,
        method: &str,
        body: &SecretString,
        until: Instant,
    ) -> Result<V, Trouble> {
        let result = self.ask(pool, address, method, body, until).await;
        if !is_method_lacking(&result) {
            return result;
        }
        let is_old = !CLUSTER_METHODS.contains(&method)
            && (pool.members.contains(address) || self.is_member(pool, address, until).await?);
        if is_old {
            return result;
        }
        Err(Trouble::Backend(NO_CLUSTER.to_owned()))
    }

    /// Whether a backend is in a cluster, by its own word.
    async fn is_member(
        &self,
        pool: &mut Pool,
        address: &str,
        until: Instant,
    ) -> Result<bool, Trouble> {
        let body = request(STATUS, &json!({}));
        let status = self.ask::<Value>(pool, address, STATUS, &body, until).await;
        if is_method_lacking(&status) {
            return Ok(false);
        }
        status.map(|_| true)
    }

    /// A read at one backend, logged in; once more with a new login where the token is refused.
    async fn ask<V: DeserializeOwned + Send>(
        &self,
        pool: &mut Pool,
        address: &str,
        method: &str,
        body: &SecretString,
        until: Instant,
    ) -> Result<V, Trouble> {
        let mut token = self.token(pool, address, until).await?;
        let mut reply = self.exchange(pool, address, &token, body, until).await?;
        if reply.status == UNAUTHORISED {
            pool.session = None;
            token = self.token(pool, address, until).await?;
            reply = self.exchange(pool, address, &token, body, until).await?;
        }
        if reply.status == UNAUTHORISED {
            pool.session = None;
            return Err(Trouble::Call(rejected(method, address, reply.status)));
        }
        if !SUCCESS.contains(&reply.status) {
            return Err(Trouble::Backend(http_status(reply.status)));
        }
        let malformed = |why| {
            Trouble::Call(CallError::Malformed {
                method: method.to_owned(),
                address: address.to_owned(),
                why,
            })
        };
        match answer(&reply.body).map_err(malformed)? {
            Answer::Result(result) => {
                if CLUSTER_METHODS.contains(&method) {
                    pool.members.insert(address.to_owned());
                }
                Ok(result)
            }
            Answer::Error { code, text } => Err(Trouble::Call(refused(pool, method, code, &text))),
            Answer::NoResult => Err(malformed("it has neither a result nor an error".to_owned())),
        }
    }

    /// The answer to a read: a busy backend is asked again, one that sends elsewhere is followed.
    async fn exchange(
        &self,
        pool: &Pool,
        address: &str,
        token: &SecretString,
        body: &SecretString,
        until: Instant,
    ) -> Result<Reply, Trouble> {
        let mut at = address.to_owned();
        for _ in 0..=REDIRECTS {
            let reply = self.ask_until_free(&at, token, body, until).await?;
            if reply.status != MOVED {
                return Ok(reply);
            }
            let target = reply.location.as_deref().and_then(redirect_target);
            at = target
                .filter(|target| !pool.tried.0.contains_key(target))
                .ok_or_else(|| Trouble::Backend("it sends elsewhere, to no backend".to_owned()))?;
        }
        Err(Trouble::Backend("it sends in circles".to_owned()))
    }

    async fn ask_until_free(
        &self,
        address: &str,
        token: &SecretString,
        body: &SecretString,
        until: Instant,
    ) -> Result<Reply, Trouble> {
        let attempt = || async {
            let left = until - Instant::now();
            match self.post(address, Some(token), body, left).await {
                Ok(reply) if BUSY.contains(&reply.status) => Err(Attempt::Busy(reply.status)),
                Ok(reply) => Ok(reply),
                Err(error) => Err(Attempt::Failed(error)),
            }
        };
        let pauses = ConstantBuilder::new()
            .with_delay(BUSY_PAUSE)
            .without_max_times();
        attempt
            .retry(pauses)
            .when(|attempt| {
                matches!(attempt, Attempt::Busy(_)) && Instant::now() + BUSY_PAUSE < until
            })
            .await
            .map_err(|attempt| match attempt {
                Attempt::Busy(status) => Trouble::Backend(http_status(status)),
                Attempt::Failed(error) => error.into(),
            })
    }

    /// A token that is good for a while: the one at hand, else a renewed one, else that of a new login.
    async fn token(
        &self,
        pool: &mut Pool,
        address: &str,
        until: Instant,
    ) -> Result<SecretString, Trouble> {
        if let Some(refused) = &pool.login_refused {
            return Err(Trouble::Call(refused.clone()));
        }
        if let Some(session) = pool.session.as_ref().filter(|session| session.is_fresh()) {
            return Ok(session.token.clone());
        }
        let session = match pool.session.take().and_then(|session| session.refresh) {
            Some(refresh) => self.refresh(address, &refresh, until).await?,
            None => None,
        };
        let session = match session {
            Some(session) => session,
            None => self.login(pool, address, until).await?,
        };
        let token = session.token.clone();
        pool.session = Some(session);
        Ok(token)
    }

    /// A new session for a refresh token; `None` where the backend will not have it.
    async fn refresh(
        &self,
        address: &str,
        refresh: &SecretString,
        until: Instant,
    ) -> Result<Option<Session>, Trouble> {
        let start = Instant::now();
        let body = request(REFRESH, &json!([refresh.expose_secret()]));
        let reply = self.post(address, None, &body, until - start).await?;
        if !SUCCESS.contains(&reply.status) {
            return Ok(None);
        }
        Ok(match answer(&reply.body) {
            Ok(Answer::Result(result)) => session(&result, start),
            _ => None,
        })
    }

    /// A new session. What a backend says of a failed login is not repeated: it may hold the password.
    async fn login(
        &self,
        pool: &mut Pool,
        address: &str,
        until: Instant,
    ) -> Result<Session, Trouble> {
        let start = Instant::now();
        let password = self.credentials.password.expose_secret();
        let body = request(LOGIN, &json!([self.credentials.user, password]));
        let reply = self.post(address, None, &body, until - start).await?;
        let why = match reply.status {
            status if LOGIN_REFUSED.contains(&status) => http_status(status),
            status if !SUCCESS.contains(&status) => {
                let why = format!("{} to the login", http_status(status));
                return Err(Trouble::Backend(why));
            }
            _ => match answer(&reply.body) {
                Err(_) => {
                    let why = "it answered the login with something other than JSON-RPC";
                    return Err(Trouble::Backend(why.to_owned()));
                }
                Ok(Answer::Error { code, .. }) if code == METHOD_NOT_FOUND => {
                    return Err(Trouble::Backend(NO_CLUSTER.to_owned()));
                }
                Ok(Answer::Error { code, .. }) => format!("JSON-RPC error {code}"),
                Ok(Answer::NoResult) => "no access token in the answer".to_owned(),
                Ok(Answer::Result(result)) => match session(&result, start) {
                    Some(session) => return Ok(session),
                    None => "no access token in the answer".to_owned(),
                },
            },
        };
        let refused = CallError::LoginRefused {
            address: address.to_owned(),
            why,
        };
        pool.login_refused = Some(refused.clone());
        Err(Trouble::Call(refused))
    }

    /// One exchange, counted unless nothing was written.
    async fn post(
        &self,
        address: &str,
        token: Option<&SecretString>,
        body: &SecretString,
        limit: Duration,
    ) -> Result<Reply, TransportError> {
        let request = Request {
            address,
            token,
            body,
            timeout: limit,
        };
        let reply = timeout(limit, self.transport.post(request))
            .await
            .unwrap_or_else(|_| {
                let why = format!("no answer within {:.1} s", limit.as_secs_f64());
                Err(TransportError::Unknown(why))
            });
        if !matches!(reply, Err(TransportError::NotSent(_))) {
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
        reply
    }
}

/// A JSON-RPC request. The id is a string: Weka's own client sends it so.
fn request(method: &str, params: &Value) -> SecretString {
    json!({"jsonrpc": "2.0", "id": "1", "method": method, "params": params})
        .to_string()
        .into()
}

/// A JSON-RPC answer as it is sent. The result is read once, as what it is: those of a large cluster are long.
#[derive(Deserialize)]
struct Envelope<'a> {
    jsonrpc: Option<Value>,
    error: Option<Value>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

/// Reads a JSON-RPC answer.
///
/// # Errors
/// It is none, or its result is not of the kind.
fn answer<V: DeserializeOwned>(body: &str) -> Result<Answer<V>, String> {
    let envelope: Envelope<'_> = serde_json::from_str(body).map_err(|error| {
        let what = if error.is_data() { "an object" } else { "JSON" };
        format!("it is not {what}")
    })?;
    if let Some(error) = envelope.error {
        let code = error.get("code").and_then(Value::as_i64);
        let message = error.get("message").or(error.as_str().map(|_| &error));
        let text = match message.and_then(Value::as_str) {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => error.to_string(),
        };
        return Ok(Answer::Error {
            code: code.unwrap_or(UNKNOWN_ERROR),
            text,
        });
    }
    match envelope.result {
        Some(result) => serde_json::from_str(result.get())
            .map(Answer::Result)
            .map_err(|error| format!("its result can not be read: {error}")),
        None if envelope.jsonrpc.is_some() => Ok(Answer::NoResult),
        None => Err("it has neither a result nor an error".to_owned()),
    }
}

/// The session that a login at `start` has brought; `None` without an access token.
fn session(result: &Value, start: Instant) -> Option<Session> {
    let secret = |key| {
        let text = result.get(key)?.as_str()?;
        (!text.is_empty()).then(|| SecretString::from(text))
    };
    let life = result.get("expires_in").and_then(Value::as_u64);
    // Bounded, so that no number a backend tells can overflow the clock.
    let life = life.map_or(TOKEN_LIFE, |life| Duration::from_secs(life).min(TOKEN_LIFE));
    Some(Session {
        token: secret("access_token")?,
        refresh: secret("refresh_token"),
        expires: start + life,
    })
}

/// What became of a mutation that was answered.
fn mutation_outcome(
    pool: &mut Pool,
    address: &str,
    method: &str,
    reply: &Reply,
) -> Result<Value, CallError> {
    match reply.status {
        status if SUCCESS.contains(&status) => match answer(&reply.body) {
            Ok(Answer::Result(result)) => {
                pool.answered = Some(address.to_owned());
                Ok(result)
            }
            Ok(Answer::NoResult) => {
                pool.answered = Some(address.to_owned());
                Ok(Value::Null)
            }
            Ok(Answer::Error { code, text }) => Err(refused(pool, method, code, &text)),
            Err(why) => {
                let why = format!("the answer is not JSON-RPC: {why}");
                Err(unknown(method, address, why))
            }
        },
        status @ 300..500 => {
            if status == UNAUTHORISED {
                pool.session = None;
            }
            Err(rejected(method, address, status))
        }
        status => Err(unknown(method, address, http_status(status))),
    }
}

/// The address in a `Location`: only an IP address, and only on the management port.
fn redirect_target(location: &str) -> Option<String> {
    let (_, rest) = location.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let address: std::net::SocketAddr = authority.parse().ok()?;
    (address.port() == MANAGEMENT_PORT).then(|| address.ip().to_string())
}

fn http_status(status: u16) -> String {
    format!("HTTP status {status}")
}

fn is_method_lacking<V>(result: &Result<V, Trouble>) -> bool {
    matches!(result, Err(Trouble::Call(CallError::MethodNotFound { .. })))
}

fn refused(pool: &Pool, method: &str, code: i64, text: &str) -> CallError {
    if code == METHOD_NOT_FOUND {
        return CallError::MethodNotFound {
            method: method.to_owned(),
        };
    }
    CallError::Refused {
        method: method.to_owned(),
        code,
        text: pool.clean(text),
    }
}

fn rejected(method: &str, address: &str, status: u16) -> CallError {
    CallError::Rejected {
        method: method.to_owned(),
        address: address.to_owned(),
        status,
    }
}

fn unknown(method: &str, address: &str, why: String) -> CallError {
    CallError::Unknown {
        method: method.to_owned(),
        address: address.to_owned(),
        why,
    }
}

fn out_of_time(method: &str, pool: &Pool) -> CallError {
    CallError::OutOfTime {
        method: method.to_owned(),
        tried: pool.tried.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::sync::Mutex as StdMutex;
    use tokio::time::{advance, sleep};

    const A: &str = "10.0.0.1";
    const B: &str = "10.0.0.2";
    const C: &str = "10.0.0.3";
    const D: &str = "10.0.0.4";
    const PASSWORD: &str = "hunter2-hunter2";
    const REMOVE: &str = "cluster_remove_host";

    /// A request as the fake got it.
    #[derive(Debug, Clone)]
    struct Sent {
        /// Seconds since the client was made.
        at: u64,
        address: String,
        method: String,
        params: Value,
        token: Option<String>,
        /// How many of this method came before.
        nth: usize,
        timeout: Duration,
    }

    enum Step {
        Status(u16),
        Result(Value),
        Error(i64, String),
        Text(String),
        Moved(String),
        NotSent,
        Unknown,
        Silence,
        After(Duration),
        /// The answer of a good backend, after which the process stood still.
        Freeze(Duration),
    }

    type Script = Box<dyn Fn(&Sent) -> Step + Send + Sync>;

    struct Fake {
        start: Instant,
        script: Script,
        /// Addresses that accept no connection, and how long they take to say so.
        dead: BTreeMap<&'static str, Duration>,
        connects: StdMutex<Vec<(u64, String)>>,
        log: StdMutex<Vec<Sent>>,
    }

    impl Fake {
        fn new(script: impl Fn(&Sent) -> Step + Send + Sync + 'static) -> Self {
            Self {
                start: Instant::now(),
                script: Box::new(script),
                dead: BTreeMap::new(),
                connects: StdMutex::default(),
                log: StdMutex::default(),
            }
        }

        fn dead(mut self, address: &'static str, after: Duration) -> Self {
            self.dead.insert(address, after);
            self
        }

        fn record(&self, request: &Request<'_>) -> Sent {
            let body: Value = serde_json::from_str(request.body.expose_secret()).expect("JSON");
            assert_eq!(
                (&body["jsonrpc"], &body["id"]),
                (&json!("2.0"), &json!("1"))
            );
            let method = body["method"].as_str().expect("a method").to_owned();
            let mut log = self.log.lock().expect("no panic");
            let sent = Sent {
                at: self.start.elapsed().as_secs(),
                address: request.address.to_owned(),
                params: body["params"].clone(),
                token: request.token.map(|token| token.expose_secret().to_owned()),
                nth: log.iter().filter(|each| each.method == method).count(),
                method,
                timeout: request.timeout,
            };
            log.push(sent.clone());
            sent
        }
    }

    impl Transport for Fake {
        async fn connect(&self, address: &str, limit: Duration) -> Result<(), TransportError> {
            let at = self.start.elapsed().as_secs();
            self.connects
                .lock()
                .expect("no panic")
                .push((at, address.to_owned()));
            match self.dead.get(address) {
                Some(after) => {
                    sleep(limit.min(*after)).await;
                    Err(TransportError::NotSent("nobody there".to_owned()))
                }
                None => Ok(()),
            }
        }

        async fn post(&self, request: Request<'_>) -> Result<Reply, TransportError> {
            let sent = self.record(&request);
            let reply = |status, body: Value| {
                Ok(Reply {
                    status,
                    body: body.to_string(),
                    location: None,
                })
            };
            match (self.script)(&sent) {
                Step::Status(status) => reply(status, Value::Null),
                Step::Result(result) => reply(200, json!({"jsonrpc": "2.0", "result": result})),
                Step::Error(code, text) => reply(
                    200,
                    json!({"jsonrpc": "2.0", "id": "1", "error": {"code": code, "message": text, "data": null}}),
                ),
                Step::Text(body) => Ok(Reply {
                    status: 200,
                    body,
                    location: None,
                }),
                Step::Moved(location) => Ok(Reply {
                    status: 301,
                    body: String::new(),
                    location: Some(location),
                }),
                Step::NotSent => Err(TransportError::NotSent("connection refused".to_owned())),
                Step::Unknown => Err(TransportError::Unknown("closed in the middle".to_owned())),
                Step::Silence => std::future::pending().await,
                Step::After(pause) => {
                    sleep(pause).await;
                    reply(200, json!({"jsonrpc": "2.0", "result": "late"}))
                }
                Step::Freeze(pause) => {
                    advance(pause).await;
                    match good(&sent) {
                        Step::Result(result) => reply(200, json!({"result": result})),
                        _ => reply(500, Value::Null),
                    }
                }
            }
        }
    }

    impl<T> Client<T> {
        async fn usable(&self) -> Vec<String> {
            self.pool.lock().await.usable.clone()
        }
    }

    impl Client<Fake> {
        /// Who was sent which method, logins left out.
        fn sent(&self) -> Vec<(String, String)> {
            self.log()
                .into_iter()
                .filter(|sent| sent.method != LOGIN)
                .map(|sent| (sent.address, sent.method))
                .collect()
        }

        fn log(&self) -> Vec<Sent> {
            self.transport.log.lock().expect("no panic").clone()
        }

        fn count(&self, method: &str) -> usize {
            let log = self.log();
            log.iter().filter(|sent| sent.method == method).count()
        }
    }

    /// What a backend in good order answers.
    fn good(sent: &Sent) -> Step {
        if [LOGIN, REFRESH].contains(&sent.method.as_str()) {
            let token = format!("token-{}-{}", sent.method, sent.nth);
            return Step::Result(json!({
                "access_token": token,
                "refresh_token": "the-refresh-token",
                "token_type": "Bearer",
                "expires_in": 300,
            }));
        }
        Step::Result(json!({"from": sent.address, "method": sent.method}))
    }

    fn credentials() -> Credentials {
        Credentials {
            user: "admin".to_owned(),
            password: PASSWORD.into(),
        }
    }

    fn in_time() -> Deadlines {
        Deadlines::until(Instant::now() + Duration::from_secs(600))
    }

    fn client(
        addresses: &[&str],
        script: impl Fn(&Sent) -> Step + Send + Sync + 'static,
    ) -> Client<Fake> {
        over(Fake::new(script), addresses, in_time())
    }

    fn over(fake: Fake, addresses: &[&str], deadlines: Deadlines) -> Client<Fake> {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        Client::in_order(fake, addresses, credentials(), deadlines)
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned =
            |(address, method): &(&str, &str)| ((*address).to_owned(), (*method).to_owned());
        expected.iter().map(owned).collect()
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn the_order_of_the_backends_is_the_generators() {
        let order = async |seed| {
            let addresses = (1..=8).map(|n| format!("10.0.0.{n}")).collect();
            let mut rng = StdRng::seed_from_u64(seed);
            let client = Client::new(
                Fake::new(good),
                addresses,
                credentials(),
                in_time(),
                &mut rng,
            );
            client.usable().await
        };
        assert_eq!(order(1).await, order(1).await);
        let firsts: BTreeSet<String> = futures::future::join_all((0..20).map(order))
            .await
            .into_iter()
            .map(|order| order[0].clone())
            .collect();
        assert!(firsts.len() > 3, "{firsts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_run_is_one_login_and_one_request_a_call() {
        let client = client(&[A, B, C, D, "10.0.0.5", "10.0.0.6"], good);
        assert_eq!(client.calls(), 0);
        let reads = [
            "status",
            "hosts_list",
            "nodes_list",
            "disks_list",
            "manual_override_list",
        ];
        for method in reads {
            let result = client
                .read::<Value>(method, json!({}))
                .await
                .expect("an answer");
            assert_eq!(result, json!({"from": A, "method": method}));
        }
        client
            .mutate(REMOVE, json!({"host_id": 3}))
            .await
            .expect("an answer");
        assert_eq!(client.calls(), reads.len() + 2);
        assert_eq!(client.count(LOGIN), 1);
        let log = client.log();
        assert_eq!(log[0].params, json!(["admin", PASSWORD]));
        assert_eq!(log[0].token, None);
        for sent in &log[1..] {
            assert_eq!(sent.address, A);
            assert_eq!(sent.token.as_deref(), Some("token-user_login-0"));
        }
        assert_eq!(log[6].params, json!({"host_id": 3}));
        let probed = client.transport.connects.lock().expect("no panic").clone();
        assert!(probed.len() <= PROBES, "{probed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn three_are_probed_at_once_and_the_first_that_connects_is_asked() {
        let fake = Fake::new(good).dead(A, secs(60)).dead(B, Duration::ZERO);
        let client = over(fake, &[A, B, C, D], in_time());
        client
            .read::<Value>("status", json!({}))
            .await
            .expect("an answer");
        assert_eq!(client.sent(), pairs(&[(C, "status")]));
        assert_eq!(client.log()[0].at, 0, "it waited for one that is silent");
        let probed = client.transport.connects.lock().expect("no panic").clone();
        assert_eq!(probed, [A, B, C].map(|each| (0, each.to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_ends_after_a_second() {
        let fake = [A, B, C]
            .into_iter()
            .fold(Fake::new(good), |fake, each| fake.dead(each, secs(60)));
        let client = over(fake, &[A, B, C, D], in_time());
        client
            .read::<Value>("status", json!({}))
            .await
            .expect("an answer");
        let probed = client.transport.connects.lock().expect("no panic").clone();
        let expected = [(0, A), (0, B), (0, C), (1, D)];
        assert_eq!(probed, expected.map(|(at, each)| (at, each.to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_of_no_use_is_left_for_good() {
        type Case = (&'static str, &'static str, fn() -> Step);
        let cases: [Case; 12] = [
            ("status", "status", || Step::NotSent),
            ("status", "status", || Step::Unknown),
            ("status", "status", || Step::Silence),
            ("status", "status", || {
                Step::Error(METHOD_NOT_FOUND, "Method not found".to_owned())
            }),
            ("hosts_list", "hosts_list", || {
                Step::Error(METHOD_NOT_FOUND, String::new())
            }),
            ("status", "status", || Step::Status(404)),
            ("status", LOGIN, || Step::NotSent),
            ("status", LOGIN, || Step::Unknown),
            ("status", LOGIN, || Step::Silence),
            ("status", LOGIN, || Step::Status(503)),
            ("status", LOGIN, || Step::Text("<html>".to_owned())),
            ("status", LOGIN, || {
                Step::Error(METHOD_NOT_FOUND, String::new())
            }),
        ];
        for (index, (method, fails, step)) in cases.into_iter().enumerate() {
            let client = client(&[A, B], move |sent| {
                if sent.address == A && sent.method == fails {
                    step()
                } else {
                    good(sent)
                }
            });
            for _ in 0..2 {
                let result = client
                    .read::<Value>(method, json!({}))
                    .await
                    .expect("an answer");
                assert_eq!(result["from"], B, "case {index}");
            }
            let to_a = client
                .log()
                .iter()
                .filter(|sent| sent.address == A && sent.method == fails)
                .count();
            assert_eq!(to_a, 1, "case {index}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_without_a_usable_backend_is_an_error() {
        let client = client(&[A, B], |sent| match sent.address.as_str() {
            A => Step::NotSent,
            _ => Step::Status(502),
        });
        for _ in 0..2 {
            let error = client
                .read::<Value>("hosts_list", json!({}))
                .await
                .expect_err("a failure");
            assert_eq!(
                error.to_string(),
                format!(
                    "no usable backend: {A}: connection refused; {B}: HTTP status 502 to the login"
                )
            );
        }
        assert_eq!(client.log().len(), 2);
        assert_eq!(client.calls(), 1, "what was not sent is no call");

        let error = over(Fake::new(good), &[], in_time())
            .mutate(REMOVE, json!({}))
            .await;
        assert_eq!(
            error.expect_err("a failure").to_string(),
            "no usable backend is known"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_login_is_not_tried_again() {
        let cases: [fn() -> Step; 7] = [
            || Step::Status(401),
            || Step::Status(403),
            || Step::Result(json!({})),
            || Step::Result(Value::Null),
            || Step::Result(json!({"access_token": ""})),
            || Step::Text(r#"{"jsonrpc":"2.0","id":"1"}"#.to_owned()),
            || Step::Error(-32602, format!("wrong password {PASSWORD}")),
        ];
        for (index, step) in cases.into_iter().enumerate() {
            let client = client(&[A, B, C], move |_| step());
            let errors = [
                client.read::<Value>("status", json!({})).await,
                client.read_elsewhere::<Value>("status", json!({})).await,
                client.mutate(REMOVE, json!({})).await,
            ];
            for error in errors.map(|result| result.expect_err("a refusal")) {
                assert!(
                    matches!(&error, CallError::LoginRefused { address, .. } if address == A),
                    "case {index}: {error}"
                );
                assert!(!format!("{error:?}{error}").contains(PASSWORD), "{error}");
            }
            assert_eq!(client.log().len(), 1, "case {index}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_before_it_ends_and_not_sooner() {
        let client = client(&[A], good);
        for (wait, token, requests) in [
            (0, "token-user_login-0", 2),
            (269, "token-user_login-0", 3),
            (2, "token-user_refresh_token-0", 5),
        ] {
            sleep(secs(wait)).await;
            client.mutate(REMOVE, json!({})).await.expect("an answer");
            let log = client.log();
            assert_eq!(log.last().expect("a request").token.as_deref(), Some(token));
            assert_eq!(log.len(), requests);
        }
        let log = client.log();
        assert_eq!(log[3].params, json!(["the-refresh-token"]));
        assert_eq!(client.count(LOGIN), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_refresh_is_refused_there_is_a_login() {
        let cases: [fn() -> Step; 4] = [
            || Step::Status(401),
            || Step::Status(500),
            || Step::Error(-32602, String::new()),
            || Step::Result(json!({})),
        ];
        for step in cases {
            let client = client(&[A, B], move |sent| {
                if sent.method == REFRESH {
                    step()
                } else {
                    good(sent)
                }
            });
            client
                .read::<Value>("status", json!({}))
                .await
                .expect("an answer");
            sleep(secs(280)).await;
            client.mutate(REMOVE, json!({})).await.expect("an answer");
            let methods: Vec<String> = client.log().into_iter().map(|sent| sent.method).collect();
            assert_eq!(methods, [LOGIN, "status", REFRESH, LOGIN, REMOVE]);
            assert!(client.log().iter().all(|sent| sent.address == A));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_costs_one_new_login() {
        let once = client(&[A, B], |sent| match (sent.method.as_str(), sent.nth) {
            ("status", 0) => Step::Status(401),
            _ => good(sent),
        });
        once.read::<Value>("status", json!({}))
            .await
            .expect("an answer");
        let methods: Vec<String> = once.log().into_iter().map(|sent| sent.method).collect();
        assert_eq!(methods, [LOGIN, "status", LOGIN, "status"]);
        assert_eq!(once.log()[3].token.as_deref(), Some("token-user_login-1"));

        let always = client(&[A, B], |sent| match sent.method.as_str() {
            "status" => Step::Status(401),
            _ => good(sent),
        });
        let error = always
            .read::<Value>("status", json!({}))
            .await
            .expect_err("a failure");
        assert_eq!(
            error.to_string(),
            format!("{A} answered status with HTTP status 401")
        );
        assert_eq!(always.log().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_backend_is_asked_again_every_second() {
        let client = client(&[A, B], |sent| match (sent.method.as_str(), sent.nth) {
            ("status", 0) => Step::Status(500),
            ("status", 1) => Step::Status(502),
            ("status", 2) => Step::Status(503),
            _ => good(sent),
        });
        let result = client
            .read::<Value>("status", json!({}))
            .await
            .expect("an answer");
        assert_eq!(result["from"], A);
        let times: Vec<u64> = client.log().iter().skip(1).map(|sent| sent.at).collect();
        assert_eq!(times, [0, 1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_busy_is_left_for_the_next() {
        let client = client(&[A, B], |sent| {
            match (sent.method.as_str(), sent.address.as_str()) {
                ("status", A) => Step::Status(503),
                _ => good(sent),
            }
        });
        let result = client
            .read::<Value>("status", json!({}))
            .await
            .expect("an answer");
        assert_eq!(result["from"], B);
        let times: Vec<u64> = client.log().iter().skip(1).map(|sent| sent.at).collect();
        assert_eq!(times, [0, 1, 2, 3, 4, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_follows_a_backend_that_sends_it_to_another() {
        for (location, leads_to) in [
            ("https://10.0.0.9:14000/api/v1", "10.0.0.9"),
            ("http://10.0.0.9:14000", "10.0.0.9"),
            ("https://[fd00::9]:14000/api/v1", "fd00::9"),
            ("https://10.0.0.9:22/api/v1", B),
            ("https://10.0.0.9/api/v1", B),
            ("https://evil.example:14000/api/v1", B),
            ("https://10.0.0.9:14000@evil.example/api/v1", B),
            ("/api/v1", B),
            ("https://10.0.0.1:14000/api/v1", B),
            ("https://10.0.0.3:14000/api/v1", B),
        ] {
            let client = client(&[A, B, C], move |sent| {
                match (sent.method.as_str(), sent.address.as_str()) {
                    ("status", A) => Step::Moved(location.to_owned()),
                    _ => good(sent),
                }
            });
            client.forget(C).await;
            let result = client
                .read::<Value>("status", json!({}))
                .await
                .expect("an answer");
            assert_eq!(result["from"], leads_to, "{location}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_reads_together_end_in_time() {
        let client = client(&[A, B, C, D], |sent| match sent.method.as_str() {
            LOGIN => good(sent),
            "slow" => Step::After(secs(4)),
            _ => Step::Silence,
        });
        let start = Instant::now();
        for _ in 0..2 {
            assert_eq!(
                client
                    .read::<Value>("slow", json!({}))
                    .await
                    .expect("an answer"),
                "late"
            );
        }
        let error = client
            .read::<Value>("silent", json!({}))
            .await
            .expect_err("a failure");
        assert_eq!(start.elapsed(), secs(15));
        assert_eq!(
            error.to_string(),
            format!(
                "no time was left for silent; {A}: no answer within 5.0 s; {B}: no answer within 2.0 s"
            )
        );
        let requests = client.log().len();
        let error = client
            .read::<Value>("slow", json!({}))
            .await
            .expect_err("a failure");
        assert!(matches!(error, CallError::OutOfTime { .. }), "{error}");
        assert_eq!(client.log().len(), requests);
    }

    #[tokio::test(start_paused = true)]
    async fn reads_after_a_mutation_have_time_of_their_own_within_the_runs() {
        let deadlines = Deadlines::until(Instant::now() + secs(40));
        let client = over(
            Fake::new(|sent| match sent.method.as_str() {
                "slow" => Step::After(secs(4)),
                _ => good(sent),
            }),
            &[A, B],
            deadlines,
        );
        client
            .read::<Value>("status", json!({}))
            .await
            .expect("an answer");
        sleep(secs(30)).await;
        assert!(client.read::<Value>("status", json!({})).await.is_err());
        client.mutate(REMOVE, json!({})).await.expect("an answer");
        client
            .read::<Value>("slow", json!({}))
            .await
            .expect("an answer");
        client
            .read::<Value>("slow", json!({}))
            .await
            .expect("an answer");
        assert!(client.read::<Value>("slow", json!({})).await.is_err());
        assert_eq!(Instant::now(), deadlines.run);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mutation_that_was_written_is_never_sent_again() {
        let cases: [fn() -> Step; 6] = [
            || Step::Unknown,
            || Step::Silence,
            || Step::Status(500),
            || Step::Status(503),
            || Step::Text("<html>".to_owned()),
            || Step::Text("{}".to_owned()),
        ];
        for (index, step) in cases.into_iter().enumerate() {
            let client = client(&[A, B], move |sent| {
                if sent.method == REMOVE {
                    step()
                } else {
                    good(sent)
                }
            });
            let start = Instant::now();
            let error = client
                .mutate(REMOVE, json!({"host_id": 1}))
                .await
                .expect_err("a failure");
            assert!(
                matches!(&error, CallError::Unknown { address, .. } if address == A),
                "case {index}: {error}"
            );
            assert_eq!(client.count(REMOVE), 1, "case {index}");
            assert!(start.elapsed() <= secs(10), "case {index}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_mutation_that_was_not_written_goes_to_the_next() {
        let client = client(&[A, B], |sent| {
            match (sent.method.as_str(), sent.address.as_str()) {
                (REMOVE, A) => Step::NotSent,
                _ => good(sent),
            }
        });
        client.mutate(REMOVE, json!({})).await.expect("an answer");
        assert_eq!(client.sent(), pairs(&[(A, REMOVE), (B, REMOVE)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_mutation_starts_two_seconds_before_the_end_at_the_latest_and_ends_with_it() {
        for (left, sent_for) in [
            (60, Some(10)),
            (12, Some(10)),
            (5, Some(5)),
            (2, None),
            (1, None),
        ] {
            let deadlines = Deadlines::until(Instant::now() + secs(100));
            let client = over(Fake::new(good), &[A, B], deadlines);
            client
                .read::<Value>("status", json!({}))
                .await
                .expect("an answer");
            sleep(secs(100 - left)).await;
            let result = client.mutate(REMOVE, json!({})).await;
            if let Some(limit) = sent_for {
                result.expect("an answer");
                let log = client.log();
                assert_eq!(log.last().map(|sent| sent.timeout), Some(secs(limit)));
            } else {
                let error = result.expect_err("no time");
                assert_eq!(error.to_string(), format!("no time was left for {REMOVE}"));
                assert_eq!(client.count(REMOVE), 0);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_takes_the_mutations_time_leaves_it_unsent() {
        let deadlines = Deadlines::until(Instant::now() + secs(6));
        let client = over(Fake::new(|_| Step::Silence), &[A, B], deadlines);
        let error = client
            .mutate(REMOVE, json!({}))
            .await
            .expect_err("a failure");
        assert!(matches!(error, CallError::OutOfTime { .. }), "{error}");
        assert_eq!(client.count(REMOVE), 0);
        assert_eq!(Instant::now(), deadlines.run - secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stood_still_looks_at_the_clock_before_it_sends_a_mutation() {
        let deadlines = Deadlines::until(Instant::now() + secs(6));
        let fake = Fake::new(|sent| match sent.method.as_str() {
            LOGIN => Step::Freeze(secs(30)),
            _ => good(sent),
        });
        let client = over(fake, &[A, B], deadlines);
        let error = client.mutate(REMOVE, json!({})).await.expect_err("no time");
        assert!(matches!(error, CallError::OutOfTime { .. }), "{error}");
        assert_eq!(client.count(REMOVE), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_mutation_was_answered_is_told() {
        let outcome = async |step: fn() -> Step| {
            let client = client(&[A, B], move |sent| {
                if sent.method == REMOVE {
                    step()
                } else {
                    good(sent)
                }
            });
            let outcome = client.mutate(REMOVE, json!({})).await;
            assert_eq!(client.count(REMOVE), 1);
            outcome.map_err(|error| error.to_string())
        };
        assert_eq!(outcome(|| Step::Result(Value::Null)).await, Ok(Value::Null));
        assert_eq!(
            outcome(|| Step::Text(r#"{"jsonrpc":"2.0"}"#.to_owned())).await,
            Ok(Value::Null)
        );
        for (step, told) in [
            (
                (|| Step::Error(-32603, "Not enough capacity".to_owned())) as fn() -> Step,
                "Weka refused cluster_remove_host: Not enough capacity (-32603)",
            ),
            (
                || Step::Error(METHOD_NOT_FOUND, "Method not found".to_owned()),
                "this version of Weka has no cluster_remove_host",
            ),
            (
                || Step::Status(400),
                "10.0.0.1 answered cluster_remove_host with HTTP status 400",
            ),
            (
                || Step::Status(401),
                "10.0.0.1 answered cluster_remove_host with HTTP status 401",
            ),
            (
                || Step::Moved("https://10.0.0.2:14000/api/v1".to_owned()),
                "10.0.0.1 answered cluster_remove_host with HTTP status 301",
            ),
        ] {
            assert_eq!(outcome(step).await, Err(told.to_owned()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_success_of_http_is_one() {
        for status in [200, 201, 202] {
            let reply = Reply {
                status,
                body: r#"{"result":1}"#.to_owned(),
                location: None,
            };
            let outcome = mutation_outcome(&mut Pool::default(), A, REMOVE, &reply);
            assert_eq!(outcome, Ok(json!(1)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_refused_token_the_next_call_logs_in_anew() {
        let client = client(&[A], |sent| match (sent.method.as_str(), sent.nth) {
            (REMOVE, 0) => Step::Status(401),
            _ => good(sent),
        });
        client
            .mutate(REMOVE, json!({}))
            .await
            .expect_err("a failure");
        client.mutate(REMOVE, json!({})).await.expect("an answer");
        assert_eq!(client.count(LOGIN), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_method_that_is_lacking_is_told_from_a_cluster_that_is_lacking() {
        let lacking = || Step::Error(METHOD_NOT_FOUND, "Method not found".to_owned());
        let old = client(&[A, B], move |sent| match sent.method.as_str() {
            "manual_override_list" => lacking(),
            _ => good(sent),
        });
        let not_found = Err(CallError::MethodNotFound {
            method: "manual_override_list".to_owned(),
        });
        assert_eq!(
            old.read::<Value>("manual_override_list", json!({})).await,
            not_found
        );
        assert_eq!(
            old.read::<Value>("manual_override_list", json!({})).await,
            not_found
        );
        assert_eq!(
            old.sent(),
            pairs(&[
                (A, "manual_override_list"),
                (A, "status"),
                (A, "manual_override_list")
            ])
        );

        let alone = client(&[A, B], move |sent| {
            match (sent.method.as_str(), sent.address.as_str()) {
                (LOGIN, _) | (_, B) => good(sent),
                _ => lacking(),
            }
        });
        let result = alone
            .read::<Value>("manual_override_list", json!({}))
            .await
            .expect("an answer");
        assert_eq!(result["from"], B);
        assert_eq!(alone.usable().await, [B]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_opinion_comes_from_another_backend_where_there_is_one() {
        let client = client(&[A, B], |sent| match (sent.method.as_str(), sent.nth) {
            ("hosts_list", 3) => Step::NotSent,
            _ => good(sent),
        });
        client
            .read::<Value>("hosts_list", json!({}))
            .await
            .expect("an answer");
        for other in [B, A] {
            let result = client
                .read_elsewhere::<Value>("hosts_list", json!({}))
                .await
                .expect("an answer");
            assert_eq!(result["from"], other);
        }
        let result = client
            .read_elsewhere::<Value>("hosts_list", json!({}))
            .await
            .expect("an answer");
        assert_eq!(result["from"], A, "the only one left");
        assert_eq!(client.count(LOGIN), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_forgotten_backend_is_asked_no_more() {
        let client = client(&[A, B], good);
        client
            .read::<Value>("status", json!({}))
            .await
            .expect("an answer");
        client.forget(A).await;
        let result = client
            .read::<Value>("status", json!({}))
            .await
            .expect("an answer");
        assert_eq!(result["from"], B);
        client.forget(B).await;
        let error = client
            .read::<Value>("status", json!({}))
            .await
            .expect_err("a failure");
        assert_eq!(
            error.to_string(),
            format!("no usable backend: {A}: {FORGOTTEN}; {B}: {FORGOTTEN}")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_without_a_result_is_not_an_empty_one() {
        for body in [
            "<html>",
            "",
            "[]",
            "{}",
            r#"{"jsonrpc":"2.0","id":"1"}"#,
            "3",
        ] {
            let client = client(&[A, B], move |sent| match sent.method.as_str() {
                LOGIN => good(sent),
                _ => Step::Text(body.to_owned()),
            });
            let error = client
                .read::<Value>("hosts_list", json!({}))
                .await
                .expect_err("a failure");
            assert!(
                matches!(&error, CallError::Malformed { address, .. } if address == A),
                "{body}: {error}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_keeps_its_words_in_one_short_line_without_secrets() {
        let words = format!(
            "no\r\n\u{1b}[31mroom\u{0} for token-user_login-0 {}",
            "x".repeat(1000)
        );
        let client = client(&[A], move |sent| match sent.method.as_str() {
            LOGIN => good(sent),
            _ => Step::Error(-32001, words.clone()),
        });
        for error in [
            client
                .read::<Value>("status", json!({}))
                .await
                .expect_err("a failure"),
            client
                .mutate(REMOVE, json!({}))
                .await
                .expect_err("a failure"),
        ] {
            let CallError::Refused { text, code, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(code, -32001);
            assert!(text.starts_with("no [31mroom for *** xxx"), "{text}");
            assert_eq!(text.chars().count(), TEXT_LIMIT);
        }
    }

    #[test]
    fn every_form_of_an_error_is_read() {
        for (body, code, text) in [
            (
                r#"{"error":{"code":-32000,"message":"slow down"}}"#,
                -32000,
                "slow down",
            ),
            (
                r#"{"error":{"message":"no"},"result":{}}"#,
                UNKNOWN_ERROR,
                "no",
            ),
            (r#"{"error":"plain"}"#, UNKNOWN_ERROR, "plain"),
            (
                r#"{"error":{"code":1,"message":""}}"#,
                1,
                r#"{"code":1,"message":""}"#,
            ),
        ] {
            match answer::<Value>(body) {
                Ok(Answer::Error { code: c, text: t }) => assert_eq!((c, t.as_str()), (code, text)),
                _ => panic!("{body}"),
            }
        }
        let no_error = answer::<Value>(r#"{"error":null,"result":[1]}"#);
        assert!(matches!(no_error, Ok(Answer::Result(result)) if result == json!([1])));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_at_the_same_time_share_a_login() {
        let client = client(&[A, B, C], good);
        let (one, two) = tokio::join!(
            client.read::<Value>("status", json!({})),
            client.read::<Value>("hosts_list", json!({}))
        );
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(client.calls(), 3);
    }
}
