//! What speaks against a command is found before its first change, and is said so that a person who reads nothing
//! else knows what is wrong with what, why, and what to do.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{PASSWORD, REGION, Run, Sandbox, mutations};

const CLUSTER_TAG: &str = "wekactl.io/cluster_name";

/// Wrong usage: exit code 2, these words, no data, and not a single call.
#[track_caller]
fn misused(sandbox: &Sandbox, run: Run, words: &[&str]) {
    let run = run.fails(2, words);
    assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    assert_eq!(run.stdout, "");
    let calls = sandbox.take_calls();
    assert!(calls.is_empty(), "{calls:?}");
}

/// Refused: this exit code, this very text, no data, and nothing changed.
#[track_caller]
fn refused(sandbox: &Sandbox, run: &Run, code: i32, said: &str) {
    assert_eq!((run.code, run.stderr.trim_end()), (code, said));
    assert_eq!(run.stdout, "");
    let changed = mutations(&sandbox.take_calls());
    assert!(changed.is_empty(), "{changed:?}");
}

/// An import from a command whose environment the caller has changed.
fn run_with_password(command: &mut Command) -> Run {
    let output = command.env("WEKACTL_PASSWORD", PASSWORD).output();
    Run::of(&output.expect("the executable runs"))
}

/// Ids of a stack's backends, sorted: the first is the model of new ones.
fn backends(stack: &Value) -> Vec<String> {
    let machines = stack["backends"].as_array().expect("a list").iter();
    let mut ids: Vec<String> = machines
        .map(|machine| text(&machine["id"]).to_owned())
        .collect();
    ids.sort();
    ids
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

#[test]
fn wrong_usage_makes_no_call() {
    let sandbox = Sandbox::start();
    let long_name = "n".repeat(129);
    let long_key = format!("{}=1", "k".repeat(129));
    let long_value = format!("k={}", "v".repeat(257));
    let import = |more: &[&str]| sandbox.import_small("prod", more);

    // Commands and flags.
    for (line, words) in [
        (&["clutser"][..], &["'clutser'", "'cluster'"][..]),
        (&["cluster", "imprt"], &["'imprt'", "'import'"]),
        (
            &["cluster", "destroy", "-n", "a", "--keep-instance"],
            &["'--keep-instance'", "'--keep-instances'"],
        ),
        (
            &[
                "cluster",
                "import",
                "-n",
                "a",
                "-u",
                "b",
                "--dns-alais",
                "x",
            ],
            &["'--dns-alais'", "'--dns-alias'"],
        ),
        (&["cluster", "destroy"], &["required", "--name <NAME>"]),
        (
            &["cluster", "import", "-n", "a"],
            &["required", "--username <USER>"],
        ),
        (
            &["-c", "gcp", "cluster", "destroy", "-n", "a"],
            &["'gcp'", "--provider", "[possible values: aws]"],
        ),
        (
            &["-r", "EU west", "cluster", "destroy", "-n", "a"],
            &["'EU west'", "--region", "looks like eu-west-1"],
        ),
        // A long flag with one hyphen is a row of short ones, the last of which takes the rest for its value.
        (
            &["cluster", "import", "-n", "a", "-u", "b", "-dry-run"],
            &["'y-run'", "--region", "hint: did you mean --dry-run?"],
        ),
        (
            &["cluster", "destroy", "-n", "a", "-keep-instances=true"],
            &["hint: did you mean --keep-instances?"],
        ),
        (
            &["-o", "yaml", "version"],
            &["'yaml'", "[possible values: text, json]"],
        ),
        (
            &["-q", "-v", "version"],
            &["--quiet", "--verbose", "cannot be used with"],
        ),
        // What may be half of a password is not repeated.
        (
            &[
                "cluster",
                "import",
                "-n",
                "a",
                "-u",
                "b",
                "-p",
                "half",
                "other-half",
            ],
            &["an argument too many", "quote"],
        ),
    ] {
        let run = sandbox.wekactl(line);
        assert!(!run.stderr.contains("other-half"), "{}", run.stderr);
        misused(&sandbox, run, words);
    }
    // Nothing at all is a question for help, and no success for a script.
    let run = sandbox
        .wekactl(&[])
        .fails(2, &["Usage: wekactl", "cluster import --region"]);
    assert_eq!(run.stdout, "");

    // Names.
    for (name, words) in [
        ("", &["--name"][..]),
        (
            "1st",
            &["\"1st\" is no cluster name", "begins with a letter"],
        ),
        (
            "my_cluster",
            &[
                "\"my_cluster\" is no cluster name",
                "letters, digits and hyphens",
            ],
        ),
        ("a;reboot", &["letters, digits and hyphens"]),
        ("größe", &["letters, digits and hyphens"]),
        (&long_name, &["at most 128 characters"]),
    ] {
        misused(&sandbox, sandbox.import_small(name, &[]), words);
        misused(&sandbox, sandbox.destroy(name, &[]), words);
    }

    // Tags.
    let many: Vec<String> = (0..41).map(|number| format!("-tk{number}=v")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    misused(
        &sandbox,
        import(&many),
        &["41 tags are too many: at most 40 are possible"],
    );
    for (tag, why) in [
        ("owner", "a tag looks like key=value"),
        ("=x", "its key is empty"),
        (
            "wekactl.io/managed=false",
            "keys that begin with wekactl.io/ belong to wekactl",
        ),
        ("aws:x=1", "keys that begin with aws: belong to AWS"),
        ("Name=x", "wekactl sets the key Name itself"),
        ("owner=a;b", "its value contains ';'"),
        (
            &long_key,
            "its key has 129 characters, at most 128 are possible",
        ),
        (
            &long_value,
            "its value has 257 characters, at most 256 are possible",
        ),
    ] {
        misused(&sandbox, import(&["--tags", tag]), &["--tags", why]);
    }
    misused(
        &sandbox,
        import(&["-t", "a=1", "-t", "A=2"]),
        &["a=1 and A=2 contradict each other"],
    );

    // Other values.
    for (flags, words) in [
        (
            &["-l", "weka.example.com"][..],
            &["--dns-alias needs --dns-zone-id"][..],
        ),
        (&["-z", "Z0123456789"], &["--dns-zone-id needs --dns-alias"]),
        (
            &["-l", "weka example", "-z", "Z1"],
            &["'weka example'", "looks like weka.example.com"],
        ),
        (
            &["-a", "subnet-x"],
            &["'subnet-x'", "looks like subnet-0123456789abcdef0"],
        ),
        (
            &["-i", "i-123"],
            &[
                "\"i-123\" is no instance id",
                "looks like i-0123456789abcdef0",
            ],
        ),
        (
            &["-i", "@/nowhere/ids"],
            &["from the file /nowhere/ids", "No such file"],
        ),
        (&["-i", ""], &["--instance-ids names no instance"]),
        (
            &["--cores", "compute=1"],
            &["memory is missing", "looks like compute=1,drive=1"],
        ),
    ] {
        misused(&sandbox, import(flags), words);
    }

    // Users and passwords.
    misused(
        &sandbox,
        sandbox.wekactl(&["cluster", "import", "-n", "prod", "-u", ""]),
        &["--username", "it is empty"],
    );
    for (flags, password, words) in [
        (
            &[][..],
            Some(""),
            "the password is empty: give it with --password-stdin or WEKACTL_PASSWORD",
        ),
        (&["-p", ""], None, "the password is empty"),
        (&["--password-stdin"], None, "the password is empty"),
        (
            &[],
            None,
            "there is no password, and no terminal to ask for it: give it with --password-stdin",
        ),
        (
            &["-p", "x", "--password-stdin"],
            None,
            "cannot be used with",
        ),
    ] {
        let mut command = sandbox.command(&["cluster", "import", "-n", "prod", "-u", "admin"]);
        command.args(flags);
        if let Some(password) = password {
            command.env("WEKACTL_PASSWORD", password);
        }
        let output = command.output().expect("the executable runs");
        misused(&sandbox, Run::of(&output), &[words]);
    }
}

#[test]
fn without_a_region_or_in_one_that_is_none_no_call_is_made() {
    let sandbox = Sandbox::start();
    let nowhere =
        "error: no AWS region: give --region, set AWS_REGION, or set a region in the profile\n";
    for line in [
        &["cluster", "import", "-n", "prod", "-u", "admin"][..],
        &["cluster", "destroy", "-n", "prod"],
    ] {
        let mut command = sandbox.command(line);
        misused(
            &sandbox,
            run_with_password(command.env_remove("AWS_REGION")),
            &[nowhere],
        );
        misused(
            &sandbox,
            run_with_password(command.env("AWS_REGION", "")),
            &[nowhere],
        );
        // And a place that is none.
        misused(
            &sandbox,
            run_with_password(command.env("AWS_REGION", "eu-west-1a")),
            &[
                "\"eu-west-1a\", from AWS_REGION or the profile, is no AWS region: one looks like eu-west-1",
            ],
        );
        command.env("AWS_REGION", REGION);
        for (endpoint, said) in [
            (
                "foo",
                "AWS_ENDPOINT_URL_KMS is \"foo\", which is no URL: it looks like http://127.0.0.1:4566\n",
            ),
            ("", "AWS_ENDPOINT_URL_KMS is empty: "),
        ] {
            let run = run_with_password(command.env("AWS_ENDPOINT_URL_KMS", endpoint));
            misused(&sandbox, run, &[said]);
        }
    }
}

#[test]
fn a_stack_that_makes_no_cluster() {
    let sandbox = Sandbox::start();
    let none = format!(
        "error: there is no stack absent in {REGION}; there are no Weka stacks in a usable state"
    );
    refused(&sandbox, &sandbox.import_small("absent", &[]), 1, &none);

    let broken = sandbox.stack(&json!({"name": "broken", "status": "UPDATE_ROLLBACK_FAILED"}));
    sandbox.stack(&json!({"name": "empty", "backends": 0}));
    sandbox.stack(&json!({"name": "four", "backends": 4, "clients": 2}));
    sandbox.stack(&json!({"name": "not-weka", "backends": 0, "description": "something else"}));
    let types = backends(
        &sandbox.stack(&json!({"name": "types", "backends": 5, "mixed_types": "i3en.xlarge"})),
    );
    let subnets = sandbox.stack(&json!({"name": "subnets", "backends": 5, "mixed_subnets": true}));
    sandbox.stack(&json!({"name": "unknown", "backends": 5, "instance_type": "m5.xlarge"}));
    let no_profile = sandbox.stack(
        &json!({"name": "no-profile", "backends": 5, "backend_overrides": {"3": {"IamInstanceProfile": null}}}),
    );
    let one_zone = sandbox.stack(&json!({"name": "one-zone", "backends": 5, "zones": 1}));
    sandbox.take_calls();
    assert!(!backends(&broken).is_empty());

    // Which machine differs: CloudFormation makes the last one other than the rest.
    let last = |stack: &Value| text(&stack["backends"][4]["id"]).to_owned();
    let but = |ids: &[String], one: &str| {
        let others: Vec<&str> = ids
            .iter()
            .map(String::as_str)
            .filter(|id| *id != one)
            .collect();
        others.join(", ")
    };
    let described = sandbox.aws(
        "ec2",
        "describe_instances",
        &json!({"InstanceIds": types, "Filters": [{"Name": "instance-type", "Values": ["i3en.xlarge"]}]}),
    );
    let other_type = text(&described["Reservations"][0]["Instances"][0]["InstanceId"]);
    let (subnet_ids, other_subnet) = (backends(&subnets), last(&subnets));
    let (first_subnet, third_subnet) = (text(&subnets["subnets"][0]), text(&subnets["subnets"][2]));
    let mut by_subnet = [
        format!("{first_subnet} ({})", but(&subnet_ids, &other_subnet)),
        format!("{third_subnet} ({other_subnet})"),
    ];
    by_subnet.sort();

    for (name, code, said) in [
        (
            "absent",
            1,
            format!(
                "error: there is no stack absent in {REGION}; the Weka stacks there are: \
                 empty, four, no-profile, one-zone, subnets, types, unknown"
            ),
        ),
        (
            "broken",
            1,
            "error: stack broken is UPDATE_ROLLBACK_FAILED: it can be imported once it is CREATE_COMPLETE, \
             UPDATE_COMPLETE, UPDATE_ROLLBACK_COMPLETE or IMPORT_COMPLETE"
                .to_owned(),
        ),
        (
            "empty",
            1,
            "error: stack empty has no EC2 instances: it is no Weka cluster, or its instances are in a nested stack"
                .to_owned(),
        ),
        (
            "four",
            1,
            "error: cluster four has too few backends: a managed one needs at least 5, and without terminated ones there are 4"
                .to_owned(),
        ),
        (
            "types",
            1,
            format!(
                "error: the backends of cluster types are not alike: different instance types: \
                 i3en.2xlarge ({}); i3en.xlarge ({other_type})",
                but(&types, other_type)
            ),
        ),
        (
            "subnets",
            1,
            format!(
                "error: the backends of cluster subnets are not alike: different subnets: {}",
                by_subnet.join("; ")
            ),
        ),
        (
            "unknown",
            2,
            "error: instance type m5.xlarge is not in wekactl's table: say what Weka gets of such a machine with \
             --cores compute=N,drive=N,frontend=N,memory=BYTES"
                .to_owned(),
        ),
        (
            "no-profile",
            1,
            format!(
                "error: instance {} has no instance profile: a backend needs one, for itself and for those launched \
                 after it",
                text(&no_profile["backends"][3]["id"])
            ),
        ),
        (
            "one-zone",
            1,
            format!(
                "error: the load balancer needs a second subnet in another zone than {REGION}a, and VPC {} has none \
                 with the route table of {}: name one with --additional-alb-subnet",
                text(&one_zone["vpc"]),
                text(&one_zone["subnets"][0])
            ),
        ),
    ] {
        refused(&sandbox, &sandbox.import_small(name, &[]), code, &said);
        // A dry run is refused as well: what it shows could not be made.
        refused(&sandbox, &sandbox.import_small(name, &["--dry-run"]), code, &said);
    }
    // With the flag that the message names, it can be.
    sandbox
        .import(
            "unknown",
            &[
                "--dry-run",
                "--cores",
                "compute=1,drive=1,frontend=1,memory=1GB",
            ],
        )
        .ok();

    // A cluster that never was can not be destroyed.
    let said = format!(
        "error: no cluster named four in {REGION}: nothing that wekactl made has this name"
    );
    refused(&sandbox, &sandbox.destroy("four", &[]), 1, &said);
}

/// Instances are only ever described by their ids, their group or their cluster's tag.
#[test]
fn a_stack_without_instances_gets_nobody_elses() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "theirs", "backends": 6}));
    sandbox.stack(&json!({"name": "empty", "backends": 0}));
    let said = "error: stack empty has no EC2 instances: it is no Weka cluster, or its instances are in a nested stack";
    let of_all = || {
        let calls = sandbox.calls();
        let described = calls
            .iter()
            .filter(|call| call["operation"] == "DescribeInstances");
        let is_of_all = |call: &&Value| {
            let request = text(&call["request"]);
            !request.contains("&Filter.1.Value.1=") && !request.contains("&InstanceId.1=")
        };
        (
            described.clone().count(),
            described.filter(is_of_all).count(),
        )
    };
    sandbox.take_calls();
    let run = sandbox.import_small("empty", &[]);
    let (_, unfiltered) = of_all();
    assert_eq!(unfiltered, 0);
    refused(&sandbox, &run, 1, said);

    sandbox.import_small("theirs", &[]).ok();
    sandbox.import_small("theirs", &[]).ok();
    sandbox.destroy("theirs", &[]).ok();
    let (described, unfiltered) = of_all();
    assert!(
        described > 0 && unfiltered == 0,
        "{unfiltered} of {described}"
    );
}

