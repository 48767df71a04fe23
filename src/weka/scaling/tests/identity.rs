//! Which container is on which instance (S1).

use super::super::Purpose;
use super::super::{Action, Class, Ec2State, Rule};
use super::fixture::{
    action, address, assert_quiet, client, cluster, container, containers, deactivated, down,
    each_container, fail, id, instance, join, key, killed, leave_group, out, reads, recount,
    resize, safe, verdict,
};
use crate::weka::ids::ContainerId;

#[test]
fn s1_the_instance_that_a_container_names_counts_and_not_its_address() {
    let mut observation = cluster(7);
    // The management address is the second interface's.
    each_container(&mut observation, 3, |container| {
        container.host_ip = Some("10.1.0.3".into());
        container.ips = vec!["10.1.0.3".into()];
    });
    let decision = safe(&observation);
    assert_quiet(&decision);
    let machine = decision
        .machines
        .iter()
        .find(|each| each.key.starts_with("10.1.0.3"));
    assert_eq!(machine.unwrap().instance, Some(id(3)));
}

#[test]
fn s1_without_a_name_any_of_its_addresses_counts() {
    let mut observation = cluster(7);
    each_container(&mut observation, 3, |container| {
        container.aws.instance_id = None;
        container.host_ip = Some("10.1.0.3".into());
    });
    each_container(&mut observation, 4, |container| {
        // Some versions say it so.
        container.aws.instance_id = Some(String::new());
        container.ips.clear();
    });
    let decision = safe(&observation);
    assert_quiet(&decision);
    let instances: Vec<_> = decision
        .machines
        .iter()
        .filter_map(|each| each.instance.clone())
        .collect();
    assert_eq!(instances.len(), 7);
}

#[test]
fn s1_a_reused_address_is_a_leftover_and_the_member_a_member() {
    let mut observation = cluster(7);
    // An older machine had the address of 7.
    join(&mut observation, 20);
    each_container(&mut observation, 20, |container| {
        container.host_ip = Some(address(7));
        container.ips = vec![address(7)];
    });
    down(&mut observation, 20, 200);
    let decision = safe(&observation);
    assert_eq!(decision.gate, None);
    assert_eq!(verdict(&decision, 7).class, Class::Healthy);
    assert_eq!(verdict(&decision, 7).containers, containers(7));
    let leftover = format!("{} {}", address(7), id(20));
    assert_eq!(
        deactivated(&decision, &[Purpose::Leftover]),
        [leftover].into()
    );
    assert_eq!(killed(&decision), [""; 0]);
}

#[test]
fn s1_more_than_three_containers_of_a_machine_close_the_gate() {
    let mut observation = cluster(7);
    let fourth = container(&mut observation, containers(3)[2]).clone();
    reads(&mut observation)
        .containers
        .insert(ContainerId::new(900), fourth);
    recount(&mut observation);
    let gate = safe(&observation).gate.unwrap();
    assert_eq!(gate.rule, Rule::S1);
    assert!(gate.text.contains("4 backend containers"), "{}", gate.text);
}

#[test]
fn s1_two_machine_identifiers_in_a_machine_close_the_gate() {
    let mut observation = cluster(7);
    down(&mut observation, 4, 200);
    container(&mut observation, containers(3)[2]).machine_identifier = Some("other".into());
    let decision = safe(&observation);
    assert_eq!(decision.gate.unwrap().rule, Rule::S1);
    assert_eq!(decision.calls, []);
    // Every machine and instance is shown all the same.
    assert_eq!(decision.machines.len(), 7);
}

#[test]
fn s1_an_instance_that_is_two_machines_closes_the_gate() {
    let mut observation = cluster(7);
    container(&mut observation, containers(3)[0]).host_ip = Some("10.1.0.3".into());
    let gate = safe(&observation).gate.unwrap();
    assert_eq!(gate.rule, Rule::S1);
    assert!(gate.text.contains(&id(3)), "{}", gate.text);
}

#[test]
fn s1_a_machine_that_is_two_instances_closes_the_gate() {
    let mut observation = cluster(7);
    each_container(&mut observation, 3, |container| {
        container.aws.instance_id = None;
        container.ips.push(address(4));
    });
    assert_eq!(safe(&observation).gate.unwrap().rule, Rule::S1);
}

