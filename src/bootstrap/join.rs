//! What a new backend runs to join its cluster: the script that the join function hands out.

use super::{VALUES, quote};
use crate::cluster::spec::Cores;

/// The most backends a new one is told to join through.
pub const MAX_BACKENDS: usize = 20;

const JOIN: &str = include_str!("join.sh");

/// The values of one cluster's join script. It has no credentials: it asks for them when it needs them, with
/// `step=credentials`, and reads them from JSON: `{"username": "…", "password": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinScript {
    /// Name of the cluster.
    pub cluster: String,
    /// What Weka gets of the machine.
    pub cores: Cores,
    /// Addresses of running backends, longest-serving first. The first [`MAX_BACKENDS`] are used, and not the new
    /// machine's own.
    pub backends: Vec<String>,
}

/// The script. The user data runs it with the join function's URL in `WEKACTL_JOIN_URL` and the key in
/// `WEKACTL_API_KEY`.
pub fn join_script(of: &JoinScript) -> String {
    let backends = &of.backends[..of.backends.len().min(MAX_BACKENDS)];
    let values = [
        format!("CLUSTER={}", quote(&of.cluster)),
        format!("COMPUTE={}", of.cores.compute),
        format!("DRIVE={}", of.cores.drive),
        format!("FRONTEND={}", of.cores.frontend),
        // Bytes, as Weka writes a capacity.
        format!("MEMORY={}B", of.cores.memory),
        format!("BACKENDS={}", quote(&backends.join(" "))),
    ];
    JOIN.replacen(VALUES, &values.join("\n"), 1)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Output;

    use secrecy::ExposeSecret;

    use super::super::stand_ins::{API_KEY, JOIN_URL, Machine, RECORD, assert_clean};
    use super::super::{UserData, user_data};
    use super::*;
    use crate::cluster::instance_types::cores_of;

    const PASSWORD: &str = r#"pass"w\rd with 'quotes' & ünicode"#;

    /// The cluster as the command sees it: `containers` has `name id state instance address host-name` a line,
    /// `drives` `uuid container-id`. The n-th call fails that `fail-at` names, and every call that matches
    /// `fail`. What is in `event` happens in every call.
    const WEKA: &str = r#"#!/bin/bash
printf 'weka %s\n' "$*" >>"$STATE/calls"
call="$*"
if [[ -e $STATE/fail-at && $(grep -c '^weka ' "$STATE/calls") == "$(<"$STATE/fail-at")" ]]; then exit 1; fi
if [[ -e $STATE/fail && $call =~ $(<"$STATE/fail") ]]; then exit 1; fi
[[ ! -e $STATE/event ]] || . "$STATE/event"
authorised() {
  [[ ${WEKA_USERNAME-} == admin && ${WEKA_PASSWORD-} == "$(<"$STATE/password")" ]] || exit 41
}
remote() {
  [[ $call == *' -H 10.0.'* ]] || exit 42
  authorised
}
listed() {
  local separator='' name id state owner address host
  while read -r name id state owner address host; do
    printf '%s{"host_id": "HostId<%s>", "container_name": "%s", "state": "%s", "status": "UP", "hostname": "%s", "host_ip": "%s", "ips": ["%s"], "mode": "backend", "cloud": {"instance_id": "%s"}}' \
      "$separator" "$id" "$name" "$state" "$host" "$address" "$address" "$owner"
    separator=', '
  done <"$STATE/containers"
}
case $call in
  'version get --from 10.0.'*:14000\ *' --set-current' | 'version prepare '* | 'local stop') ;;
  'local rm --all -f') : >"$STATE/local" ;;
  'local setup container --name '*)
    [[ -z ${WEKA_PASSWORD-} && -z ${WEKACTL_API_KEY-} ]] || exit 43
    echo "$5" >>"$STATE/local"
    id=$((100 + $(wc -l <"$STATE/local")))
    [[ -e $STATE/unknown ]] || echo "$5 $id ACTIVE i-0123456789abcdef0 10.0.0.7 ip-10-0-0-7" >>"$STATE/containers" ;;
  'local exec --container drives0 /weka/tools/weka_sign_drive '*)
    disk=${call##*/}
    [[ -e $STATE/dev/$disk ]] || exit 44
    echo "$disk" >>"$STATE/signed"
    [[ -e $STATE/no-partitions ]] || mkdir -p "$STATE/sys/block/$disk/${disk}p1" ;;
  'debug manhole -s 0 operational_status')
    authorised
    if [[ -e $STATE/not-ready ]]; then echo '{"is_ready": false}'; else echo '{"is_ready": true, "x": 1}'; fi ;;
  'cluster container -J -H '*) remote; echo "[$(listed)]" ;;
  'cluster drive -J -H '*)
    remote
    separator=''
    printf '{'
    while read -r uuid id; do
      printf '%s"DiskId<%s>": {"uuid": "%s", "host_id": "HostId<%s>"}' "$separator" "$uuid" "$uuid" "$id"
      separator=', '
    done <"$STATE/drives"
    echo '}' ;;
  'cluster drive scan '*)
    remote
    while read -r disk; do
      [[ -e $STATE/lost && $disk == "$(cat "$STATE/lost")" ]] || printf '00000000-0000-4000-8000-%012d %s\n' "$((10#${disk//[^0-9]/}))" "$4" >>"$STATE/drives"
    done < <(cat "$STATE/signed" 2>/dev/null)
    : >"$STATE/signed"
    [[ ! -e $STATE/noisy ]] || exit 1 ;;
  'cluster drive deactivate '*' --force -H '*) remote; echo "$4" >>"$STATE/deactivated" ;;
  'cluster drive remove '*' --force -H '*)
    remote
    grep -qx "$4" "$STATE/deactivated" || exit 45
    sed -i "/^$4 /d" "$STATE/drives" ;;
  'cluster container deactivate '*' -H '*)
    remote
    shift 3
    while [[ $1 != -H ]]; do
      sed -i "s/^\([^ ]* $1\) ACTIVE/\1 INACTIVE/" "$STATE/containers"
      shift
    done ;;
  'cluster container remove '*' -H '*)
    remote
    grep -q "^[^ ]* $4 INACTIVE" "$STATE/containers" || exit 46
    sed -i "/^[^ ]* $4 /d" "$STATE/containers" ;;
  'events trigger-event '*) remote; stat -c %a "$STATE"/tmp.*/credentials >"$STATE/mode" ;;
  *) exit 47 ;;