#[test]
fn machines_and_names_that_do_not_fit() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "backends": 5}));
    let (ids, vpc) = (backends(&stack), text(&stack["vpc"]));
    let second = json!({"InstanceIds": [ids[1]]});
    let fails = |flags: &[&str], code, said: &str| {
        refused(&sandbox, &sandbox.import_small("prod", flags), code, said);
    };

    // Not running.
    sandbox.aws("ec2", "stop_instances", &second);
    fails(
        &[],
        1,
        &format!(
            "error: instance {} is stopped: start it, then import again",
            ids[1]
        ),
    );
    sandbox.aws("ec2", "start_instances", &second);

    // No root volume.
    let described = sandbox.aws(
        "ec2",
        "describe_instances",
        &json!({"InstanceIds": [ids[0]]}),
    );
    let devices = &described["Reservations"][0]["Instances"][0]["BlockDeviceMappings"];
    let root = devices
        .as_array()
        .expect("a list")
        .iter()
        .find(|device| device["DeviceName"] == "/dev/xvda");
    let root =
        json!({"VolumeId": root.expect("a root device")["Ebs"]["VolumeId"], "InstanceId": ids[0]});
    sandbox.aws("ec2", "detach_volume", &root);
    fails(
        &[],
        1,
        &format!("error: instance {} has no root volume on EBS", ids[0]),
    );
    let with_device =
        json!({"VolumeId": root["VolumeId"], "InstanceId": ids[0], "Device": "/dev/xvda"});
    sandbox.aws("ec2", "attach_volume", &with_device);

    // In another group.
    let template = json!({"LaunchTemplateName": "theirs", "LaunchTemplateData": {"ImageId": stack["image"], "InstanceType": "i3en.2xlarge"}});
    sandbox.aws("ec2", "create_launch_template", &template);
    let group = json!({"AutoScalingGroupName": "theirs", "MinSize": 0, "MaxSize": 9, "VPCZoneIdentifier": stack["subnets"][0],
        "LaunchTemplate": {"LaunchTemplateName": "theirs", "Version": "1"}});
    sandbox.aws("autoscaling", "create_auto_scaling_group", &group);
    let member = json!({"AutoScalingGroupName": "theirs", "InstanceIds": [ids[2]]});
    sandbox.aws("autoscaling", "attach_instances", &member);
    let said = format!(
        "error: instance {} is in the Auto Scaling group theirs: take it out of that group, then import again",
        ids[2]
    );
    fails(&[], 1, &said);
    let leaves = json!({"AutoScalingGroupName": "theirs", "InstanceIds": [ids[2]], "ShouldDecrementDesiredCapacity": true});
    sandbox.aws("autoscaling", "detach_instances", &leaves);

    // The API that the VPC can not reach, both ways.
    let said = format!(
        "error: --private-subnet makes a private API, and VPC {vpc} has no execute-api endpoint with private DNS \
         names through which its instances could reach it: make one, or import without --private-subnet"
    );
    fails(&["--private-subnet"], 1, &said);
    let endpoint = json!({"VpcId": vpc, "ServiceName": format!("com.amazonaws.{REGION}.execute-api"),
        "VpcEndpointType": "Interface", "PrivateDnsEnabled": true});
    let endpoint = sandbox.aws("ec2", "create_vpc_endpoint", &endpoint);
    let endpoint = text(&endpoint["VpcEndpoint"]["VpcEndpointId"]);
    let said = format!(
        "error: VPC {vpc} has the execute-api endpoint {endpoint} with private DNS names, through which its \
         instances can not reach a public API: import with --private-subnet"
    );
    fails(&[], 1, &said);
    sandbox.aws(
        "ec2",
        "delete_vpc_endpoints",
        &json!({"VpcEndpointIds": [endpoint]}),
    );

    // The load balancer's second subnet.
    let first = text(&stack["subnets"][0]);
    let said = format!(
        "error: --additional-alb-subnet {first} is in {REGION}a, as the backends' subnet {first}: a load balancer \
         needs two zones"
    );
    fails(&["-a", first], 2, &said);
    let said = format!(
        "error: --additional-alb-subnet subnet-00000000000000000 is no subnet of the backends' VPC {vpc}"
    );
    fails(&["-a", "subnet-00000000000000000"], 2, &said);

    // Names.
    let zone = json!({"Name": "example.com", "CallerReference": "1"});
    let zone = sandbox.aws("route53", "create_hosted_zone", &zone);
    let zone = text(&zone["HostedZone"]["Id"]).trim_start_matches("/hostedzone/");
    fails(
        &["-l", "weka.example.com", "-z", "Z00000000000"],
        1,
        "error: hosted zone Z00000000000 not found: `aws route53 list-hosted-zones` shows those of this account",
    );
    let said =
        format!("error: weka.example.org does not lie in hosted zone {zone}, which is example.com");
    fails(&["-l", "weka.example.org", "-z", zone], 1, &said);
    for (kind, record, what) in [
        (
            "A",
            json!({"TTL": 60, "ResourceRecords": [{"Value": "10.0.0.1"}]}),
            "a record of type A for 10.0.0.1",
        ),
        (
            "CNAME",
            json!({"TTL": 60, "ResourceRecords": [{"Value": "other.example.net"}]}),
            "a record of type CNAME for other.example.net",
        ),
        (
            "A",
            json!({"AliasTarget": {"HostedZoneId": "Z1", "DNSName": "other-lb.example.net", "EvaluateTargetHealth": false}}),
            "a record of type A for other-lb.example.net",
        ),
    ] {
        let name = format!("{}.example.com", kind.to_lowercase());
        let mut record = record;
        record["Name"] = name.as_str().into();
        record["Type"] = kind.into();
        let change = |action: &str| {
            let batch = json!({"Changes": [{"Action": action, "ResourceRecordSet": record}]});
            sandbox.aws(
                "route53",
                "change_resource_record_sets",
                &json!({"HostedZoneId": zone, "ChangeBatch": batch}),
            );
        };
        change("CREATE");
        let said = format!("error: {name} is taken: in hosted zone {zone} it is {what}");
        fails(&["-l", &name, "-z", zone], 1, &said);
        change("DELETE");
    }

    // Executables.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("it can be written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let elf = |machine: u8, class: u8| {
        let mut header = b"\x7fELF\x00\x01\x01".to_vec();
        header.resize(64, 0);
        (header[4], header[16], header[18], header[20]) = (class, 2, machine, 1);
        header
    };
    let no_executable = "is no 64-bit Linux executable, and Lambda runs nothing else: name one with --lambda-binary";
    for (path, why) in [
        (file("script", b"#!/bin/sh\nexit 0\n"), no_executable),
        (file("nothing", b""), no_executable),
        (
            file(
                "of-a-mac",
                b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01\x00\x00\x00\x00\x02\x00\x00\x00",
            ),
            no_executable,
        ),
        (file("of-32-bits", &elf(3, 1)), no_executable),
        (
            file("of-another-program", &elf(0x3e, 2)),
            "is no wekactl: name one of version 2.0.0 with --lambda-binary",
        ),
        (
            file(
                "of-another-version",
                &[elf(0x3e, 2), b"wekactl-code:1.9.3;".to_vec()].concat(),
            ),
            "is wekactl 1.9.3, and this is 2.0.0: name one of this version with --lambda-binary",
        ),
        (
            file("of-risc-v", &elf(243, 2)),
            "is built for a processor that Lambda does not have: name one for x86_64 or arm64 with --lambda-binary",
        ),
    ] {
        refused(
            &sandbox,
            &sandbox.import("prod", &["--lambda-binary", &path]),
            1,
            &format!("error: {path} {why}"),
        );
    }
    let absent =
        "error: reading the executable /nowhere/wekactl: No such file or directory (os error 2)";
    refused(
        &sandbox,
        &sandbox.import("prod", &["--lambda-binary", "/nowhere/wekactl"]),
        1,
        absent,
    );

    // Last, because it stays: the image is gone.
    sandbox.aws(
        "ec2",
        "deregister_image",
        &json!({"ImageId": stack["image"]}),
    );
    let said = format!(
        "error: the backends' image {} is gone, or not shared with this account: no instance can be launched from it",
        text(&stack["image"])
    );
    fails(&[], 1, &said);
}

