//! A managed cluster with everything it needs around it: the local AWS, whose machines boot for real, and a Weka that
//! is served on their addresses.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::weka::{Layout, Machine, Server, State, Weka};
use super::{PASSWORD, Sandbox};

/// Name of the stack and of the cluster.
pub(crate) const CLUSTER: &str = "prod";
/// Name of its Auto Scaling group.
pub(crate) const GROUP: &str = "wekactl-prod-Backends";

/// See the module's words.
pub(crate) struct Cluster {
    pub(crate) sandbox: Sandbox,
    pub(crate) weka: Server,
}

/// How one minute's run ended.
#[derive(Debug)]
pub(crate) struct Minute {
    /// `SUCCEEDED`, `FAILED`.
    pub(crate) status: String,
    /// What it reports, if it is not green.
    pub(crate) errors: String,
    /// The state machine's output, where it succeeded.
    pub(crate) output: Value,
    /// ARN of the execution.
    pub(crate) execution: String,
}

impl Cluster {
    /// A stack of so many backends in a Weka with stripes of 3+2 and one hot spare, imported a day ago.
    pub(crate) fn start(backends: u32) -> Self {
        Self::start_with(backends, &[])
    }

    /// The same, with more flags for the import.
    pub(crate) fn start_with(backends: u32, flags: &[&str]) -> Self {
        let sandbox = Sandbox::start();
        let stack = sandbox.stack(&json!({"name": CLUSTER, "backends": backends}));
        let cluster = Self::of_stack(sandbox, &stack);
        cluster.sandbox.import(CLUSTER, flags).ok();
        cluster.sandbox.post("age", &json!({"seconds": 86_400}));
        cluster
    }

    /// The backends of a stack form their Weka. Nothing is imported.
    pub(crate) fn of_stack(sandbox: Sandbox, stack: &Value) -> Self {
        let machines: Vec<Machine> = stack["backends"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|backend| {
                let text = |field: &str| backend[field].as_str().expect("text");
                Machine::new(text("id"), text("private_ip"))
            })
            .collect();
        let layout = Layout {
            data: 3,
            protection: 2,
            hot_spare: 1,
            ..Layout::default()
        };
        let mut weka = Weka::form(&machines, layout, SystemTime::now());
        weka.api.set_user("admin", PASSWORD, "ClusterAdmin");
        let weka = Server::start(weka);
        sandbox.set(&json!({"boot_machines": true, "weka_url": weka.url}));
        Self { sandbox, weka }
    }

    /// A minute: what Auto Scaling and Weka do in it, the run that begins with it, and the machines that boot.
    pub(crate) fn minute(&self) -> Minute {
        self.pass(1);
        self.run()
    }

    /// Time passes without a run.
    pub(crate) fn pass(&self, minutes: u32) {
        self.sandbox.post("age", &json!({"seconds": minutes * 60}));
        self.weka.tick(minutes);
    }

    /// The run that begins now, to its end, and the boots that it is the cause of.
    pub(crate) fn run(&self) -> Minute {
        let fired = self.sandbox.post("tick", &json!({"wait": true}));
        let run = fired[0].clone();
        self.sandbox.post("settle", &json!({"timeout": 240}));
        let text = |field: &str| run[field].as_str().unwrap_or_default().to_owned();
        Minute {
            status: text("status"),
            errors: message(&text("cause")),
            output: run["output"].clone(),
            execution: text("execution"),
        }
    }

