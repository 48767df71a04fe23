//! What a new instance runs: the launch template's user data, and the join script that it asks for.
//!
//! The scripts are plain files that shellcheck reads; only values are put into them, each quoted for the shell.

pub mod join;
#[cfg(test)]
mod stand_ins;

use secrecy::{ExposeSecret, SecretString};

/// EC2's limit for user data, in bytes before base64.
pub const MAX_USER_DATA: usize = 16_384;

const USER_DATA: &str = include_str!("user_data.sh");
const VALUES: &str = "#@values@";

/// The values of one cluster's user data.
#[derive(Debug, Clone)]
pub struct UserData {
    /// Region of the cluster.
    pub region: String,
    /// Subnet of the additional network interfaces.
    pub subnet_id: String,
    /// Security groups of the additional network interfaces; at least one, as every instance has.
    pub security_groups: Vec<String>,
    /// Network interfaces besides the first.
    pub interfaces: u32,
    /// Network cards of the instance type, over which the interfaces are spread.
    pub network_cards: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Where the join function answers, without parameters.
    pub join_url: String,
    /// What the join function's API wants to see.
    pub api_key: SecretString,
}

/// The rendered script does not fit into a launch template.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the user data has {length} bytes, EC2 takes at most {MAX_USER_DATA}")]
pub struct UserDataTooLong {
    /// Bytes of the rendered script.
    pub length: usize,
}

/// The script a new instance runs at its first boot. A secret, as it contains the API key.
///
/// # Errors
/// [`UserDataTooLong`].
pub fn user_data(of: &UserData) -> Result<SecretString, UserDataTooLong> {
    let groups: Vec<String> = of.security_groups.iter().map(|id| quote(id)).collect();
    let values = [
        format!("REGION={}", quote(&of.region)),
        format!("SUBNET={}", quote(&of.subnet_id)),
        format!("SECURITY_GROUPS=({})", groups.join(" ")),
        format!("INTERFACES={}", of.interfaces),
        format!("NETWORK_CARDS={}", of.network_cards),
        format!("CLUSTER={}", quote(&of.cluster)),
        format!("JOIN_URL={}", quote(&of.join_url)),
        format!("API_KEY={}", quote(of.api_key.expose_secret())),
    ];
    let script = USER_DATA.replacen(VALUES, &values.join("\n"), 1);
    if script.len() > MAX_USER_DATA {
        return Err(UserDataTooLong {
            length: script.len(),
        });
    }
    Ok(script.into())
}

/// The value as one word of bash. Only NUL can not be in it, which no shell variable holds.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output, Stdio};

    use proptest::prelude::*;

    use super::stand_ins::{API_KEY, JOIN_URL, Machine, RECORD, assert_clean};
    use super::*;

    const LOG: &str = "/var/log/wekactl-bootstrap.log";

    const AWS: &str = r#"#!/bin/bash
printf 'aws %s\n' "$*" >>"$STATE/calls"
[[ $AWS_DEFAULT_REGION == eu-central-1 ]] || exit 1
case $2 in
  create-network-interface) echo "eni-$(grep -c 'aws ec2 create-network-interface' "$STATE/calls")" ;;
  attach-network-interface)
    [[ ! -e $STATE/no-attach ]] || exit 254
    while [[ $1 != --device-index ]]; do shift; done
    echo "$2" >>"$STATE/attached"; echo "eni-attach-$2" ;;
  create-tags | modify-network-interface-attribute)
    if [[ -e $STATE/no-tags ]]; then echo 'UnauthorizedOperation' >&2; exit 254; fi ;;
  delete-network-interface) ;;
  *) exit 252 ;;