#[test]
fn what_a_managed_cluster_does_not_allow() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "backends": 5}));
    let other = backends(&sandbox.stack(&json!({"name": "other", "backends": 5})));
    let (ids, stack_id) = (backends(&stack), text(&stack["stack_id"]));
    let zone = json!({"Name": "example.com", "CallerReference": "1"});
    let zone = sandbox.aws("route53", "create_hosted_zone", &zone);
    let zone = text(&zone["HostedZone"]["Id"]).trim_start_matches("/hostedzone/");
    sandbox.import_small("prod", &["-t", "owner=storage"]).ok();
    sandbox.take_calls();

    // A flag that says something else than the settings: both values are named.
    let subnets = (text(&stack["subnets"][0]), text(&stack["subnets"][1]));
    let all = ids.join(",");
    for (flags, flag, stored, given) in [
        (&["-s"][..], "--private-subnet", "false", "true"),
        (&["-d"], "--use-dynamodb-endpoint", "false", "true"),
        (
            &["-a", subnets.0],
            "--additional-alb-subnet",
            subnets.1,
            subnets.0,
        ),
        (
            &["-l", "weka.example.com", "-z", zone],
            "--dns-alias",
            "(none)",
            "weka.example.com",
        ),
        (
            &["-t", "owner=network"],
            "--tags",
            "owner=storage",
            "owner=network",
        ),
        (
            &["-t", "stage=live"],
            "--tags",
            "owner=storage",
            "stage=live",
        ),
        (
            &["--cores", "compute=9,drive=1,frontend=1,memory=1GB"],
            "--cores",
            "compute=1,drive=1,frontend=1,memory=32640000000",
            "compute=9,drive=1,frontend=1,memory=1000000000",
        ),
        (
            &["-i", &all],
            "--instance-ids",
            &format!("(none; from stack {stack_id})"),
            &all,
        ),
    ] {
        let said = format!(
            "error: cluster prod is managed already, with {flag} {stored}, and {flag} {given} was given: leave the \
             flag out, or destroy with --keep-instances and import anew"
        );
        refused(&sandbox, &sandbox.import_small("prod", flags), 2, &said);
    }
    // Flags that say the same are none.
    sandbox
        .import_small("prod", &["-a", subnets.1, "-t", "owner=storage"])
        .ok();
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);

    // Instances that are not there, are too few, or are another cluster's.
    let absent = "i-00000000000000000";
    let with_absent = format!("{absent},{}", other.join(","));
    let said = format!(
        "error: instances given for cluster second do not exist, or are terminated: {absent}"
    );
    refused(
        &sandbox,
        &sandbox.import_small("second", &["-i", &with_absent]),
        1,
        &said,
    );
    let said = "error: cluster second has too few backends: a managed one needs at least 5, and without terminated ones there are 4";
    refused(
        &sandbox,
        &sandbox.import_small("second", &["-i", &other[..4].join(",")]),
        1,
        said,
    );
    let said = format!(
        "error: instance {} belongs to the managed cluster prod: leave it out, or run `wekactl cluster destroy --name \
         prod --keep-instances` first",
        ids[0]
    );
    refused(
        &sandbox,
        &sandbox.import_small("second", &["-i", &all]),
        1,
        &said,
    );
    sandbox.aws(
        "ec2",
        "terminate_instances",
        &json!({"InstanceIds": [other[3]]}),
    );
    let said = format!(
        "error: instances given for cluster second do not exist, or are terminated: {}",
        other[3]
    );
    refused(
        &sandbox,
        &sandbox.import_small("second", &["-i", &other.join(",")]),
        1,
        &said,
    );
}

