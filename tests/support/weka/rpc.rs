//! The JSON-RPC API as one function from a request to what comes of it, and every way in which that may go wrong.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::data::Health;
use super::model::{Outcome, Refusal, Weka};

/// How long an access token is good.
const TOKEN_LIFE: Duration = Duration::from_secs(300);
/// A user with so many refused logins one after the other is locked.
const LOCKED_AFTER: u32 = 5;

const PARSE_ERROR: i64 = -32700;
const INVALID_PARAMS: i64 = -32602;
/// Of a method that does not exist; of a backend that is in no cluster, for all but one.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
const INTERNAL_ERROR: i64 = -32603;

/// What changes something.
const MUTATING: &[&str] = &[
    "cluster_deactivate_drives",
    "cluster_deactivate_hosts",
    "cluster_remove_host",
    "cluster_remove_drives",
    "interface_group_delete_port",
    "events_trigger_custom",
];

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    Answered {
        status: u16,
        body: String,
    },
    /// Answered, after so long.
    Slow {
        status: u16,
        body: String,
        after: Duration,
    },
    /// Nobody listens there.
    Refused,
    /// The connection ends without an answer, whether or not something was done.
    Unanswered,
}

/// A mutating call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: SystemTime,
    pub(crate) address: String,
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) outcome: CallOutcome,
    pub(crate) answered: bool,
    pub(crate) before: Health,
    pub(crate) after: Health,
    /// Blocks that were on what it removed and nowhere else.
    pub(crate) live: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    Applied,
    Refused(String),
    /// It went wrong before anything was done.
    NotDone,
}

/// What happens to calls instead of what should.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// `None`: every method.
    method: Option<String>,
    /// `None`: at every address.
    address: Option<String>,
    /// So many of them go well first.
    skip: usize,
    times: usize,
    action: Action,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Nobody listens.
    RefuseConnection,
    /// Not done; this HTTP status.
    Status(u16),
    /// Not done; this JSON-RPC error.
    Error(i64, String),
    /// Not done; this result.
    Reply(Value),
    /// Asked of another cluster.
    Foreign,
    /// Done, and answered after so long.
    Slow(Duration),
    /// Done, without an answer.
    Unanswered,
    /// Not done, without an answer.
    Lost,
}

impl Fault {
    /// For every call of the method, `*` for all methods.
    pub(crate) fn of(method: &str, action: Action) -> Self {
        Self {
            method: (method != "*").then(|| method.to_owned()),
            address: None,
            skip: 0,
            times: usize::MAX,
            action,
        }
    }

    /// As Weka refuses something: an error with this text.
    pub(crate) fn refusal(method: &str, text: &str) -> Self {
        Self::of(method, Action::Error(INTERNAL_ERROR, text.to_owned()))
    }

    /// This backend answers as one that is in no cluster.
    pub(crate) fn stem(address: &str) -> Self {
        let text = "Method not found".to_owned();
        Self::of("*", Action::Error(METHOD_NOT_FOUND, text)).at(address)
    }

    pub(crate) fn at(self, address: &str) -> Self {
        Self {
            address: Some(address.to_owned()),
            ..self
        }
    }

    pub(crate) fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    pub(crate) fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }
}

#[derive(Clone, Debug)]
struct User {
    password: String,
    role: String,
    failures: u32,
}

#[derive(Clone, Debug)]
struct Token {
    user: String,
    /// `None`: a refresh token.
    until: Option<SystemTime>,
}

/// Who may call, how calls go wrong, and how many there were.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    users: BTreeMap<String, User>,
    tokens: BTreeMap<String, Token>,
    issued: usize,
    faults: Vec<Fault>,
    failing_commands: Vec<String>,
    /// A refused login is answered with 200 and a result without tokens, not with 401.
    pub(crate) refuses_with_200: bool,
    /// Calls by method, whatever came of them.
    pub(crate) counts: BTreeMap<String, usize>,
}

impl Default for Api {
    fn default() -> Self {
        let mut api = Self {
            users: BTreeMap::new(),
            tokens: BTreeMap::new(),
            issued: 0,
            faults: Vec::new(),
            failing_commands: Vec::new(),
            refuses_with_200: false,
            counts: BTreeMap::new(),
        };
        api.set_user("admin", "Very-Secret-Pa55word", "ClusterAdmin");
        api
    }
}

