//! The `weka` command of an instance, as far as the join script uses it. The stand-in on the instance sends its
//! arguments and environment here; what happens on the instance itself, such as the partitions of a signed disk, is
//! left to it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::model::{Outcome, Refusal, Role, Weka};
use super::rpc::Listener;

/// A call of the command.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) instance_id: String,
    /// Without the command's own name.
    pub(crate) argv: Vec<String>,
    env: BTreeMap<String, String>,
}

/// What a call of the command says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Command {
    /// From `{"instance_id", "argv": [...], "env": {...}}`.
    pub(crate) fn of(body: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        Some(Self {
            instance_id: text(&body["instance_id"])?,
            argv: body["argv"].as_array()?.iter().filter_map(text).collect(),
            env: serde_json::from_value(body["env"].clone()).unwrap_or_default(),
        })
    }

    /// Runs it on its instance.
    pub(crate) fn run(self, weka: &mut Weka) -> Said {
        // What holds no block needs no minute to go, and nobody lets one pass while the script waits for it.
        weka.settle();
        let line = self.argv.join(" ");
        let outcome = if weka.api.command_fails(&line) {
            Err(Refusal(format!("told to fail: {line}")))
        } else if !weka.machines.contains_key(&self.instance_id) {
            Err(Refusal(format!(
                "there is no instance {}",
                self.instance_id
            )))
        } else {
            self.done(weka)
        };
        weka.commands.push(self);
        match outcome {
            Ok(stdout) => Said {
                exit: 0,
                stdout,
                stderr: String::new(),
            },
            Err(Refusal(text)) => Said {
                exit: 1,
                stdout: String::new(),
                stderr: format!("error: {text}\n"),
            },
        }
    }

    fn done(&self, weka: &mut Weka) -> Outcome<String> {
        let words: Vec<&str> = self.argv.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["version", "get", "--from", backend, version, ..] => {
                let address = backend.trim_end_matches(":14000");
                demand(
                    *version == weka.release && weka.listener(address) == Listener::Member,
                    &format!("{backend} does not have {version}"),
                )
            }
            ["version", "prepare", version] => demand(*version == weka.release, "unknown version"),
            ["local", "stop"] => {
                weka.stop_containers(&self.instance_id);
                Ok(String::new())
            }
            ["local", "rm", "--all", "-f"] => {
                weka.stop_containers(&self.instance_id);
                weka.machine_mut(&self.instance_id).installed = false;
                Ok(String::new())
            }
            ["local", "setup", "container", ..] => self.set_up(weka),
            [
                "local",
                "exec",
                "--container",
                name,
                "/weka/tools/weka_sign_drive",
                device,
            ] => {
                let own = weka.own_containers(&self.instance_id);
                let has = own.iter().any(|host| weka.containers[host].name == *name);
                demand(has, &format!("there is no container {name}"))?;
                weka.sign_drive(&self.instance_id, device)?;
                Ok(String::new())
            }
            ["debug", "manhole", "-s", "0", "operational_status"] => {
                self.authorised(weka)?;
                let address = &weka.machines[&self.instance_id].address;
                let is_ready = weka.listener(address) == Listener::Member;
                Ok(json!({"is_ready": is_ready}).to_string())
            }
            [.., "-H", backend] => {
                let answers = weka.listener(backend) == Listener::Member;
                demand(answers, &format!("{backend} does not answer"))?;
                self.authorised(weka)?;
                self.ask_cluster(weka, &words[..words.len() - 2])
            }
            _ => unknown(&words),
        }
    }

    fn set_up(&self, weka: &mut Weka) -> Outcome<String> {
        let role = if self.option("--drives-dedicated-cores").is_ok() {
            Role::Drives
        } else if self.option("--compute-dedicated-cores").is_ok() {
            self.option("--memory")?;
            Role::Compute
        } else {
            self.option("--frontend-dedicated-cores")?;
            Role::Frontend
        };
        let cores: usize = number(self.option("--cores")?)?;
        demand(
            self.option("--core-ids")?.split(',').count() == cores
                && self.options("--net").count() == cores,
            "each core needs an id and an interface",
        )?;
        demand(
            self.option("--join-ips")?
                .split(',')
                .any(|address| weka.listener(address) == Listener::Member),
            "no backend of the cluster answers",
        )?;
        demand(
            self.option("--management-ips")? == weka.machines[&self.instance_id].address,
            "that is not this machine's address",
        )?;
        let (name, port) = (self.option("--name")?, number(self.option("--base-port")?)?);
        let domain = self.option("--failure-domain")?.to_owned();
        let host = weka.setup_container(&self.instance_id, name, port, role, cores)?;
        weka.container_mut(host).failure_domain = domain;
        Ok(String::new())
    }

    fn ask_cluster(&self, weka: &mut Weka, words: &[&str]) -> Outcome<String> {
        match words {
            ["cluster", "container", "-J"] => Ok(rows(weka.hosts_json(), "host_id")),
            ["cluster", "drive", "-J"] => Ok(rows(weka.drives_json(), "disk_id")),
            ["cluster", "drive", "scan", host] => {
                weka.scan_drives(number(host)?)?;
                Ok(String::new())
            }
            ["cluster", "drive", "deactivate", uuid, "--force"] => {
                nothing(weka.deactivate_drives(&[drive(weka, uuid)?]))
            }
            ["cluster", "drive", "remove", uuid, "--force"] => {
                nothing(weka.remove_drives(&[drive(weka, uuid)?]))
            }
            ["cluster", "container", "deactivate", hosts @ ..] => {
                let hosts = hosts.iter().map(|host| number(host));
                nothing(weka.deactivate_hosts(&hosts.collect::<Outcome<Vec<u32>>>()?))
            }
            ["cluster", "container", "remove", host] => nothing(weka.remove_host(number(host)?)),
            ["events", "trigger-event", _] => Ok(String::new()),
            _ => unknown(words),
        }
    }

    fn authorised(&self, weka: &mut Weka) -> Outcome<()> {
        let value = |name: &str| self.env.get(name).map_or("", String::as_str);
        let known = weka
            .api
            .knows(value("WEKA_USERNAME"), value("WEKA_PASSWORD"));
        demand(known, "not authorised").map(drop)
    }

    fn option(&self, name: &str) -> Outcome<&str> {
        let value = self.options(name).next();
        value.ok_or_else(|| Refusal(format!("{name} is missing")))
    }

    /// The values of an option.
    fn options<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let pairs = self.argv.iter().zip(self.argv.iter().skip(1));
        pairs
            .filter(move |(option, _)| *option == name)
            .map(|(_, value)| value.as_str())
    }
}