/// Credentials that are missing, expired or not enough.
#[test]
fn credentials_that_do_not_do() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    let commands = [
        &["cluster", "import", "--name", "prod", "--username", "admin"][..],
        &["cluster", "destroy", "--name", "prod"],
    ];
    let asking = "asking AWS who the credentials belong to";

    // None at all, or a profile without any.
    let config = tempfile::NamedTempFile::new().expect("a temporary file");
    let profiles = "[default]\nregion = eu-west-1\n[profile bare]\nregion = eu-west-1\n\
                    [profile sso]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Admin\n\
                    [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://x.awsapps.com/start\n";
    std::fs::write(&config, profiles).expect("it can be written");
    let none = format!(
        "error: {asking}: no credentials found\nhint: no AWS credentials were found: give --profile, set AWS_PROFILE, \
         set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run 'aws configure'"
    );
    let sso = format!(
        "error: {asking}: loading credentials: an error occurred while loading an access token: failed to load the \
         cached SSO token\nhint: run 'aws sso login --profile sso'"
    );
    for line in commands {
        for (profile, said) in [(None, &none), (Some("bare"), &none), (Some("sso"), &sso)] {
            let mut command = sandbox.command(line);
            command
                .env_remove("AWS_ACCESS_KEY_ID")
                .env_remove("AWS_SECRET_ACCESS_KEY")
                .env("AWS_CONFIG_FILE", config.path());
            if let Some(profile) = profile {
                command.args(["--profile", profile]);
            }
            refused(&sandbox, &run_with_password(&mut command), 1, said);
        }
    }

    // One that is not there is meant all the same: the keys in the environment may be another account's.
    let undefined = "error: there is no AWS profile prud: AWS's configuration files have the profiles bare, default, sso";
    for line in commands {
        let mut flag = sandbox.command(line);
        flag.args(["--profile", "prud"]);
        let mut variable = sandbox.command(line);
        variable.env("AWS_PROFILE", "prud");
        for mut command in [flag, variable] {
            let run = run_with_password(command.env("AWS_CONFIG_FILE", config.path()));
            misused(&sandbox, run, &[undefined]);
        }
    }
    // One that is there outranks those keys where the flag names it, as in the AWS command line.
    let process = "[profile work]\nregion = eu-west-1\ncredential_process = /nowhere/credentials\n";
    std::fs::write(&config, process).expect("it can be written");
    for line in commands {
        let mut command = sandbox.command(line);
        command.env("AWS_CONFIG_FILE", config.path());
        let run = run_with_password(command.args(["--profile", "work"]));
        run.fails(1, &[asking, "/nowhere/credentials"]);
        assert!(sandbox.take_calls().is_empty());
    }

    // Refused ones. Which of the calls made at once is refused first is chance.
    for (code, message, hint) in [
        (
            "ExpiredToken",
            "The security token included in the request is expired",
            "hint: the credentials have expired: get new ones ('aws sso login' where they come from IAM Identity Center)",
        ),
        (
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
            "hint: AWS does not take these credentials in eu-central-1: check the access key, and that the region is \
             enabled for the account",
        ),
        (
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
            "hint: check the secret access key, and that this machine's clock is right",
        ),
    ] {
        sandbox.fault(&[
            json!({"caller": "^app:", "count": 0, "code": code, "message": message, "status": 403}),
        ]);
        for line in commands {
            let run = run_with_password(&mut sandbox.command(line)).fails(1, &[message, code]);
            let lines: Vec<&str> = run.stderr.lines().collect();
            assert!(lines[0].starts_with("error: "), "{}", run.stderr);
            assert_eq!(lines[1..], [hint]);
            assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);
        }
    }
    sandbox.fault(&[]);

    // No network, or not the right endpoint.
    let endpoint = "http://127.0.0.1:9";
    let said = format!(
        "error: {asking}: client error (Connect): tcp connect error: Connection refused (os error 111)\nhint: \
         AWS_ENDPOINT_URL sends the calls to {endpoint}: check that something answers there"
    );
    for line in commands {
        let mut command = sandbox.command(line);
        let run = run_with_password(command.env("AWS_ENDPOINT_URL", endpoint));
        refused(&sandbox, &run, 1, &said);
    }
}