    /// Runs minute after minute until it is so.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, most: u32, is_so: impl Fn(&Self, &Minute) -> bool) {
        let mut latest = None;
        for _ in 0..most {
            let minute = self.minute();
            if is_so(self, &minute) {
                return;
            }
            latest = Some(minute);
        }
        let (members, backends, draining) = (self.members(), self.backends(), self.draining());
        panic!(
            "not after {most} minutes: {what}: {latest:?}\nmembers {members:?}, backends {backends:?}, \
             draining {draining:?}"
        );
    }

    /// Waits until a function is at its work so many times.
    #[track_caller]
    pub(crate) fn until_invoked(&self, kind: &str, calls: usize) {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let path = format!("journal?caller=^lambda:wekactl-{CLUSTER}-{kind}-");
        while self.sandbox.get(&path).as_array().map_or(0, Vec::len) < calls {
            assert!(std::time::Instant::now() < until, "{kind} is never invoked");
            std::thread::yield_now();
        }
    }

    /// Sets the only knob.
    pub(crate) fn resize(&self, desired: u32) {
        let size = json!({"AutoScalingGroupName": GROUP, "DesiredCapacity": desired});
        self.sandbox
            .aws("autoscaling", "set_desired_capacity", &size);
    }

    /// The group, as AWS describes it.
    pub(crate) fn group(&self) -> Value {
        let names = json!({"AutoScalingGroupNames": [GROUP]});
        let groups = self
            .sandbox
            .aws("autoscaling", "describe_auto_scaling_groups", &names);
        groups["AutoScalingGroups"][0].clone()
    }

    /// Ids of the group's members.
    pub(crate) fn members(&self) -> Vec<String> {
        let group = self.group();
        let members = group["Instances"].as_array().expect("a list").iter();
        let ids = members.filter_map(|member| member["InstanceId"].as_str());
        ids.map(ToOwned::to_owned).collect()
    }

    /// Instances with backend containers in Weka that are all active and up.
    pub(crate) fn backends(&self) -> Vec<String> {
        self.weka.with(|weka| weka.up_machines())
    }

    /// Instances with a container that is leaving or out.
    pub(crate) fn draining(&self) -> Vec<String> {
        self.weka.with(|weka| weka.draining_machines())
    }

    /// Whether group and Weka have so many members, the same ones, and nothing else is there.
    pub(crate) fn is_at_rest(&self, size: usize) -> bool {
        let (mut members, mut backends) = (self.members(), self.backends());
        members.sort();
        backends.sort();
        let containers = self.weka.with(|weka| {
            let containers = weka.containers.values().filter(|each| each.is_backend());
            containers
                .filter(|each| each.state == State::Active)
                .count()
        });
        members.len() == size && members == backends && containers == 3 * size
    }

    /// Calls of the functions since the journal was emptied that change something, the lease apart.
    pub(crate) fn changes(&self) -> Vec<String> {
        let calls = self.sandbox.get("journal?caller=^lambda:");
        let calls = calls.as_array().expect("a list").iter();
        let changes = calls.filter(|call| call["read"] == false && call["service"] != "dynamodb");
        let name = |call: &Value, part: &str| call[part].as_str().unwrap_or_default().to_owned();
        let changes =
            changes.map(|call| format!("{}.{}", name(call, "service"), name(call, "operation")));
        let to_weka = self.weka.with(|weka| {
            let calls = weka.calls.iter();
            calls.map(|call| call.method.clone()).collect::<Vec<_>>()
        });
        changes.chain(to_weka).collect()
    }

    /// Lets a lease that nobody released run out: what a program has stored does not move with the time.
    pub(crate) fn expire_lease(&self) {
        self.sandbox.aws(
            "dynamodb",
            "update_item",
            &json!({
                "TableName": format!("wekactl-{CLUSTER}"),
                "Key": {"Key": {"S": "cluster-lease"}},
                "UpdateExpression": "SET Expires = :past",
                "ExpressionAttributeValues": {":past": {"N": "0"}},
            }),
        );
    }

    /// Forgets the calls so far.
    pub(crate) fn forget_calls(&self) {
        self.sandbox.take_calls();
        self.weka.with(|weka| weka.calls.clear());
    }
}

/// What a failed function said.
fn message(cause: &str) -> String {
    let document: Value = serde_json::from_str(cause).unwrap_or_default();
    document["errorMessage"]
        .as_str()
        .unwrap_or(cause)
        .to_owned()
}