impl Api {
    /// Makes a user or changes its password. Its tokens end, and it is not locked.
    pub(crate) fn set_user(&mut self, name: &str, password: &str, role: &str) {
        self.tokens.retain(|_, token| token.user != name);
        self.users.insert(
            name.to_owned(),
            User {
                password: password.to_owned(),
                role: role.to_owned(),
                failures: 0,
            },
        );
    }

    /// Ends all access tokens; refresh tokens stay good.
    pub(crate) fn expire_tokens(&mut self) {
        self.tokens.retain(|_, token| token.until.is_none());
    }

    /// From now on.
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Calls of the `weka` command that begin so fail from now on.
    pub(crate) fn fail_command(&mut self, start: &str) {
        self.failing_commands.push(start.to_owned());
    }

    pub(crate) fn command_fails(&self, line: &str) -> bool {
        let mut starts = self.failing_commands.iter();
        starts.any(|start| line.starts_with(start))
    }

    /// Nothing goes wrong any more.
    pub(crate) fn end_faults(&mut self) {
        self.faults.clear();
        self.failing_commands.clear();
    }

    pub(crate) fn age(&mut self, time: Duration) {
        for token in self.tokens.values_mut() {
            token.until = token.until.map(|until| until - time);
        }
    }

    fn take_fault(&mut self, method: &str, address: &str) -> Option<Action> {
        let meant = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        for fault in &mut self.faults {
            if fault.times == 0 || !meant(&fault.method, method) || !meant(&fault.address, address)
            {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times = fault.times.saturating_sub(1);
            return Some(fault.action.clone());
        }
        None
    }

    fn login(&mut self, name: &str, password: &str, now: SystemTime) -> Option<Value> {
        self.knows(name, password).then(|| self.issue(name, now))
    }

    /// Whether the password is the user's, who is not locked.
    pub(crate) fn knows(&mut self, name: &str, password: &str) -> bool {
        let Some(user) = self.users.get_mut(name) else {
            return false;
        };
        let good = user.failures < LOCKED_AFTER && user.password == password;
        user.failures = if good { 0 } else { user.failures + 1 };
        good
    }

    fn refresh(&mut self, token: &str, now: SystemTime) -> Option<Value> {
        let found = self
            .tokens
            .get(token)
            .filter(|token| token.until.is_none())?;
        let user = found.user.clone();
        Some(self.issue(&user, now))
    }

    fn issue(&mut self, user: &str, now: SystemTime) -> Value {
        self.issued += 1;
        let (access, refresh) = (
            format!("access-{}", self.issued),
            format!("refresh-{}", self.issued),
        );
        for (name, until) in [(&access, Some(now + TOKEN_LIFE)), (&refresh, None)] {
            let user = user.to_owned();
            self.tokens.insert(name.clone(), Token { user, until });
        }
        json!({
            "access_token": access, "refresh_token": refresh, "token_type": "Bearer",
            "expires_in": TOKEN_LIFE.as_secs(),
        })
    }

    /// The role of whoever has the access token.
    fn role(&self, token: Option<&str>, now: SystemTime) -> Option<&str> {
        let token = self.tokens.get(token?)?;
        token.until.filter(|until| now < *until)?;
        Some(&self.users.get(&token.user)?.role)
    }
}

/// What listens at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    Nobody,
    /// Weka that is in no cluster.
    Stem,
    Member,
}

/// Why there is no result.
enum Failure {
    Http(u16),
    Rpc(i64, String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Rpc(INTERNAL_ERROR, refusal.0)
    }
}

type Reply = Result<Value, Failure>;

impl Weka {
    pub(crate) fn listener(&self, address: &str) -> Listener {
        let machine = self.machines.values().find(|machine| {
            machine.is_up() && machine.installed && machine.ips.iter().any(|ip| ip == address)
        });
        let Some(machine) = machine else {
            return Listener::Nobody;
        };
        let mut hosts = self.containers.iter().filter(|(_, container)| {
            container.instance_id == machine.instance_id && container.port == 14000
        });
        match hosts.next() {
            None => Listener::Stem,
            Some((host, _)) if self.is_up(*host) => Listener::Member,
            Some(_) => Listener::Nobody,
        }
    }