/// A permission that the caller lacks is named, in whatever words the service has.
#[test]
fn a_permission_that_is_missing() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5, "classic_lb": true}));
    let user = "User: arn:aws:iam::123456789012:user/ops is not authorized to perform:";

    // To read: nothing is changed.
    for (service, operation, action, code) in [
        (
            "cloudformation",
            "DescribeStacks",
            "cloudformation:DescribeStacks",
            "AccessDenied",
        ),
        (
            "ec2",
            "DescribeInstances",
            "ec2:DescribeInstances",
            "UnauthorizedOperation",
        ),
        (
            "kms",
            "DescribeKey",
            "kms:DescribeKey",
            "AccessDeniedException",
        ),
        (
            "dynamodb",
            "DescribeTable",
            "dynamodb:DescribeTable",
            "AccessDeniedException",
        ),
        (
            "lambda",
            "GetFunction",
            "lambda:GetFunction",
            "AccessDeniedException",
        ),
        (
            "apigateway",
            "GetRestApis",
            "apigateway:GET",
            "AccessDeniedException",
        ),
    ] {
        let message = format!(
            "{user} {action} on resource: arn:aws:x because no identity-based policy allows the {action} action"
        );
        sandbox.fault(&[json!({"service": service, "operation": operation, "count": 0, "code": code, "message": message,
            "status": if service == "lambda" || code != "AccessDeniedException" { 403 } else { 400 }})]);
        let run = sandbox
            .import_small("prod", &[])
            .fails(1, &[&message, code]);
        let hint = format!("hint: the credentials need the permission {action}");
        assert_eq!(run.stderr.lines().last(), Some(hint.as_str()));
        assert_eq!(mutations(&sandbox.take_calls()), [""; 0], "{operation}");
    }

    // To change: what else could be made was, each refusal is told with its step, and a second run goes on.
    let message = |action: &str| {
        format!(
            "{user} {action} on resource: arn:aws:kms:{REGION}:123456789012:key/* because no identity-based policy \
             allows the {action} action"
        )
    };
    sandbox.fault(&[
        json!({"service": "kms", "operation": "CreateKey", "count": 0, "code": "AccessDeniedException",
            "message": message("kms:CreateKey"), "status": 400}),
        json!({"service": "events", "operation": "PutRule", "count": 0, "code": "AccessDeniedException",
            "message": message("events:PutRule"), "status": 400}),
        json!({"service": "ec2", "operation": "CreateLaunchTemplate", "count": 0, "code": "UnauthorizedOperation",
            "message": format!("You are not authorized to perform this operation. {} Encoded authorization failure \
             message: aBcD", message("ec2:CreateLaunchTemplate")), "status": 403}),
    ]);
    let run = sandbox.import_small("prod", &[]).fails(
        1,
        &[
            "failed creating KMS key alias/wekactl-prod (",
            "failed creating launch template wekactl-prod-Backends (",
            "failed 2, took",
            "what was done stays; the same command, run again, goes on from here",
            "error: creating KMS key alias/wekactl-prod: User: arn:aws:iam",
            "error: creating launch template wekactl-prod-Backends: You are not authorized",
            "hint: the credentials need the permission kms:CreateKey",
            "hint: the credentials need the permission ec2:CreateLaunchTemplate",
        ],
    );
    assert!(
        !run.stderr.contains("PutRule"),
        "automation never begins on half a cluster: {}",
        run.stderr
    );
    assert_eq!(run.stdout, "");
    sandbox.fault(&[]);
    let run = sandbox.import_small("prod", &[]).ok();
    assert!(run.stdout.starts_with("#!/bin/bash\n"), "{}", run.stdout);
    sandbox.take_calls();
    sandbox.import_small("prod", &[]).ok();
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);
}