#[test]
fn s1_two_instances_of_one_address_close_the_gate_in_any_order() {
    let mut observation = cluster(7);
    each_container(&mut observation, 3, |container| {
        container.aws.instance_id = None;
    });
    let mut twin = instance(&mut observation, 3).clone();
    twin.id = id(99);
    observation.group.instances.push(twin);
    let gate = safe(&observation).gate.unwrap();
    assert_eq!(gate.rule, Rule::S1);
    observation.group.instances.reverse();
    assert_eq!(safe(&observation).gate.unwrap(), gate);
}

#[test]
fn s1_a_container_without_a_name_belongs_to_its_neighbours_machine() {
    let mut observation = cluster(7);
    container(&mut observation, containers(3)[1])
        .aws
        .instance_id = None;
    let decision = safe(&observation);
    assert_quiet(&decision);
    assert_eq!(verdict(&decision, 3).containers, containers(3));
}

#[test]
fn s1_a_nameless_container_between_two_machines_closes_the_gate_unless_its_identifier_tells() {
    let mut observation = cluster(7);
    join(&mut observation, 20);
    each_container(&mut observation, 20, |container| {
        container.host_ip = Some(address(7));
    });
    let nameless = containers(7)[1];
    container(&mut observation, nameless).aws.instance_id = None;
    let decision = safe(&observation);
    assert_eq!(decision.gate, None);
    assert_eq!(verdict(&decision, 7).containers, containers(7));

    container(&mut observation, nameless).machine_identifier = None;
    assert_eq!(safe(&observation).gate.unwrap().rule, Rule::S1);
}

#[test]
fn a_machine_without_an_address_and_its_late_instance_have_a_verdict_each() {
    let mut observation = cluster(7);
    each_container(&mut observation, 3, |container| container.host_ip = None);
    instance(&mut observation, 3).ec2 = Ec2State::Terminated;
    let decision = safe(&observation);
    assert_eq!(decision.machines.len(), 8);
    let classes = |key: &str| {
        let mut verdicts = decision.machines.iter();
        verdicts.find(|each| each.key == key).map(|each| each.class)
    };
    assert_eq!(classes(&id(3)), Some(Class::Absent));
    assert_eq!(classes(&format!("? {}", id(3))), Some(Class::Leftover));
}

#[test]
fn a_machine_whose_instance_is_gone_is_a_leftover_that_leaves_only_when_it_is_down() {
    for gone in [
        Ec2State::ShuttingDown,
        Ec2State::Terminated,
        Ec2State::Absent,
    ] {
        let mut observation = cluster(7);
        instance(&mut observation, 3).ec2 = gone;
        instance(&mut observation, 3).private_ip = None;
        let decision = safe(&observation);
        assert_eq!(decision.calls, []);
        let machine = decision.machines.iter().find(|each| each.key == key(3));
        assert_eq!(machine.unwrap().class, Class::Leftover);
        assert_eq!(machine.unwrap().action, Action::Leave);
    }
}

#[test]
fn a_group_that_is_read_as_empty_condemns_nobody() {
    let mut observation = cluster(7);
    observation.group.instances.clear();
    resize(&mut observation, 7);
    let decision = safe(&observation);
    assert_eq!(decision.calls, []);
    assert_eq!(decision.terminate, []);
}

#[test]
fn a_client_is_never_touched_wherever_it_is() {
    let mut observation = cluster(9);
    let ids = [
        client(&mut observation, 900, &address(3)),
        client(&mut observation, 901, "10.9.9.9"),
    ];
    for id in ids {
        let failed = container(&mut observation, id);
        failed.status = crate::weka::types::ContainerStatus::Down;
        failed.state_changed_time = None;
    }
    fail(&mut observation, containers(4)[1], 200);
    out(&mut observation, 5);
    leave_group(&mut observation, 6);
    down(&mut observation, 6, 300);
    let decision = safe(&observation);
    assert_eq!(action(&decision, 4), Action::Deactivate);
    let calls = serde_json::to_string(&decision.calls).unwrap();
    assert!(
        !calls.contains("HostId<900>") && !calls.contains("HostId<901>"),
        "{calls}"
    );
    assert!(
        !calls.contains(":900,") && !calls.contains(":901,"),
        "{calls}"
    );
    assert_eq!(decision.machines.len(), 9);
}
