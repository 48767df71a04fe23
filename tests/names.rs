//! Names: a cluster's name may have any length that a stack's may have.

use serde_json::{Value, json};

use crate::again::assert_no_mutations;
use crate::as_before::assert_as_before;
use crate::complete::make_zone;
use crate::support::account::{assert_same, kind, without_dying_keys};
use crate::support::{REGION, Sandbox, mutations};

#[test]
fn a_name_of_1_45_or_128_characters_is_imported_twice_without_a_change_and_destroyed() {
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

/// IAM is global, and the path of the roles is the same.
#[test]
fn a_cluster_of_the_same_name_in_another_region_keeps_its_roles() {
    const OTHER: &str = "us-east-1";
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "backends": 5}));
    sandbox.stack(&json!({"name": "prod", "backends": 5, "region": OTHER, "network": "127.31"}));
    let before = sandbox.inventory();
    let other = ["--region", OTHER];
    sandbox.import_small("prod", &[]).ok();
    sandbox.import_small("prod", &other).ok();
    sandbox.take_calls();
    sandbox.import_small("prod", &[]).ok();
    sandbox.import_small("prod", &other).ok();
    assert_no_mutations(&sandbox, "a second import in both regions");

    let roles = |inventory: &Value, region: &str| -> Value {
        let roles = inventory["global"]["roles"].as_object().expect("roles");
        let of_it = roles
            .iter()
            .filter(|(_, role)| role["Tags"]["wekactl.io/region"] == region);
        let of_it = of_it.map(|(name, role)| (name.clone(), role.clone()));
        of_it.collect::<serde_json::Map<_, _>>().into()
    };
    let both = sandbox.inventory();
    for region in [REGION, OTHER] {
        let roles = roles(&both, region);
        assert_eq!(roles.as_object().map(serde_json::Map::len), Some(7));
        let functions = both[region]["functions"].as_object().expect("functions");
        assert_eq!(functions.len(), 5);
        for function in functions.values() {
            let arn = function["Role"].as_str().expect("an ARN");
            let (_, name) = arn.rsplit_once('/').expect("a path");
            assert!(roles[name].is_object(), "{arn} is not of {region}");
        }
    }

    // The one goes, and the other has all that it had.
    sandbox.destroy("prod", &[]).ok();
    let after = sandbox.inventory();
    assert_same(&both[OTHER], &after[OTHER], "the other region");
    let kept = roles(&after, OTHER);
    assert_same(&roles(&both, OTHER), &kept, "the roles of the other region");
    sandbox.destroy("prod", &other).ok();
    let mut after = sandbox.inventory();
    let (_, keys) = without_dying_keys(&after);
    after[OTHER] = before[OTHER].clone();
    assert_as_before(&before, &after, &stack, false, keys.len());
}