/// A resource that has our name and not our tag, and how the tag is taken away and put back.
struct Named {
    /// As errors call it.
    what: String,
    service: &'static str,
    untag: (&'static str, Value),
    tag: (&'static str, Value),
}

/// One of every kind that is found by its name, of cluster `prod`.
fn named(sandbox: &Sandbox) -> Vec<Named> {
    let account = format!("{REGION}:123456789012");
    let with_value = |key: &str, value: &str| json!([{key: CLUSTER_TAG, value: "prod"}]);
    let own = json!({CLUSTER_TAG: "prod"});
    let one = |service: &str, operation: &str, params: Value, list: &str, id: &str| {
        let found = sandbox.aws(service, operation, &params);
        text(&found[list][0][id]).to_owned()
    };
    let mut all = Vec::new();

    let key = sandbox.aws(
        "kms",
        "describe_key",
        &json!({"KeyId": "alias/wekactl-prod"}),
    );
    let key = &key["KeyMetadata"]["KeyId"];
    all.push(Named {
        what: "KMS key alias/wekactl-prod".into(),
        service: "kms",
        untag: (
            "untag_resource",
            json!({"KeyId": key, "TagKeys": [CLUSTER_TAG]}),
        ),
        tag: (
            "tag_resource",
            json!({"KeyId": key, "Tags": with_value("TagKey", "TagValue")}),
        ),
    });
    let table = format!("arn:aws:dynamodb:{account}:table/wekactl-prod");
    all.push(Named {
        what: "DynamoDB table wekactl-prod".into(),
        service: "dynamodb",
        untag: (
            "untag_resource",
            json!({"ResourceArn": table, "TagKeys": [CLUSTER_TAG]}),
        ),
        tag: (
            "tag_resource",
            json!({"ResourceArn": table, "Tags": with_value("Key", "Value")}),
        ),
    });
    let function = format!("arn:aws:lambda:{account}:function:wekactl-prod-scale-Backends");
    all.push(Named {
        what: "Lambda function wekactl-prod-scale-Backends".into(),
        service: "lambda",
        untag: (
            "untag_resource",
            json!({"Resource": function, "TagKeys": [CLUSTER_TAG]}),
        ),
        tag: ("tag_resource", json!({"Resource": function, "Tags": own})),
    });
    let api = sandbox.aws("apigateway", "get_rest_apis", &json!({}));
    for (what, path, id) in [
        (
            "REST API",
            "restapis",
            text(&api["items"][0]["id"]).to_owned(),
        ),
        (
            "API key",
            "apikeys",
            one("apigateway", "get_api_keys", json!({}), "items", "id"),
        ),
    ] {
        let arn = format!("arn:aws:apigateway:{REGION}::/{path}/{id}");
        all.push(Named {
            what: format!("{what} wekactl-prod-Backends"),
            service: "apigateway",
            untag: (
                "untag_resource",
                json!({"resourceArn": arn, "tagKeys": [CLUSTER_TAG]}),
            ),
            tag: ("tag_resource", json!({"resourceArn": arn, "tags": own})),
        });
    }
    let template = json!({"LaunchTemplateNames": ["wekactl-prod-Backends"]});
    let template = one(
        "ec2",
        "describe_launch_templates",
        template,
        "LaunchTemplates",
        "LaunchTemplateId",
    );
    all.push(Named {
        what: "launch template wekactl-prod-Backends".into(),
        service: "ec2",
        untag: (
            "delete_tags",
            json!({"Resources": [template], "Tags": [{"Key": CLUSTER_TAG}]}),
        ),
        tag: (
            "create_tags",
            json!({"Resources": [template], "Tags": with_value("Key", "Value")}),
        ),
    });
    let tag = json!({"ResourceId": "wekactl-prod-Backends", "ResourceType": "auto-scaling-group", "Key": CLUSTER_TAG,
        "Value": "prod", "PropagateAtLaunch": true});
    all.push(Named {
        what: "Auto Scaling group wekactl-prod-Backends".into(),
        service: "autoscaling",
        untag: ("delete_tags", json!({"Tags": [tag]})),
        tag: ("create_or_update_tags", json!({"Tags": [tag]})),
    });
    let balancer = json!({"Names": ["wekactl-prod"]});
    let balancer = one(
        "elbv2",
        "describe_load_balancers",
        balancer,
        "LoadBalancers",
        "LoadBalancerArn",
    );
    let target = json!({"Names": ["wekactl-prod-api"]});
    let listener = json!({"LoadBalancerArn": balancer});
    for (what, arn) in [
        ("load balancer wekactl-prod", balancer.clone()),
        (
            "target group wekactl-prod-api",
            one(
                "elbv2",
                "describe_target_groups",
                target,
                "TargetGroups",
                "TargetGroupArn",
            ),
        ),
        (
            "listener wekactl-prod:14000",
            one(
                "elbv2",
                "describe_listeners",
                listener,
                "Listeners",
                "ListenerArn",
            ),
        ),
    ] {
        all.push(Named {
            what: what.into(),
            service: "elbv2",
            untag: (
                "remove_tags",
                json!({"ResourceArns": [arn], "TagKeys": [CLUSTER_TAG]}),
            ),
            tag: (
                "add_tags",
                json!({"ResourceArns": [arn], "Tags": with_value("Key", "Value")}),
            ),
        });
    }
    let machine = format!("arn:aws:states:{account}:stateMachine:wekactl-prod-Backends");
    all.push(Named {
        what: "state machine wekactl-prod-Backends".into(),
        service: "stepfunctions",
        untag: (
            "untag_resource",
            json!({"resourceArn": machine, "tagKeys": [CLUSTER_TAG]}),
        ),
        tag: (
            "tag_resource",
            json!({"resourceArn": machine, "tags": with_value("key", "value")}),
        ),
    });
    let rule = format!("arn:aws:events:{account}:rule/wekactl-prod-Backends");
    all.push(Named {
        what: "event rule wekactl-prod-Backends".into(),
        service: "events",
        untag: (
            "untag_resource",
            json!({"ResourceARN": rule, "TagKeys": [CLUSTER_TAG]}),
        ),
        tag: (
            "tag_resource",
            json!({"ResourceARN": rule, "Tags": with_value("Key", "Value")}),
        ),
    });
    all
}

#[test]
fn what_has_our_name_and_not_our_tag_is_never_touched() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    sandbox.import_small("prod", &[]).ok();
    sandbox.take_calls();
    let named = named(&sandbox);
    assert_eq!(named.len(), 12);
    let call = |each: &Named, (operation, params): &(&str, Value)| {
        sandbox.aws(each.service, operation, params);
    };
    let hint = "hint: wekactl takes over nothing without this cluster's tag: remove or rename it if it is not needed";
    for each in &named {
        call(each, &each.untag);
        let said = format!(
            "error: {} exists and does not belong to cluster prod: it has no tag {CLUSTER_TAG}\n{hint}",
            each.what
        );
        refused(&sandbox, &sandbox.import_small("prod", &[]), 1, &said);
        call(each, &each.tag);
    }
    // A log group without the tag is one that Lambda made; with another cluster's it is another cluster's.
    let log_group = format!(
        "arn:aws:logs:{REGION}:123456789012:log-group:/aws/lambda/wekactl-prod-join-Backends"
    );
    let own = |owner: &str| {
        sandbox.aws(
            "logs",
            "tag_resource",
            &json!({"resourceArn": log_group, "tags": {CLUSTER_TAG: owner}}),
        );
    };
    own("production");
    let said = format!(
        "error: log group /aws/lambda/wekactl-prod-join-Backends exists and does not belong to cluster prod: its tag \
         {CLUSTER_TAG} says production\n{hint}"
    );
    refused(&sandbox, &sandbox.import_small("prod", &[]), 1, &said);
    own("prod");
    sandbox.import_small("prod", &[]).ok();
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);

