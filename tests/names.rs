//! Names: a cluster's name may have any length that a stack's may have.

use serde_json::{Value, json};

use crate::as_before::assert_as_before;
use crate::complete::make_zone;
use crate::support::account::kind;
use crate::support::{Sandbox, mutations};

#[test]
fn of_one_of_45_and_of_128_characters() {
    let sandbox = Sandbox::start();
    // Its end is where names of AWS may not end; its neighbour differs in this one letter alone.
    let longest = format!("a{}", "-23456789".repeat(15))[..128].to_owned();
    let names = ["x", &format!("weka-{}", "n".repeat(40)), &longest];
    for name in names {
        sandbox.post("reset", &json!({}));
        let stack = sandbox.stack(&json!({"name": name, "backends": 5, "classic_lb": true}));
        if *name == *longest {
            sandbox.post("populate", &json!({"confusing": name}));
        }
        let zone = make_zone(&sandbox);
        let before = sandbox.inventory();
        let flags = ["-t", "team=storage", "-l", "weka.example.com", "-z", &zone];
        sandbox.import_small(name, &flags).ok();
        let managed = sandbox.inventory();
        check_names(&before, &managed, name);
        sandbox.take_calls();
        sandbox.import_small(name, &flags).ok();
        let again = mutations(&sandbox.take_calls());
        assert!(again.is_empty(), "a second import of {name}: {again:?}");
        sandbox.destroy(name, &[]).ok();
        assert_as_before(&before, &sandbox.inventory(), &stack, false, 1);
    }
}

/// What a person sees in AWS's lists begins with the cluster's name, as far as it fits, and no two names are alike.
#[track_caller]
fn check_names(before: &Value, managed: &Value, name: &str) {
    for (of_kind, limit, count) in [
        ("functions", 64, 5),
        ("load_balancers", 32, 1),
        ("target_groups", 32, 1),
        ("layers", 64, 1),
        ("launch_templates", 128, 1),
        ("state_machines", 80, 1),
        ("rules", 64, 1),
        ("tables", 255, 1),
        ("auto_scaling_groups", 255, 1),
    ] {
        let made = kind(managed, of_kind).keys();
        let made: Vec<&String> = made
            .filter(|made| !kind(before, of_kind).contains_key(*made))
            .collect();
        assert_eq!(made.len(), count, "{of_kind}: {made:?}");
        for made in made {
            assert!(made.len() <= limit, "{of_kind}: {made}");
            let seen = name.len().min(limit - 32).min(12);
            let begin = format!("wekactl-{}", &name[..seen]);
            assert!(made.starts_with(&begin), "{of_kind}: {made}");
        }
    }
    let path = format!("/wekactl/{name}/");
    let old = before["global"]["roles"].as_object().expect("roles");
    let roles = managed["global"]["roles"].as_object().expect("roles");
    let roles: Vec<_> = roles
        .iter()
        .filter(|(role, _)| !old.contains_key(*role))
        .collect();
    assert_eq!(roles.len(), 7, "{roles:?}");
    let mut purposes: Vec<&str> = roles
        .iter()
        .map(|(role, about)| {
            assert_eq!(about["Path"], *path);
            role.rsplit('-').nth(1).expect("a purpose")
        })
        .collect();
    purposes.sort_unstable();
    assert_eq!(
        purposes,
        [
            "cw",
            "fetch",
            "join",
            "scale",
            "sm",
            "terminate",
            "transient"
        ]
    );
}
