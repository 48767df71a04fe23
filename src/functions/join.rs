//! `join`: hands a new instance the script to join with, and the credentials. It answers API Gateway.
//!
//! Every local user of an instance can read the API's key in the user data: so the key alone opens nothing. And the
//! instance runs as root what it is told with status 200: so whatever goes wrong has another status and no text.

use jiff::SignedDuration;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::lease;
use super::ports::{Clock, Cloud};
use crate::bootstrap::join::{JoinScript, join_script};
use crate::weka::scaling::{Ec2State, Instance};

/// An instance that was launched longer ago has failed to join.
const JOINS_WITHIN: SignedDuration = SignedDuration::from_mins(60);
/// Hexadecimal digits of an instance id, in its old form and in the present one.
const ID_DIGITS: std::ops::RangeInclusive<usize> = 8..=17;

/// A request as API Gateway's proxy integration hands it on.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    #[serde(default)]
    query_string_parameters: Option<Parameters>,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    instance_id: Option<String>,
    step: Option<String>,
}

/// An answer as API Gateway's proxy integration takes it. Not printable: it may hold credentials.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// The HTTP status.
    pub status_code: u16,
    /// Type of the body.
    pub headers: Headers,
    /// Text.
    pub body: String,
    is_base64_encoded: bool,
}

/// What an answer says of itself.
#[derive(Serialize)]
pub struct Headers {
    #[serde(rename = "Content-Type")]
    content_type: &'static str,
    #[serde(rename = "Cache-Control")]
    cache_control: &'static str,
}

impl Response {
    fn new(status_code: u16, content_type: &'static str, body: String) -> Self {
        Self {
            status_code,
            headers: Headers {
                content_type,
                cache_control: "no-store",
            },
            body,
            is_base64_encoded: false,
        }
    }

    fn empty(status_code: u16) -> Self {
        Self::new(status_code, "text/plain", String::new())
    }
}

/// What is asked for.
enum Step {
    Script,
    Credentials,
}

/// Answers a request: 200 for a member that is to join, 403 for everybody else, 500 for whatever goes wrong here.
pub async fn join(
    cloud: &impl Cloud,
    clock: &impl Clock,
    cluster: &str,
    request: Value,
) -> Response {
    let request: Request = serde_json::from_value(request).unwrap_or_default();
    let parameters = request.query_string_parameters.unwrap_or_default();
    let step = match parameters.step.as_deref() {
        None => Step::Script,
        Some("credentials") => Step::Credentials,
        Some(_) => return Response::empty(403),
    };
    let Some(id) = parameters.instance_id.filter(|id| is_instance_id(id)) else {
        tracing::warn!("refused: the request names no instance");
        return Response::empty(403);
    };
    match answer(cloud, clock, cluster, &id, &step).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(instance = id, "{error:#}");
            Response::empty(500)
        }
    }
}

async fn answer(
    cloud: &impl Cloud,
    clock: &impl Clock,
    cluster: &str,
    id: &str,
    step: &Step,
) -> anyhow::Result<Response> {
    let mut members = cloud.group().await?.instances.into_iter();
    let member = members.find(|member| member.id == id);
    if let Err(why) = may_join(member.as_ref(), clock) {
        tracing::warn!(instance = id, why, "refused");
        return Ok(Response::empty(403));
    }
    match step {
        Step::Script => script(cloud, cluster, id, member).await,
        Step::Credentials => {
            let credentials = cloud.credentials().await?.filter(lease::are_complete);
            let credentials =
                credentials.ok_or_else(|| anyhow::anyhow!("no credentials are stored"))?;
            let body = json!({
                "username": credentials.username.expose_secret(),
                "password": credentials.password.expose_secret(),
            });
            tracing::info!(instance = id, "handed out credentials");
            Ok(Response::new(200, "application/json", body.to_string()))
        }
    }
}

fn may_join(member: Option<&Instance>, clock: &impl Clock) -> Result<(), &'static str> {
    let member = member.ok_or("it is no member of the group")?;
    let comes = member.lifecycle == "InService" || member.lifecycle.starts_with("Pending");
    if !comes || !matches!(member.ec2, Ec2State::Pending | Ec2State::Running) {
        return Err("it is on its way out of the group");
    }
    if member.joined {
        return Err("it has joined already");
    }
    let launched = member.launched.ok_or("its launch time is not known")?;
    if clock.now().duration_since(launched) >= JOINS_WITHIN {
        return Err("it was launched too long ago");
    }
    Ok(())
}

async fn script(
    cloud: &impl Cloud,
    cluster: &str,
    id: &str,
    member: Option<Instance>,
) -> anyhow::Result<Response> {
    let own = member.and_then(|member| member.private_ip);
    let script = script_for(cloud, cluster, own.as_deref()).await?;
    tracing::info!(instance = id, "handed out the script");
    Ok(Response::new(200, "text/plain", script))
}

