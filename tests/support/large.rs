//! Clusters of many machines, and what a run on one costs.

use std::process::Command;

use serde_json::{Value, json};

use super::{PASSWORD, Run, Sandbox, environment};

/// Name of the cluster.
pub(crate) const CLUSTER: &str = "large";
/// Runs a program, and says on a last line of stderr how much memory it had at most.
const WATCHER: &str = "import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
unit = 2**20 if sys.platform == 'darwin' else 2**10
print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit, file=sys.stderr)
sys.exit(code)";

/// Machines that no stack has made, in one subnet, and a file with their ids.
pub(crate) struct Machines {
    pub(crate) ids: Vec<String>,
    /// `@file`, as `--instance-ids` wants it.
    pub(crate) argument: String,
}

impl Machines {
    /// Makes so many; the stack is only there for its network and its profile.
    pub(crate) fn make(sandbox: &Sandbox, count: usize) -> Self {
        let stack = sandbox.stack(&json!({"name": "base", "backends": 5, "network": "127.20"}));
        let subnet = json!({"VpcId": stack["vpc"], "CidrBlock": "127.20.16.0/20", "AvailabilityZone": "eu-central-1a"});
        let subnet = sandbox.aws("ec2", "create_subnet", &subnet);
        let made = sandbox.aws(
            "ec2",
            "run_instances",
            &json!({
                "ImageId": stack["image"], "InstanceType": "i3en.2xlarge", "MinCount": count, "MaxCount": count,
                "SubnetId": subnet["Subnet"]["SubnetId"], "SecurityGroupIds": stack["security_groups"],
                "IamInstanceProfile": {"Name": stack["instance_profile"]}, "KeyName": stack["key_name"],
            }),
        );
        let made = made["Instances"].as_array().expect("a list").iter();
        let ids: Vec<String> = made
            .map(|each| each["InstanceId"].as_str().expect("an id").to_owned())
            .collect();
        let file = sandbox.home().join("backends.txt");
        let text = format!("# all of them\n{}\n", ids.join("\n"));
        std::fs::write(&file, text).expect("the directory is ours");
        Self {
            ids,
            argument: format!("@{}", file.display()),
        }
    }
}

/// `cluster` and a verb, for [`CLUSTER`] and with code that weighs nothing.
pub(crate) fn command(sandbox: &Sandbox, verb: &str, more: &[&str]) -> Command {
    let code = sandbox.small_code();
    let flags: &[&str] = match verb {
        "import" => &[
            "--username",
            "admin",
            "--no-verify",
            "--lambda-binary",
            &code,
        ],
        "update" => &["--lambda-binary", &code],
        _ => &[],
    };
    let mut command = sandbox.command(&["cluster", verb, "--name", CLUSTER]);
    command
        .args(flags)
        .args(more)
        .env("WEKACTL_PASSWORD", PASSWORD);
    command
}

/// Runs it. Returns also how many MB of memory it had at most.
pub(crate) fn with_peak(sandbox: &Sandbox, command: &Command) -> (Run, f64) {
    let output = Command::new(&sandbox.python)
        .args(["-I", "-c", WATCHER])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(environment(command))
        .output()
        .expect("the executable runs");
    let mut run = Run::of(&output);
    let (said, peak) = run.stderr.rsplit_once("peak ").expect("a last line");
    let (said, peak) = (said.to_owned(), peak.trim().parse().expect("a number"));
    run.stderr = said;
    (run, peak)
}

/// The calls that AWS has throttled.
pub(crate) fn throttled(calls: &[Value]) -> Vec<&str> {
    let throttled = calls.iter().filter(|call| {
        let code = call["error"].as_str().unwrap_or_default();
        // `Throttling`, `ThrottlingException`, `RequestThrottled` and others.
        code.contains("Throttl")
            || matches!(
                code,
                "RequestLimitExceeded" | "TooManyRequestsException" | "SlowDown"
            )
    });
    throttled
        .map(|call| call["operation"].as_str().expect("a name"))
        .collect()
}
