//! The script with which a client mounts the cluster's file system.

use anyhow::{Result, ensure};

use super::values::is_host_name;

/// The script for clients that reach the cluster's load balancer as `host`.
///
/// # Errors
/// `host` is no host name: what AWS answers goes into a script that root runs.
pub(super) fn client_script(host: &str) -> Result<String> {
    ensure!(
        is_host_name(host),
        "the load balancer's name {host:?} is no host name: no client script is made with it"
    );
    Ok(format!(
        "#!/bin/bash
curl {host}:14000/dist/v1/install | sh
FILESYSTEM_NAME=default # replace with a different filesystem at need
MOUNT_POINT=/mnt/weka # replace with a different mount point at need
mkdir -p $MOUNT_POINT
mount -t wekafs {host}/\"$FILESYSTEM_NAME\" $MOUNT_POINT
"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script() {
        insta::assert_snapshot!(
            client_script("internal-wekactl-prod-1.eu-west-1.elb.amazonaws.com").unwrap()
        );
    }

    #[test]
    fn no_script_from_a_hostile_name() {
        for host in ["", "a b", "a;reboot", "$(reboot)", "a\nreboot", "`reboot`"] {
            assert!(client_script(host).is_err(), "{host}");
        }
    }
}