/// The script for a machine with this address, or for one that is yet to come.
pub(super) async fn script_for(
    cloud: &impl Cloud,
    cluster: &str,
    own: Option<&str>,
) -> anyhow::Result<String> {
    let (cores, mut backends) = tokio::try_join!(cloud.cores(), cloud.running_backends())?;
    let cores = cores.ok_or_else(|| {
        anyhow::anyhow!("the stored settings name no cores: run `wekactl cluster import` again")
    })?;
    backends.retain(|backend| Some(backend.private_ip.as_str()) != own);
    // One of unknown age is not known to serve.
    backends.sort_by_key(|backend| (backend.launched.is_none(), backend.launched));
    anyhow::ensure!(!backends.is_empty(), "no backend runs to join through");
    Ok(join_script(&JoinScript {
        cluster: cluster.to_owned(),
        cores,
        backends: backends
            .into_iter()
            .map(|backend| backend.private_ip)
            .collect(),
    }))
}

fn is_instance_id(id: &str) -> bool {
    id.strip_prefix("i-").is_some_and(|digits| {
        ID_DIGITS.contains(&digits.len()) && digits.bytes().all(|each| each.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::super::fakes::{PASSWORD, World, address, id, start};
    use super::super::ports::Backend;
    use super::*;

    /// Six members, of which the last one is to join.
    fn world() -> World {
        let mut world = World::of(6);
        {
            let mut group = world.cloud.group.lock().unwrap();
            let new = &mut group.instances[5];
            new.launched = Some(start() - SignedDuration::from_mins(2));
            new.joined = false;
            new.attached = false;
        }
        world.cloud.backends = (0..6)
            .map(|number| Backend {
                private_ip: address(number),
                launched: Some(start() - SignedDuration::from_mins(i64::from(number) + 2)),
            })
            .collect();
        world
    }

    async fn ask(world: &World, parameters: Value) -> Response {
        let request = json!({"httpMethod": "GET", "queryStringParameters": parameters});
        join(&world.cloud, &world.clock, "prod", request).await
    }

    async fn is_refused(world: &World) {
        for step in [Value::Null, json!("credentials")] {
            let answer = ask(world, json!({"instance_id": id(5), "step": step})).await;
            assert_eq!((answer.status_code, answer.body.as_str()), (403, ""));
        }
    }

    #[tokio::test]
    async fn a_new_member_gets_its_script_and_then_the_credentials() {
        let world = world();
        let answer = ask(&world, json!({"instance_id": id(5)})).await;
        assert_eq!(answer.status_code, 200);
        assert!(answer.body.starts_with("#!"));
        assert!(!answer.body.contains(PASSWORD));
        // Not through itself, and the longest-serving first.
        assert!(!answer.body.contains(&address(5)));
        let place = |number| answer.body.find(&address(number)).unwrap();
        assert!(place(4) < place(3) && place(1) < place(0));

        let answer = ask(&world, json!({"instance_id": id(5), "step": "credentials"})).await;
        let answer = serde_json::to_value(answer).unwrap();
        assert_eq!(answer["statusCode"], 200);
        assert_eq!(answer["headers"]["Content-Type"], "application/json");
        assert_eq!(answer["isBase64Encoded"], false);
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!(body, json!({"username": "admin", "password": PASSWORD}));
    }

    #[tokio::test]
    async fn nobody_else_gets_anything() {
        let changes: [fn(&mut Instance); 8] = [
            |member| member.joined = true,
            |member| member.launched = None,
            |member| member.launched = Some(start() - SignedDuration::from_mins(60)),
            |member| member.lifecycle = "Terminating:Wait".into(),
            |member| member.lifecycle = "Standby".into(),
            |member| member.ec2 = Ec2State::Stopped,
            |member| member.ec2 = Ec2State::Absent,
            |member| member.id = id(99),
        ];
        for change in changes {
            let world = world();
            change(&mut world.cloud.group.lock().unwrap().instances[5]);
            is_refused(&world).await;
        }
    }

    #[tokio::test]
    async fn what_is_no_request_of_an_instance_is_refused() {
        let world = world();
        for parameters in [
            Value::Null,
            json!({}),
            json!({"instance_id": null}),
            json!({"instance_id": ""}),
            json!({"instance_id": "i-*"}),
            json!({"instance_id": 5}),
            json!({"instance_id": id(5), "step": "password"}),
        ] {
            let answer = ask(&world, parameters).await;
            assert_eq!((answer.status_code, answer.body.as_str()), (403, ""));
        }
        for request in [Value::Null, json!([]), json!({"queryStringParameters": []})] {
            let answer = join(&world.cloud, &world.clock, "prod", request).await;
            assert_eq!((answer.status_code, answer.body.as_str()), (403, ""));
        }
    }

    #[tokio::test]
    async fn whatever_goes_wrong_is_no_script() {
        let changes: [fn(&mut World); 3] = [
            |world| world.cloud.refused.extend(["group".to_owned()]),
            |world| world.cloud.cores = None,
            |world| world.cloud.backends.clear(),
        ];
        for change in changes {
            let mut world = world();
            change(&mut world);
            let answer = ask(&world, json!({"instance_id": id(5)})).await;
            assert_eq!((answer.status_code, answer.body.as_str()), (500, ""));
        }
        let mut world = world();
        world.cloud.backends.drain(..5);
        let answer = ask(&world, json!({"instance_id": id(5)})).await;
        assert_eq!(answer.status_code, 500, "only itself runs");
        world.cloud.credentials = None;
        let answer = ask(&world, json!({"instance_id": id(5), "step": "credentials"})).await;
        assert_eq!((answer.status_code, answer.body.as_str()), (500, ""));
    }
}