    // A usage plan that has our key is ours; any other of the name is not.
    sandbox.stack(&json!({"name": "second", "backends": 5}));
    let plan = json!({"name": "wekactl-second-Backends"});
    let plan = sandbox.aws("apigateway", "create_usage_plan", &plan);
    let said = format!(
        "error: usage plan wekactl-second-Backends exists and does not belong to cluster second: it has no tag \
         {CLUSTER_TAG}\n{hint}"
    );
    refused(&sandbox, &sandbox.import_small("second", &[]), 1, &said);
    let plan = json!({"usagePlanId": plan["id"]});
    sandbox.aws("apigateway", "delete_usage_plan", &plan);

    // Destroy leaves them alone, and says so; what is left in the end is exactly these.
    let spared = [
        "KMS key",
        "DynamoDB table",
        "REST API",
        "launch template",
        "event rule",
    ];
    let spared: Vec<&Named> = named
        .iter()
        .filter(|each| spared.iter().any(|kind| each.what.starts_with(kind)))
        .collect();
    for each in &spared {
        call(each, &each.untag);
    }
    own("production");
    let run = sandbox.destroy("prod", &[]).ok();
    for each in &spared {
        // Between the two there may be an id, where a name is not unique.
        let which = format!("note: {}", each.what);
        let said = format!(
            " exists and does not belong to cluster prod: it has no tag {CLUSTER_TAG}: it is left alone"
        );
        let says = |line: &str| line.starts_with(&which) && line.ends_with(&said);
        assert!(
            run.stderr.lines().any(says),
            "{which} …{said}\n{}",
            run.stderr
        );
    }
    assert!(
        run.stderr.contains("says production: it is left alone"),
        "{}",
        run.stderr
    );
    // All of them can still be tagged: they are there.
    sandbox.take_calls();
    let said = format!(
        "error: no cluster named prod in {REGION}: nothing that wekactl made has this name"
    );
    refused(&sandbox, &sandbox.destroy("prod", &[]), 1, &said);
    for each in &spared {
        call(each, &each.tag);
    }
    let count = |service: &str, operation: &str, list: &str| {
        let found = sandbox.aws(service, operation, &json!({}));
        found[list].as_array().map(Vec::len)
    };
    for (service, operation, list, left) in [
        ("stepfunctions", "list_state_machines", "stateMachines", 0),
        ("lambda", "list_functions", "Functions", 0),
        ("elbv2", "describe_load_balancers", "LoadBalancers", 0),
        ("apigateway", "get_api_keys", "items", 0),
        ("logs", "describe_log_groups", "logGroups", 1),
    ] {
        assert_eq!(count(service, operation, list), Some(left), "{operation}");
    }
}