    /// A request to `/api/v1` at an address, with the token of its `Authorization` header.
    pub(crate) fn exchange(&mut self, address: &str, token: Option<&str>, body: &str) -> Exchange {
        let listener = self.listener(address);
        if listener == Listener::Nobody {
            return Exchange::Refused;
        }
        let request: Value = match serde_json::from_str(body) {
            Ok(request) => request,
            Err(error) => {
                let failure = Failure::Rpc(PARSE_ERROR, error.to_string());
                return answered(&Value::Null, Err(failure));
            }
        };
        let (id, params) = (&request["id"], &request["params"]);
        let method = request["method"].as_str().unwrap_or_default();
        *self.api.counts.entry(method.to_owned()).or_default() += 1;
        let fault = self.api.take_fault(method, address);
        let before = MUTATING.contains(&method).then(|| self.health());
        let live = self.live_on_what_goes(method, params);

        let reply = match &fault {
            Some(Action::RefuseConnection | Action::Lost) => Ok(Value::Null),
            Some(Action::Status(status)) => Err(Failure::Http(*status)),
            Some(Action::Error(code, text)) => Err(Failure::Rpc(*code, text.clone())),
            Some(Action::Reply(result)) => Ok(result.clone()),
            Some(Action::Foreign) => self.foreign().answer(listener, token, method, params),
            Some(Action::Slow(_) | Action::Unanswered) | None => {
                self.answer(listener, token, method, params)
            }
        };
        let exchange = match fault {
            Some(Action::RefuseConnection) => Exchange::Refused,
            Some(Action::Lost | Action::Unanswered) => Exchange::Unanswered,
            _ => Exchange::Answered {
                status: 0,
                body: String::new(),
            },
        };
        if let Some(before) = before {
            let done = matches!(fault, None | Some(Action::Slow(_) | Action::Unanswered));
            self.calls.push(Call {
                at: self.now,
                address: address.to_owned(),
                method: method.to_owned(),
                params: params.clone(),
                outcome: match &reply {
                    Err(Failure::Rpc(_, text)) => CallOutcome::Refused(text.clone()),
                    Ok(_) if done => CallOutcome::Applied,
                    _ => CallOutcome::NotDone,
                },
                answered: matches!(exchange, Exchange::Answered { .. }),
                before,
                after: self.health(),
                live,
            });
        }
        match (exchange, fault) {
            (Exchange::Answered { .. }, Some(Action::Slow(after))) => match answered(id, reply) {
                Exchange::Answered { status, body } => Exchange::Slow {
                    status,
                    body,
                    after,
                },
                other => other,
            },
            (Exchange::Answered { .. }, _) => answered(id, reply),
            (unanswered, _) => unanswered,
        }
    }

    fn answer(
        &mut self,
        listener: Listener,
        token: Option<&str>,
        method: &str,
        params: &Value,
    ) -> Reply {
        if method == "client_query_backend" {
            return Ok(json!({"software_release": self.release}));
        }
        if listener == Listener::Stem {
            return Err(not_found());
        }
        let text = |index: usize| params[index].as_str().unwrap_or_default();
        let tokens = match method {
            "user_login" => self.api.login(text(0), text(1), self.now),
            "user_refresh_token" => self.api.refresh(text(0), self.now),
            _ => return self.answer_user(token, method, params),
        };
        match tokens {
            Some(tokens) => Ok(tokens),
            None if self.api.refuses_with_200 => Ok(json!({})),
            None => Err(Failure::Http(401)),
        }
    }

    fn answer_user(&mut self, token: Option<&str>, method: &str, params: &Value) -> Reply {
        let Some(role) = self.api.role(token, self.now) else {
            return Err(Failure::Http(401));
        };
        if MUTATING.contains(&method) && role != "ClusterAdmin" {
            return Err(Failure::Http(403));
        }
        match method {
            "status" => Ok(self.status_json()),
            "hosts_list" => Ok(self.hosts_json()),
            "nodes_list" => Ok(self.processes_json()),
            "disks_list" => Ok(self.drives_json()),
            "interface_group_list" => Ok(self.interface_groups_json()),
            "manual_override_list" => Ok(self.overrides_json()),
            "system_get_rebuild_status" => Ok(self.rebuild_json()),
            "events_trigger_custom" => params["message"]
                .as_str()
                .map(|_| Value::Null)
                .ok_or_else(|| invalid("message")),
            "cluster_deactivate_drives" => done(self.deactivate_drives(&self.drives_in(params)?)),
            "cluster_remove_drives" => done(self.remove_drives(&self.drives_in(params)?)),
            "cluster_deactivate_hosts" => done(self.deactivate_hosts(&hosts_in(params)?)),
            "cluster_remove_host" => {
                let host = number(&params["host_id"]).ok_or_else(|| invalid("host_id"))?;
                done(self.remove_host(host))
            }
            "interface_group_delete_port" => {
                let named = |name: &str| params[name].as_str().ok_or_else(|| invalid(name));
                let host = parse_id(&params["host_id"]).ok_or_else(|| invalid("host_id"))?;
                done(self.delete_port(named("name")?, host, named("port")?))
            }
            _ => Err(not_found()),
        }
    }