esac
"#;

    /// The cluster before: a machine whose address begins like this one's, and what is left of one that had this very
    /// address.
    const NEIGHBOUR: &str = "drives0 7 ACTIVE i-0fedcba9876543210 10.0.0.70 ip-10-0-0-70\n\
        compute0 8 ACTIVE i-0fedcba9876543210 10.0.0.70 ip-10-0-0-70\n\
        drives0 9 ACTIVE i-0aaaaaaaaaaaaaaaa 10.0.0.7 ip-10-0-0-7\n";

    const LSCPU: &str = r#"#!/bin/bash
[[ $* == -p=CPU,CORE,SOCKET,NODE ]] && cat "$STATE/lscpu"
"#;

    const LSBLK: &str = r#"#!/bin/bash
name=${!#}; name=${name##*/}
[[ $* == "-n -r -o NAME,MOUNTPOINT ${!#}" ]] || exit 1
cat "$STATE/lsblk/$name" 2>/dev/null || echo "$name "
"#;

    const BLKID: &str = r#"#!/bin/bash
name=${!#}; name=${name##*/}
[[ $* == "-p -o export ${!#}" ]] || exit 1
cat "$STATE/blkid/$name" 2>/dev/null || exit 2
[[ ! -e $STATE/blkid/broken ]] || exit 4
"#;

    /// A pause, in which the machine's clock goes on.
    const SLEEP: &str = r#"#!/bin/bash
printf 'sleep %s\n' "$*" >>"$STATE/calls"
read -r seconds _ <"$STATE/uptime"
echo "$((${seconds%.*} + $1)).25 1.00" >"$STATE/uptime"
"#;

    /// Somebody ends the script.
    const SIGNAL: &str = r#"kill -TERM "$(cat "$STATE/pid")""#;

    struct Layout {
        instance_type: &'static str,
        /// NUMA nodes, physical cores of each, threads of each core.
        cpu: (u32, u32, u32),
        disks: u32,
    }

    const SMALL: Layout = Layout {
        instance_type: "i3en.2xlarge",
        cpu: (1, 4, 2),
        disks: 2,
    };
    const LARGE: Layout = Layout {
        instance_type: "i3en.24xlarge",
        cpu: (2, 24, 2),
        disks: 8,
    };
    /// Two network cards, and no hyper-threads.
    const ARM: Layout = Layout {
        instance_type: "i8ge.48xlarge",
        cpu: (2, 96, 1),
        disks: 16,
    };

    impl Layout {
        /// As `lscpu -p` says it: the second threads come after all first ones.
        fn lscpu(&self) -> String {
            let (nodes, cores, threads) = self.cpu;
            let mut text =
                "# The following is the parsable format\n# CPU,Core,Socket,Node\n".to_owned();
            for cpu in 0..nodes * cores * threads {
                let core = cpu % (nodes * cores);
                let node = core / cores;
                writeln!(text, "{cpu},{core},{node},{node}").unwrap();
            }
            text
        }

        fn script(&self) -> JoinScript {
            JoinScript {
                cluster: "prod".into(),
                cores: cores_of(self.instance_type).unwrap(),
                backends: vec!["10.0.0.5".into(), "10.0.0.7".into(), "10.0.0.70".into()],
            }
        }

        fn without_frontend(&self) -> JoinScript {
            let mut script = self.script();
            script.cores.frontend = 0;
            script
        }

        fn machine(&self) -> Machine {
            let machine = Machine::new(&[
                ("weka", WEKA),
                ("lscpu", LSCPU),
                ("lsblk", LSBLK),
                ("blkid", BLKID),
                ("sleep", SLEEP),
                ("mkfs.ext4", RECORD),
                ("mount", RECORD),
            ]);
            machine.write("uptime", "61.02 100.00\n");
            machine.write("lscpu", &self.lscpu());
            machine.write("fstab", "LABEL=/ / ext4 defaults 1 1\n");
            for file in ["drives", "local"] {
                machine.write(file, "");
            }
            machine.write("containers", NEIGHBOUR);
            machine.write("password", PASSWORD);
            machine.write("answers", "200 reply\n");
            machine.write(
                "reply",
                &serde_json::json!({"username": "admin", "password": PASSWORD}).to_string(),
            );
            machine.write(
                "installer",
                "#!/bin/sh\necho installed >>\"$STATE/calls\"\n",
            );
            machine.write("backends/10.0.0.5", "https 4.4.1\n");
            machine.write("backends/10.0.0.70", "https 4.4.1\n");
            machine.disk(0, "Amazon Elastic Block Store              ");
            machine.disk(1, "Amazon Elastic Block Store              ");
            symlink("nvme1n1", machine.path("dev/sdp")).unwrap();
            for disk in 0..self.disks {
                machine.disk(2 + disk, "Amazon EC2 NVMe Instance Storage        ");
            }
            let interfaces = self.script().cores.interfaces();
            let mut attached = String::new();
            for index in 0..=interfaces {
                writeln!(attached, "{index}").unwrap();
                machine.interface(&format!("ens{}", 90 - index), index);
            }
            machine.write("attached", &attached);
            // A bond repeats an address.
            machine.write("sys/class/net/bond0/address", "02:00:00:00:00:1\n");
            machine
        }
    }

    impl Machine {
        fn disk(&self, number: u32, model: &str) {
            let name = format!("nvme{number}n1");
            self.write(
                &format!("sys/block/{name}/device/model"),
                &format!("{model}\n"),
            );
            self.write(&format!("sys/block/{name}/queue/rotational"), "0\n");
            self.write(&format!("dev/{name}"), "");
        }

        fn interface(&self, name: &str, index: u32) {
            self.write(
                &format!("sys/class/net/{name}/address"),
                &format!("02:00:00:00:00:{index}\n"),
            );
            self.write(&format!("sys/class/net/{name}/device/vendor"), "0x1d0f\n");
        }

        /// Something that happens in the first call that matches.
        fn once(&self, call: &str, event: &str) {
            let call = call.replace(' ', "\\ ");
            self.write(
                "event",
                &format!(
                    "if [[ $call =~ {call} && ! -e $STATE/happened ]]; then touch \"$STATE/happened\"; {event}; fi\n"
                ),
            );
        }

        /// The script, with this machine for the system's own directories.
        fn script(&self, values: &JoinScript) -> String {
            let mut script = join_script(values);
            for (constant, value) in [
                ("devices=/dev", "dev"),
                ("system=/sys", "sys"),
                ("uptime=/proc/uptime", "uptime"),
                ("fstab=/etc/fstab", "fstab"),
                ("weka_directory=/opt/weka", "opt-weka"),
                ("agent_directory=/opt/aws/amazon-cloudwatch-agent", "agent"),
            ] {
                let (name, _) = constant.split_once('=').unwrap();
                let line = format!("\n{constant}\n");
                assert_eq!(script.matches(&line).count(), 1, "{constant}");
                let value = self.path(value);
                script = script.replace(&line, &format!("\n{name}={}\n", value.display()));
            }
            script.replace("\nwork=''\n", "\nwork=''\necho $$ >\"$STATE/pid\"\n")
        }

        fn join(&self, values: &JoinScript) -> Output {
            let script = self.script(values);
            let output = self.bash(
                &script,
                &[("WEKACTL_JOIN_URL", JOIN_URL), ("WEKACTL_API_KEY", API_KEY)],
            );
            self.write("log", &String::from_utf8(output.stderr.clone()).unwrap());
            self.assert_no_secret();
            output
        }

        fn assert_no_secret(&self) {
            for secret in [PASSWORD, API_KEY, "pass\"w", "k3y"] {
                assert!(
                    !self.read("calls").contains(secret),
                    "{}",
                    self.read("calls")
                );
                assert!(!self.read("log").contains(secret), "{}", self.read("log"));
            }
        }

        fn log(&self) -> String {
            self.read("log")
        }

        fn assert_joined(&self, output: &Output, layout: &Layout) {
            assert!(output.status.success(), "{}", self.log());
            let drives = self.read("drives");
            assert_eq!(drives.lines().count(), layout.disks as usize, "{drives}");
            assert!(
                drives.lines().all(|drive| drive.ends_with(" 101")),
                "{drives}"
            );
        }

        /// Failed, and nothing of this machine is in the cluster, and all of the others still are.
        fn assert_undone(&self, output: &Output) {
            assert!(!output.status.success(), "{}", self.log());
            assert_eq!(self.read("containers"), NEIGHBOUR, "{}", self.log());
            assert_eq!(self.read("drives"), "", "{}", self.log());
            assert_eq!(self.read("local"), "", "{}", self.log());
        }

        /// Failed before anything was set up.
        fn assert_nothing_begun(&self, output: &Output) {
            self.assert_undone(output);
            assert!(self.calls("weka local setup").is_empty());
            assert!(self.calls("weka cluster").is_empty());
        }
    }

    /// The value of a flag of a call.
    fn flag<'a>(call: &'a str, name: &str) -> &'a str {
        call.split(&format!(" {name} "))
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_default()
    }

    fn cores(call: &str) -> Vec<u32> {
        flag(call, "--core-ids")
            .split(',')
            .map(|core| core.parse().unwrap())
            .collect()
    }

    fn interfaces(call: &str) -> Vec<&str> {
        call.split(" --net ")
            .skip(1)
            .map(|rest| rest.split(' ').next().unwrap())
            .collect()
    }

    #[test]
    fn a_small_machine_joins() {
        let machine = SMALL.machine();
        let output = machine.join(&SMALL.script());
        machine.assert_joined(&output, &SMALL);
        insta::assert_snapshot!(machine.calls("weka").join("\n"));
    }

    #[test]
    fn a_machine_with_two_numa_nodes_joins_without_a_frontend() {
        let machine = LARGE.machine();
        let output = machine.join(&LARGE.without_frontend());
        machine.assert_joined(&output, &LARGE);
        insta::assert_snapshot!(machine.calls("weka").join("\n"));
    }

    #[test]
    fn containers_share_no_core_and_no_interface_and_are_spread_over_the_nodes() {
        for layout in [SMALL, LARGE, ARM] {
            let machine = layout.machine();
            machine.assert_joined(&machine.join(&layout.script()), &layout);
            let (nodes, per_node, _) = layout.cpu;
            let calls = machine.calls("weka local setup container");
            assert_eq!(calls.len(), 3);
            let (mut all_cores, mut all_interfaces) = (Vec::new(), Vec::new());
            for call in &calls {
                let cores = cores(call);
                assert_eq!(cores.len().to_string(), flag(call, "--cores"));
                assert_eq!(cores.len(), interfaces(call).len());
                let on_first = cores.iter().filter(|core| **core < per_node).count();
                let others = cores.len() - on_first;
                assert!(nodes == 1 || on_first.abs_diff(others) <= 1, "{call}");
                all_cores.extend(cores);
                all_interfaces.extend(interfaces(call));
            }
            assert!(
                all_cores
                    .iter()
                    .all(|core| (1..nodes * per_node).contains(core)),
                "core 0 or a sibling: {all_cores:?}"
            );
            let wanted: Vec<String> = (1..=all_cores.len())
                .map(|index| format!("ens{}", 90 - index))
                .collect();
            assert_eq!(all_interfaces, wanted);
            all_cores.sort_unstable();
            all_cores.dedup();
            assert_eq!(all_cores.len(), wanted.len());
        }
    }

    #[test]
    fn the_failure_domain_is_the_hash_of_the_address() {
        let machine = SMALL.machine();
        machine.join(&SMALL.script());
        for call in machine.calls("weka local setup container") {
            // printf 10.0.0.7 | sha256sum | cut -c 1-16
            assert_eq!(flag(&call, "--failure-domain"), "130e4daba9786013");
            assert_eq!(flag(&call, "--join-ips"), "10.0.0.5,10.0.0.70");
            assert_eq!(flag(&call, "--management-ips"), "10.0.0.7");
        }
    }

    #[test]
    fn a_joined_machine_has_its_volume_and_keeps_no_credentials() {
        let machine = SMALL.machine();
        let output = machine.join(&SMALL.script());
        assert!(output.stdout.is_empty());
        let device = machine.path("dev/nvme1n1");
        assert_eq!(
            machine.calls("m"),
            [
                format!("mkfs.ext4 -q -L wekaiosw {}", device.display()),
                format!(
                    "mount {} {}",
                    device.display(),
                    machine.path("opt-weka").display()
                ),
            ]
        );
        assert_eq!(
            machine.read("fstab"),
            format!(
                "LABEL=/ / ext4 defaults 1 1\nLABEL=wekaiosw {} ext4 defaults 0 2\n",
                machine.path("opt-weka").display()
            )
        );
        assert_eq!(machine.read("mode"), "600\n");
        assert_eq!(
            machine.read("asked"),
            "url = \"https://join.example/default/wekactl-prod-Backends?instance_id=i-0123456789abcdef0&step=credentials\"\n\
             header = \"x-api-key: k3y-\\\"with\\\\quotes\\\"-and-'more'\"\n"
        );
        let left: Vec<_> = fs::read_dir(machine.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("tmp."))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// A volume with the label may be formatted already, by a boot that broke off, and mounted, by a second boot.
    #[test]
    fn a_volume_with_the_label_is_mounted_and_not_formatted() {
        let machine = SMALL.machine();
        machine.write(
            "blkid/nvme1n1",
            "DEVNAME=/dev/nvme1n1\nLABEL=wekaiosw\nUUID=1\nTYPE=ext4\n",
        );
        machine.assert_joined(&machine.join(&SMALL.script()), &SMALL);
        assert!(machine.calls("mkfs").is_empty());
        assert_eq!(machine.calls("mount").len(), 1);

        let machine = SMALL.machine();
        machine.write("blkid/nvme1n1", "LABEL=wekaiosw\nTYPE=ext4\n");
        let directory = machine.path("opt-weka");
        machine.write(
            "lsblk/nvme1n1",
            &format!("nvme1n1 {}\n", directory.display()),
        );
        machine.write("fstab", "LABEL=wekaiosw /opt/weka ext4 defaults 0 2\n");
        machine.assert_joined(&machine.join(&SMALL.script()), &SMALL);
        assert!(machine.calls("m").is_empty());
        assert_eq!(machine.read("fstab").lines().count(), 1);
    }

    #[test]
    fn a_volume_with_anything_else_is_not_touched() {
        for (file, text) in [
            ("blkid/nvme1n1", "TYPE=xfs\n"),
            ("blkid/nvme1n1", "LABEL=data\nTYPE=ext4\n"),
            ("blkid/nvme1n1", "LABEL=wekaiosw\nTYPE=xfs\n"),
            ("blkid/nvme1n1", "LABEL=wekaiosw2\nTYPE=ext4\n"),
            ("blkid/nvme1n1", "PTTYPE=gpt\n"),
            ("blkid/broken", ""),
            ("lsblk/nvme1n1", "nvme1n1 /\n"),
            ("lsblk/nvme1n1", "nvme1n1 \nnvme1n1p1 \n"),
        ] {
            let machine = SMALL.machine();
            if file == "blkid/broken" {
                machine.write("blkid/nvme1n1", "");
            }
            machine.write(file, text);
            machine.assert_nothing_begun(&machine.join(&SMALL.script()));
            assert!(machine.calls("m").is_empty(), "{file}: {text}");
        }
    }

    #[test]
    fn the_volume_is_found_under_every_name() {
        let machine = SMALL.machine();
        fs::remove_file(machine.path("dev/sdp")).unwrap();
        symlink("nvme1n1", machine.path("dev/xvdp")).unwrap();
        machine.assert_joined(&machine.join(&SMALL.script()), &SMALL);

        let nitro = "#!/bin/bash\n[[ $2 == */nvme1n1 ]] && echo /dev/sdp || echo xvda\n";
        let machine = SMALL.machine();
        fs::remove_file(machine.path("dev/sdp")).unwrap();
        machine.command("ebsnvme-id", nitro);
        machine.assert_joined(&machine.join(&SMALL.script()), &SMALL);
        assert!(machine.calls("mkfs")[0].ends_with("/dev/nvme1n1"));

        // The name is 32 bytes at 3072 of what the controller says of itself.
        let nitro = "#!/bin/bash\nhead -c 3072 /dev/zero\n\
            [[ $3 == */nvme1n1 ]] && printf '%-32s' sdp || printf '%-32s' /dev/xvda\nhead -c 992 /dev/zero\n";
        let machine = SMALL.machine();
        fs::remove_file(machine.path("dev/sdp")).unwrap();
        machine.command("nvme", nitro);
        machine.assert_joined(&machine.join(&SMALL.script()), &SMALL);
        assert!(machine.calls("mkfs")[0].ends_with("/dev/nvme1n1"));

        let machine = SMALL.machine();
        fs::remove_file(machine.path("dev/sdp")).unwrap();
        machine.assert_nothing_begun(&machine.join(&SMALL.script()));
        assert!(
            machine
                .log()
                .contains("waited too long for the data volume")
        );
    }

    #[test]
    fn only_blank_instance_store_disks_are_given_to_the_cluster() {
        let machine = SMALL.machine();
        machine.write("lsblk/nvme2n1", "nvme2n1 /scratch\n");
        machine.write(
            "sys/block/nvme9n1/device/model",
            "Amazon EC2 NVMe Instance Storage\n",
        );
        machine.write("sys/block/nvme9n1/queue/rotational", "1\n");
        let output = machine.join(&SMALL.script());
        assert!(output.status.success(), "{}", machine.log());
        assert_eq!(
            machine.read("drives"),
            "00000000-0000-4000-8000-000000000031 101\n"
        );

        for (file, text) in [
            ("blkid/nvme2n1", "TYPE=ext4\n"),
            ("blkid/nvme2n1", "TYPE=swap\n"),
            ("blkid/nvme3n1p1", "PTTYPE=gpt\nTYPE=xfs\n"),
        ] {
            let machine = SMALL.machine();
            machine.write("lsblk/nvme3n1", "nvme3n1 \nnvme3n1p1 \n");
            machine.write(file, text);
            machine.assert_nothing_begun(&machine.join(&SMALL.script()));
            assert!(
                machine.log().contains("is not touched"),
                "{}",
                machine.log()
            );
        }

        let machine = SMALL.machine();
        for disk in ["nvme2n1", "nvme3n1"] {
            machine.write(&format!("sys/block/{disk}/device/model"), "Other\n");
        }
        machine.assert_nothing_begun(&machine.join(&SMALL.script()));
    }

    #[test]
    fn a_machine_without_the_cores_or_interfaces_does_not_begin() {
        let machine = SMALL.machine();
        machine.write(
            "lscpu",
            &Layout {
                cpu: (1, 3, 2),
                ..SMALL
            }
            .lscpu(),
        );
        machine.assert_nothing_begun(&machine.join(&SMALL.script()));
        assert!(
            machine.log().contains("3 physical cores are needed"),
            "{}",
            machine.log()
        );

        let machine = SMALL.machine();
        fs::remove_dir_all(machine.path("sys/class/net/ens89")).unwrap();
        machine.assert_nothing_begun(&machine.join(&SMALL.script()));
        assert!(
            machine.log().contains("waited too long for 3 interfaces"),
            "{}",
            machine.log()
        );
    }

    #[test]
    fn a_machine_that_says_nothing_of_its_nodes_joins() {
        let machine = SMALL.machine();
        machine.write(
            "lscpu",
            "# CPU,Core,Socket,Node\n0,0,0,\n1,1,0,\n2,2,0,-\n3,3,,\n",
        );
        machine.assert_joined(&machine.join(&SMALL.script()), &SMALL);
    }

    #[test]
    fn the_version_comes_from_the_first_backend_that_answers() {
        let machine = SMALL.machine();
        fs::remove_file(machine.path("backends/10.0.0.5")).unwrap();
        machine.write("backends/10.0.0.70", "http 4.2.7\n");
        machine.assert_joined(&machine.join(&SMALL.script()), &SMALL);
        assert_eq!(
            machine.calls("weka version"),
            [
                "weka version get --from 10.0.0.70:14000 4.2.7 --set-current",
                "weka version prepare 4.2.7"
            ]
        );
        assert!(
            machine
                .calls("curl")
                .iter()
                .any(|call| call.ends_with("http://10.0.0.70:14000/dist/v1/install"))
        );
        assert!(
            machine
                .calls("curl")
                .iter()
                .all(|call| !call.contains("http://10.0.0.5:"))
        );
    }

    #[test]
    fn an_upgrade_is_waited_for_and_then_the_join_fails() {
        let machine = SMALL.machine();
        machine.write("backends/10.0.0.70", "https 4.4.2\n");
        machine.assert_nothing_begun(&machine.join(&SMALL.script()));
        assert!(
            machine.log().contains("an upgrade is running"),
            "{}",
            machine.log()
        );
        assert!((55..70).contains(&machine.calls("sleep").len()));
        assert!(machine.calls("weka").is_empty());
    }

    #[test]
    fn without_a_backend_or_an_installer_nothing_is_begun() {
        for backends in [
            vec![],
            vec!["10.0.0.7".to_owned()],
            vec!["10.0.0.99".to_owned()],
        ] {
            let machine = SMALL.machine();
            let values = JoinScript {
                backends,
                ..SMALL.script()
            };
            machine.assert_nothing_begun(&machine.join(&values));
        }
        for installer in ["", "<html>no</html>\n", "#!/bin/sh\nexit 3\n"] {
            let machine = SMALL.machine();
            machine.write("installer", installer);
            machine.assert_nothing_begun(&machine.join(&SMALL.script()));
            assert!(machine.calls("weka").is_empty());
        }
    }

    #[test]
    fn at_most_twenty_backends_are_used() {
        let backends: Vec<String> = (100..150).map(|last| format!("10.0.0.{last}")).collect();
        let script = join_script(&JoinScript {
            backends,
            ..SMALL.script()
        });
        assert!(script.contains("10.0.0.119'\n") && !script.contains("10.0.0.120"));
    }

    /// The n-th call fails, for every n: the machine is in the cluster with all drives, or not at all.
    #[test]
    fn whichever_call_fails_once_the_machine_is_wholly_in_or_wholly_out() {
        let machine = SMALL.machine();
        machine.join(&SMALL.script());
        let calls = machine.calls("weka");
        let mut joined = Vec::new();
        for (index, call) in calls.iter().enumerate() {
            let machine = SMALL.machine();
            machine.write("fail-at", &(index + 1).to_string());
            let output = machine.join(&SMALL.script());
            if output.status.success() {
                machine.assert_joined(&output, &SMALL);
                joined.push(call.split(' ').take(4).collect::<Vec<_>>().join(" "));
            } else {
                machine.assert_undone(&output);
            }
        }
        // What only reads is asked again, a scan is repeated, and an event is not worth a machine.
        assert_eq!(
            joined,
            [
                "weka cluster container -J",
                "weka debug manhole -s",
                "weka cluster drive scan",
                "weka cluster drive -J",
                "weka events trigger-event Scale",
            ]
        );
    }

    #[test]
    fn whichever_call_never_works_the_machine_is_wholly_out() {
        for call in [
            "^version get",
            "^version prepare",
            "^local setup container --name drives0",
            "^local setup container --name compute0",
            "^local setup container --name frontend0",
            "^local exec",
            "^debug manhole",
        ] {
            let machine = SMALL.machine();
            machine.write("uptime", "1400.00 1.00\n");
            machine.write("fail", call);
            machine.assert_undone(&machine.join(&SMALL.script()));
            assert!(
                machine
                    .log()
                    .contains("left in the cluster (name, id, state): nothing")
                    || call.contains("version")
            );
        }
        for (switch, message) in [
            ("not-ready", "waited too long for the cluster to be ready"),
            (
                "unknown",
                "waited too long for the ids of this machine's containers",
            ),
            (
                "no-partitions",
                "waited too long for the partitions of the signed disks",
            ),
        ] {
            let machine = SMALL.machine();
            machine.write("uptime", "1400.00 1.00\n");
            machine.write(switch, "");
            machine.assert_undone(&machine.join(&SMALL.script()));
            assert!(machine.log().contains(message), "{}", machine.log());
        }
    }

    #[test]
    fn what_is_no_uuid_is_no_argument() {
        let machine = SMALL.machine();
        machine.write("drives", "--all 101\n");
        assert!(!machine.join(&SMALL.script()).status.success());
        assert!(
            machine
                .log()
                .contains("the drives of this machine can not be listed"),
            "{}",
            machine.log()
        );
        assert_eq!(machine.calls("weka cluster drive remove").len(), 0);
        assert_eq!(machine.calls("weka cluster drive deactivate").len(), 0);
    }

    #[test]
    fn a_drive_that_is_never_listed_takes_the_machine_out_with_the_others() {
        let machine = SMALL.machine();
        machine.write("lost", "nvme3n1");
        machine.assert_undone(&machine.join(&SMALL.script()));
        assert_eq!(machine.calls("weka cluster drive scan 101 ").len(), 60);
        assert_eq!(
            machine.calls("weka cluster drive deactivate"),
            [
                "weka cluster drive deactivate 00000000-0000-4000-8000-000000000021 --force -H 10.0.0.5"
            ]
        );
        insta::assert_snapshot!(
            machine
                .calls("weka")
                .into_iter()
                .skip_while(|call| !call.contains("deactivate"))
                .collect::<Vec<_>>()
                .join("\n")
        );
    }

    #[test]
    fn the_drives_decide_and_not_what_the_scan_says() {
        let machine = SMALL.machine();
        machine.write("noisy", "");
        machine.assert_joined(&machine.join(&SMALL.script()), &SMALL);
    }

    #[test]
    fn an_undo_that_fails_says_what_is_left_and_still_clears_the_machine() {
        for refused in ["^cluster container deactivate", "^cluster container remove"] {
            let machine = SMALL.machine();
            machine.write("lost", "nvme3n1");
            machine.once("^cluster drive -J", "sleep 1500");
            machine.write("fail", refused);
            let output = machine.join(&SMALL.script());
            assert!(!output.status.success());
            let log = machine.log();
            assert!(
                log.contains("failed, going on: ask_cluster 60 weka cluster container"),
                "{log}"
            );
            assert!(
                log.contains("left in the cluster (name, id, state): drives0 101"),
                "{log}"
            );
            assert_eq!(machine.read("local"), "");
            assert!(machine.read("containers").starts_with(NEIGHBOUR));
            let uptime = machine.read("uptime");
            let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
            assert!(seconds < (25.0 + 1500.0 / 60.0 + 10.0) * 60.0, "{seconds}");
        }
    }

    #[test]
    fn the_undo_asks_another_backend_when_the_first_is_gone() {
        let machine = SMALL.machine();
        machine.once("^local exec", r#"rm "$STATE/backends/10.0.0.5"; exit 1"#);
        machine.assert_undone(&machine.join(&SMALL.script()));
        assert_eq!(
            machine.calls("weka cluster container remove"),
            [101, 102, 103].map(|id| format!("weka cluster container remove {id} -H 10.0.0.70")),
            "{}",
            machine.log()
        );
    }

    #[test]
    fn refused_or_broken_credentials_end_the_join() {
        for answers in [
            "403\n",
            "403 reply\n",
            "200 page\n",
            "200\n",
            "200 empty\n",
            "500\n",
        ] {
            let machine = SMALL.machine();
            machine.write("page", "<html>\n");
            machine.write("empty", r#"{"username": "", "password": ""}"#);
            machine.write("answers", answers);
            let output = machine.join(&SMALL.script());
            assert!(!output.status.success(), "{answers}");
            assert_eq!(machine.read("local"), "", "{answers}");
            assert!(machine.calls("weka cluster").is_empty(), "{answers}");
            assert!(
                machine.log().contains("not known, without credentials"),
                "{}",
                machine.log()
            );
        }
        let machine = SMALL.machine();
        machine.write("answers", "500 page\n429\n000!\n200! reply\n200 reply\n");
        machine.assert_joined(&machine.join(&SMALL.script()), &SMALL);
    }

    /// A container that can not be set up is taken out with credentials that are asked for only then.
    #[test]
    fn the_undo_asks_for_the_credentials_it_needs() {
        let machine = SMALL.machine();
        machine.write("fail", "^local setup container --name compute0");
        machine.assert_undone(&machine.join(&SMALL.script()));
        assert_eq!(machine.read("asked").matches("step=credentials").count(), 1);
        assert_eq!(
            machine.calls("weka cluster container deactivate"),
            ["weka cluster container deactivate 101 -H 10.0.0.5"]
        );
    }

    #[test]
    fn at_25_minutes_the_join_ends_wherever_it_is() {
        for call in [
            "^version get",
            "^local rm",
            "^local setup container --name frontend0",
            "^local exec",
            "^cluster drive scan",
        ] {
            let machine = SMALL.machine();
            machine.once(call, "sleep 1500");
            machine.write("lost", "nvme3n1");
            machine.assert_undone(&machine.join(&SMALL.script()));
            assert!(
                machine.calls("weka cluster drive scan").len() <= 1,
                "{call}"
            );
            assert!(
                machine.log().contains("no time is left")
                    || machine.log().contains("are not in the cluster"),
                "{call}"
            );
        }
        let machine = SMALL.machine();
        machine.write("uptime", "1501.00 1.00\n");
        machine.assert_nothing_begun(&machine.join(&SMALL.script()));
    }

    #[test]
    fn a_call_that_hangs_is_ended() {
        let machine = SMALL.machine();
        machine.write(
            "event",
            "case $call in\n\
               'version prepare'*) echo '1499.00 1.00' >\"$STATE/uptime\" ;;\n\
               'local stop') [[ -e $STATE/hung ]] || { touch \"$STATE/hung\"; exec /bin/sleep 600; } ;;\n\
             esac\n",
        );
        let begun = std::time::Instant::now();
        machine.assert_undone(&machine.join(&SMALL.script()));
        assert!(begun.elapsed().as_secs() < 60);
    }

    #[test]
    fn a_signal_takes_the_machine_out_again() {
        for call in [
            "^local setup container --name compute0",
            "^debug manhole",
            "^cluster drive scan",
        ] {
            let machine = SMALL.machine();
            machine.once(call, SIGNAL);
            let output = machine.join(&SMALL.script());
            assert_eq!(output.status.code(), Some(143), "{}", machine.log());
            machine.assert_undone(&output);
        }
        // One more, in the middle of the undo.
        let machine = SMALL.machine();
        machine.write("fail", "^local exec");
        machine.once("^cluster container deactivate", SIGNAL);
        machine.assert_undone(&machine.join(&SMALL.script()));
    }

    /// The two scripts keep to one contract.
    #[test]
    fn the_user_data_runs_the_script_and_shuts_down_what_failed() {
        let data = user_data(&UserData {
            region: "eu-central-1".into(),
            subnet_id: "subnet-1".into(),
            security_groups: vec!["sg-1".into()],
            interfaces: SMALL.script().cores.interfaces(),
            network_cards: 1,
            cluster: "prod".into(),
            join_url: JOIN_URL.into(),
            api_key: API_KEY.into(),
        })
        .unwrap();
        let boot = |machine: &Machine| {
            machine.command("shutdown", RECORD);
            machine.write("join", &machine.script(&SMALL.script()));
            machine.write("answers", "200 join\n200 reply\n");
            let log = machine.path("log");
            let data = data.expose_secret();
            let data = data.replace("/var/log/wekactl-bootstrap.log", log.to_str().unwrap());
            let output = machine.bash(&data, &[]);
            machine.assert_no_secret();
            output
        };
        let machine = SMALL.machine();
        machine.assert_joined(&boot(&machine), &SMALL);
        assert!(machine.calls("shutdown").is_empty());

        let machine = SMALL.machine();
        machine.write("fail", "^local exec");
        machine.assert_undone(&boot(&machine));
        assert_eq!(machine.calls("shutdown"), ["shutdown -h now"]);
        assert_eq!(
            machine.read("calls").lines().last(),
            Some("shutdown -h now")
        );
    }

    #[test]
    fn the_log_agent_is_set_up_where_it_can_be() {
        let machine = SMALL.machine();
        machine.join(&SMALL.script());
        assert!(
            machine.log().contains("failed, going on: cloudwatch_agent"),
            "{}",
            machine.log()
        );

        let machine = SMALL.machine();
        machine.write("agent/etc/x", "");
        machine.command(
            "yum",
            "#!/bin/bash\nmkdir -p \"$STATE/agent/bin\"\n\
             cp \"$STATE/bin/mount\" \"$STATE/agent/bin/amazon-cloudwatch-agent-ctl\"\n",
        );
        machine.assert_joined(&machine.join(&SMALL.script()), &SMALL);
        let config = machine.path("agent/etc/wekactl.json");
        assert_eq!(
            machine.calls("amazon-cloudwatch-agent-ctl"),
            [format!(
                "amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s -c file:{}",
                config.display()
            )]
        );
        let config: serde_json::Value =
            serde_json::from_str(&machine.read("agent/etc/wekactl.json")).unwrap();
        let file = &config["logs"]["logs_collected"]["files"]["collect_list"][0];
        assert_eq!(file["log_group_name"], "/wekaio/prod");
    }

    #[test]
    fn the_script_is_clean() {
        assert_clean(&join_script(&SMALL.script()));
    }
}
