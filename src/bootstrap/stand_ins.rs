//! A machine of stand-ins, on which the tests run the real scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the join function's API wants to see: with everything that a quotation must get right.
pub(super) const API_KEY: &str = r#"k3y-"with\quotes"-and-'more'"#;

/// Where the join function answers.
pub(super) const JOIN_URL: &str = "https://join.example/default/wekactl-prod-Backends";

/// A command that only writes down how it was called.
pub(super) const RECORD: &str =
    "#!/bin/bash\nprintf '%s %s\\n' \"${0##*/}\" \"$*\" >>\"$STATE/calls\"\n";

/// The metadata service, the join function and the backends. The n-th request to the join function gets line n of
/// `answers` (`<status> <file>`, a file that breaks off where the status ends in `!`), the last line for ever.
/// `backends/<address>` has `<scheme> <version>`; a backend without the file is dead.
const CURL: &str = r#"#!/bin/bash
printf 'curl %s\n' "$*" >>"$STATE/calls"
config=''; output=/dev/stdout; url=''; format=''
while (($#)); do
  case $1 in
    --config) config=$(cat) ;;
    --output) output=$2 ;;
    --write-out) format=$2 ;;
    http*) url=$1 ;;
  esac
  shift
done
if [[ -n $config ]]; then url=$(sed -n 's/^url = "\(.*\)"$/\1/p' <<<"$config"); fi
case $url in
  */api/token) echo -n TOKEN ;;
  */meta-data/*)
    [[ $config == *'X-aws-ec2-metadata-token: TOKEN'* ]] || exit 22
    case ${url#*/meta-data/} in
      instance-id) echo -n i-0123456789abcdef0 ;;
      local-ipv4) echo -n 10.0.0.7 ;;
      network/interfaces/macs/) sed 's|^|02:00:00:00:00:|; s|$|/|' "$STATE/attached" ;;
      network/interfaces/macs/*/device-number) mac=${url%/device-number}; echo -n "${mac##*:}" ;;
      *) exit 22 ;;
    esac ;;
  https://join.example/*)
    printf '%s\n' "$config" >>"$STATE/asked"
    number=$(grep -c '^url' "$STATE/asked")
    line=$(sed -n "${number}p" "$STATE/answers")
    [[ -n $line ]] || line=$(tail -n 1 "$STATE/answers")
    read -r status file <<<"$line"
    [[ -z $file ]] || cat "$STATE/$file" >"$output"
    format=${format//'%{http_code}'/${status%!}}
    printf '%s' "${format//'%{time_total}'/0.250000}"
    [[ $status != *! ]] || exit 18 ;;
  *://*:14000/*)
    address=${url#*://}; address=${address%%:*}
    read -r scheme version 2>/dev/null <"$STATE/backends/$address" || exit 7
    [[ $url == "$scheme://"* ]] || exit 35
    case ${url#*:14000/} in
      api/v1) printf '{"jsonrpc":"2.0","id":"1","result":{"software_release":"%s","x":1}}' "$version" ;;
      dist/v1/install) cat "$STATE/installer" >"$output" 2>/dev/null || exit 22 ;;
      *) exit 22 ;;
    esac ;;
  *) exit 6 ;;
esac
"#;

/// A machine: its metadata, what it may do, and what it did.
pub(super) struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    /// With these commands besides `curl`, and the first network interface.
    pub(super) fn new(commands: &[(&str, &str)]) -> Self {
        let machine = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        machine.command("curl", CURL);
        for (name, text) in commands {
            machine.command(name, text);
        }
        machine.write("attached", "0\n");
        machine
    }

    pub(super) fn command(&self, name: &str, text: &str) {
        let file = format!("bin/{name}");
        self.write(&file, text);
        fs::set_permissions(self.path(&file), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The file, empty where there is none.
    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Runs the script with no other commands than the stand-ins and the system's.
    pub(super) fn bash(&self, script: &str, environment: &[(&str, &str)]) -> Output {
        self.write("script.sh", script);
        Command::new("bash")
            .arg(self.path("script.sh"))
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.path("bin").display()),
            )
            .env("TMPDIR", self.dir.path())
            .env("STATE", self.dir.path())
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    /// The calls that begin like this, in order.
    pub(super) fn calls(&self, of: &str) -> Vec<String> {
        self.read("calls")
            .lines()
            .filter(|call| call.starts_with(of))
            .map(ToOwned::to_owned)
            .collect()
    }
}

/// Bash can read the script, and shellcheck finds nothing in it.
#[expect(clippy::print_stderr, reason = "says which check could not be made")]
pub(super) fn assert_clean(script: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("script.sh");
    fs::write(&file, script).unwrap();
    let check = |program: &str, arguments: &[&str], file: &Path| {
        Command::new(program).args(arguments).arg(file).output()
    };
    let bash = check("bash", &["-n"], &file).unwrap();
    assert!(
        bash.status.success(),
        "{}",
        String::from_utf8_lossy(&bash.stderr)
    );
    match check("shellcheck", &["--severity=style"], &file) {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        ),
        Err(error) => eprintln!("shellcheck was not run, only bash -n: {error}"),
    }
}