    fn drives_in(&self, params: &Value) -> Result<Vec<u32>, Failure> {
        let uuids = params["drive_uuids"]
            .as_array()
            .ok_or_else(|| invalid("drive_uuids"))?;
        let found = uuids.iter().map(|uuid| {
            let uuid = uuid.as_str().ok_or_else(|| invalid("drive_uuids"))?;
            let mut drives = self.drives.iter();
            let drive = drives.find(|(_, drive)| drive.uuid == uuid);
            let (disk, _) = drive.ok_or_else(|| Refusal(format!("Drive {uuid} does not exist")))?;
            Ok(*disk)
        });
        found.collect()
    }

    /// Blocks that a removal would touch and that are nowhere else.
    fn live_on_what_goes(&self, method: &str, params: &Value) -> usize {
        let disks = match method {
            "cluster_remove_drives" => self.drives_in(params).unwrap_or_default(),
            "cluster_remove_host" => {
                let host = number(&params["host_id"]);
                host.map_or_else(Vec::new, |host| {
                    self.drives_of(host).map(|(disk, _)| disk).collect()
                })
            }
            _ => return 0,
        };
        disks.iter().map(|disk| self.live_blocks_on(*disk)).sum()
    }

    /// Another cluster with as many containers, none of them ours.
    fn foreign(&self) -> Self {
        let mut other = self.clone();
        other.guid = "ffffffff-0000-4000-8000-000000000002".to_owned();
        for container in other.containers.values_mut() {
            container.uid = container.uid.replacen("5c6f", "ffff", 1);
            container.instance_id = format!("i-foreign-{}", container.instance_id);
            container.host_ip = container.host_ip.replacen("127.", "10.", 1) + "9";
            container.ips = vec![container.host_ip.clone()];
        }
        other
    }

    /// A `hosts_list` that leaves out the containers of one instance.
    pub(crate) fn hosts_without(&self, instance: &str) -> Value {
        let mut hosts = self.hosts_json();
        if let Some(hosts) = hosts.as_object_mut() {
            hosts.retain(|_, host| host["aws"]["instance_id"] != instance);
        }
        hosts
    }
}

fn done(outcome: Outcome<()>) -> Reply {
    outcome?;
    Ok(Value::Null)
}

fn invalid(name: &str) -> Failure {
    Failure::Rpc(INVALID_PARAMS, format!("Invalid params: {name}"))
}

fn not_found() -> Failure {
    Failure::Rpc(METHOD_NOT_FOUND, "Method not found".to_owned())
}

fn hosts_in(params: &Value) -> Result<Vec<u32>, Failure> {
    if !params["skip_resource_validation"].is_boolean() {
        return Err(invalid("skip_resource_validation"));
    }
    let ids = params["host_ids"].as_array();
    let ids = ids.ok_or_else(|| invalid("host_ids"))?.iter();
    ids.map(|id| parse_id(id).ok_or_else(|| invalid("host_ids")))
        .collect()
}

/// `HostId<3>`.
fn parse_id(id: &Value) -> Option<u32> {
    id.as_str()?
        .strip_prefix("HostId<")?
        .strip_suffix('>')?
        .parse()
        .ok()
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn answered(id: &Value, reply: Reply) -> Exchange {
    let (status, body) = match reply {
        Ok(result) => (200, json!({"jsonrpc": "2.0", "id": id, "result": result})),
        Err(Failure::Rpc(code, message)) => {
            let error = json!({"code": code, "message": message, "data": null});
            (200, json!({"jsonrpc": "2.0", "id": id, "error": error}))
        }
        Err(Failure::Http(status)) => (status, json!({"message": "no"})),
    };
    Exchange::Answered {
        status,
        body: body.to_string(),
    }
}