fn demand(holds: bool, otherwise: &str) -> Outcome<String> {
    if holds {
        Ok(String::new())
    } else {
        Err(Refusal(otherwise.to_owned()))
    }
}

fn nothing(outcome: Outcome<()>) -> Outcome<String> {
    outcome.map(|()| String::new())
}

fn unknown(words: &[&str]) -> Outcome<String> {
    Err(Refusal(format!("unknown command: {}", words.join(" "))))
}

fn number<T: std::str::FromStr>(text: &str) -> Outcome<T> {
    text.parse()
        .map_err(|_| Refusal(format!("{text} is not a number")))
}

fn drive(weka: &Weka, uuid: &str) -> Outcome<u32> {
    let mut drives = weka.drives.iter();
    let found = drives.find(|(_, drive)| drive.uuid == uuid);
    let (disk, _) = found.ok_or_else(|| Refusal(format!("there is no drive {uuid}")))?;
    Ok(*disk)
}

/// As the command lists things: with the id in the entry, and `cloud` for `aws`.
fn rows(map: Value, key: &str) -> String {
    let Value::Object(map) = map else {
        return String::new();
    };
    let rows = map.into_iter().map(|(id, mut row)| {
        row[key] = id.into();
        if let Some(aws) = row.as_object_mut().and_then(|row| row.remove("aws")) {
            row["cloud"] = aws;
        }
        row
    });
    Value::from_iter(rows).to_string()
}