esac
"#;

    fn example() -> UserData {
        UserData {
            region: "eu-central-1".into(),
            subnet_id: "subnet-1".into(),
            security_groups: vec!["sg-1".into(), "sg-2".into()],
            interfaces: 3,
            network_cards: 1,
            cluster: "prod".into(),
            join_url: JOIN_URL.into(),
            api_key: API_KEY.into(),
        }
    }

    /// A machine that the join function answers so.
    fn machine(answers: &str) -> Machine {
        let machine = Machine::new(&[("aws", AWS), ("shutdown", RECORD), ("sleep", RECORD)]);
        machine.write("answers", answers);
        machine.write(
            "script",
            "#!/bin/bash\necho \"$WEKACTL_JOIN_URL $WEKACTL_API_KEY\" >>\"$STATE/ran\"\n",
        );
        machine.write("page", "touch \"$STATE/ran\"\n");
        machine.write("failing", "#!/bin/bash\nexit 3\n");
        machine
    }

    impl Machine {
        fn boot(&self, data: &UserData) -> Output {
            let script = user_data(data).unwrap();
            let script = script
                .expose_secret()
                .replace(LOG, self.path("log").to_str().unwrap());
            self.bash(&script, &[])
        }

        fn assert_refused(&self, output: &Output) {
            assert!(!output.status.success(), "{}", self.read("log"));
            assert!(!self.path("ran").exists(), "{}", self.read("log"));
            assert_eq!(self.calls("shutdown"), ["shutdown -h now"]);
        }
    }

    #[test]
    fn a_new_machine_gets_its_interfaces_and_joins() {
        let machine = machine("200 script\n");
        let output = machine.boot(&example());
        assert!(output.status.success(), "{}", machine.read("log"));
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
        assert_eq!(machine.read("ran"), format!("{JOIN_URL} {API_KEY}\n"));
        assert!(machine.calls("shutdown").is_empty());
        assert_eq!(
            machine.calls("aws")[..2],
            [
                "aws ec2 create-network-interface --subnet-id subnet-1 --groups sg-1 sg-2 --description wekactl prod --query NetworkInterface.NetworkInterfaceId --output text",
                "aws ec2 attach-network-interface --network-interface-id eni-1 --instance-id i-0123456789abcdef0 --device-index 1 --query AttachmentId --output text",
            ]
        );
        assert_eq!(machine.read("attached"), "0\n1\n2\n3\n");
        assert_eq!(machine.calls("aws ec2 create-tags").len(), 3);
        assert!(machine.calls("aws ec2 modify")[2].contains(
            "--network-interface-id eni-3 --attachment AttachmentId=eni-attach-3,DeleteOnTermination=true"
        ));
        assert_eq!(
            machine.read("asked"),
            "url = \"https://join.example/default/wekactl-prod-Backends?instance_id=i-0123456789abcdef0\"\n\
             header = \"x-api-key: k3y-\\\"with\\\\quotes\\\"-and-'more'\"\n"
        );
        assert!(!machine.read("calls").contains("k3y"), "key in an argument");
        assert!(!machine.read("log").contains("k3y"), "key in the log");
    }

    #[test]
    fn each_interface_has_every_security_group_and_goes_with_its_machine() {
        let machine = machine("200 script\n");
        let groups = ["sg-1", "sg-2", "sg-3"].map(ToOwned::to_owned).to_vec();
        let output = machine.boot(&UserData {
            security_groups: groups,
            ..example()
        });
        assert!(output.status.success(), "{}", machine.read("log"));
        let made = machine.calls("aws ec2 create-network-interface");
        assert_eq!(made.len(), 3);
        for call in made {
            assert!(call.contains(" --groups sg-1 sg-2 sg-3 --"), "{call}");
        }
        let changed = machine.calls("aws ec2 modify-network-interface-attribute");
        for (number, call) in (1..=3).zip(&changed) {
            let attachment = format!(
                "--network-interface-id eni-{number} \
                 --attachment AttachmentId=eni-attach-{number},DeleteOnTermination=true"
            );
            assert!(call.ends_with(&attachment), "{call}");
        }
        assert_eq!(changed.len(), 3);
    }

    #[test]
    fn a_key_of_two_lines_gives_curl_no_option() {
        let machine = machine("200 script\n");
        let output = machine.boot(&UserData {
            api_key: "k3y\noutput = /etc/passwd".into(),
            ..example()
        });
        assert!(output.status.success(), "{}", machine.read("log"));
        let asked = machine.read("asked");
        let lines: Vec<_> = asked.lines().skip(1).collect();
        assert_eq!(
            lines,
            [r#"header = "x-api-key: k3y\noutput = /etc/passwd""#]
        );
    }

    #[test]
    fn interfaces_are_spread_over_the_cards() {
        let machine = machine("200 script\n");
        machine.boot(&UserData {
            network_cards: 2,
            ..example()
        });
        let attached = machine.calls("aws ec2 attach");
        let cards: Vec<_> = attached
            .iter()
            .filter_map(|call| call.split("--network-card-index ").nth(1)?.get(..1))
            .collect();
        assert_eq!(cards, ["1", "0", "1"]);
    }

    #[test]
    fn a_role_that_may_not_tag_does_not_stop_the_join() {
        let machine = machine("200 script\n");
        machine.write("no-tags", "");
        assert!(machine.boot(&example()).status.success());
        assert!(
            machine
                .read("log")
                .contains("failed, going on: aws ec2 create-tags")
        );
    }

    #[test]
    fn an_interface_that_can_not_be_attached_is_not_left_behind() {
        let machine = machine("200 script\n");
        machine.write("no-attach", "");
        machine.assert_refused(&machine.boot(&example()));
        assert_eq!(
            machine.calls("aws ec2 delete"),
            ["aws ec2 delete-network-interface --network-interface-id eni-1"]
        );
    }

    #[test]
    fn nothing_but_a_whole_script_with_status_200_is_run() {
        for answers in [
            "403\n",
            "403 script\n",
            "404 script\n",
            "301 script\n",
            "200\n",
            "200 page\n",
            // What a failed answer left is not run for an empty one.
            "500 script\n200\n",
        ] {
            let machine = machine(answers);
            machine.assert_refused(&machine.boot(&example()));
            assert!(machine.read("asked").lines().count() <= 4, "{answers}");
        }
    }

    #[test]
    fn a_join_script_that_fails_shuts_the_machine_down() {
        let machine = machine("200 failing\n");
        machine.assert_refused(&machine.boot(&example()));
    }

    #[test]
    fn busy_and_broken_answers_are_asked_for_again() {
        let machine = machine("500 page\n429\n000!\n200! script\n200 script\n");
        let output = machine.boot(&example());
        assert!(output.status.success(), "{}", machine.read("log"));
        assert_eq!(machine.read("ran").lines().count(), 1);
        assert_eq!(machine.calls("sleep").len(), 4);
    }

    #[test]
    fn the_wait_ends_after_ten_minutes() {
        let machine = machine("502\n");
        machine.assert_refused(&machine.boot(&example()));
        let pauses: Vec<u32> = machine
            .calls("sleep")
            .iter()
            .map(|call| call["sleep ".len()..].parse().unwrap())
            .collect();
        assert!((600..615).contains(&pauses.iter().sum::<u32>()));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "no jitter");
    }

    #[test]
    fn a_second_boot_makes_only_what_is_missing() {
        let machine = machine("403\n200 script\n");
        machine.write("attached", "0\n2\n");
        assert!(!machine.boot(&example()).status.success());
        assert!(machine.boot(&example()).status.success());
        assert_eq!(machine.read("attached"), "0\n2\n1\n3\n");
        assert_eq!(machine.calls("aws ec2 create-network-interface").len(), 2);
    }

    #[test]
    fn the_longest_values_fit_and_longer_ones_are_refused() {
        let largest = UserData {
            // The most an interface takes, and names at their limits.
            security_groups: vec!["sg-0123456789abcdef0".into(); 16],
            cluster: "c".repeat(128),
            join_url: format!("https://{}", "u".repeat(300)),
            ..example()
        };
        assert!(user_data(&largest).is_ok());
        let error = user_data(&UserData {
            join_url: "u".repeat(MAX_USER_DATA),
            ..example()
        })
        .unwrap_err();
        assert!(error.length > MAX_USER_DATA);
    }

    #[test]
    fn the_script_is_clean() {
        assert_clean(user_data(&example()).unwrap().expose_secret());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_bash_reads_is_what_was_quoted(values in proptest::collection::vec(r"[^\x00]{0,40}", 1..20)) {
            let words: Vec<String> = values.iter().map(|value| quote(value)).collect();
            let mut bash = Command::new("bash")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let script = format!("printf '%s\\0' {}\n", words.join(" "));
            std::io::Write::write_all(&mut bash.stdin.take().unwrap(), script.as_bytes()).unwrap();
            let read = bash.wait_with_output().unwrap().stdout;
            let expected: String = values.iter().map(|value| format!("{value}\0")).collect();
            prop_assert_eq!(read, expected.into_bytes());
        }
    }
}
