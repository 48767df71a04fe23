#!/bin/bash
# A new backend's first boot, as root: network interfaces, then the script that the join function hands out.
# Whatever fails shuts the machine down: a stopped member is removed, and the group launches another.
{ set +x; } 2>/dev/null
set -euo pipefail
umask 077

# The one line below becomes the values of this cluster.
#@values@

# Amazon Linux 2 has bash 4.2, where an empty array counts as unset: no array here is ever empty.
export PATH="$PATH:/usr/local/sbin:/usr/local/bin"
export AWS_DEFAULT_REGION=$REGION AWS_PAGER='' AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=20
longest_wait=600
work=''
loose=''

log() {
  printf '%(%Y-%m-%dT%H:%M:%S)T %s\n' -1 "$*"
}

finish() {
  local status=$?
  if [[ -n $work ]]; then
    rm -rf -- "$work"
  fi
  if ((status == 0)); then
    return
  fi
  if [[ -n $loose ]]; then
    attempt aws ec2 delete-network-interface --network-interface-id "$loose"
  fi
  log "failed with status $status: shutting down"
  shutdown -h now
}

attempt() {
  "$@" || log "failed, going on: $*"
}

metadata() {
  printf 'url = "http://169.254.169.254/latest/meta-data/%s"\nheader = "X-aws-ec2-metadata-token: %s"\n' "$1" "$token" |
    curl --config - --silent --show-error --fail --noproxy '*' --max-time 5 --retry 5
}

metadata_token() {
  local try
  for ((try = 1; try <= 30; try++)); do
    if curl --silent --show-error --fail --noproxy '*' --max-time 5 --request PUT \
      --header 'X-aws-ec2-metadata-token-ttl-seconds: 3600' http://169.254.169.254/latest/api/token; then
      return
    fi
    sleep 2
  done
  return 1
}

# Sets `attached` to the device indexes in use, each between spaces.
read_attached() {
  local macs mac index
  attached=' '
  macs=$(metadata network/interfaces/macs/)
  for mac in $macs; do
    index=$(metadata "network/interfaces/macs/${mac%/}/device-number")
    attached+="$index "
  done
}

add_interface() {
  local index=$1 interface attachment
  local attach=(--instance-id "$instance" --device-index "$index")
  if ((NETWORK_CARDS > 1)); then
    attach+=(--network-card-index "$((index % NETWORK_CARDS))")
  fi
  # Without tags: the stack's role may make interfaces and often may not tag them.
  loose=$(aws ec2 create-network-interface --subnet-id "$SUBNET" --groups "${SECURITY_GROUPS[@]}" \
    --description "wekactl $CLUSTER" --query NetworkInterface.NetworkInterfaceId --output text)
  attachment=$(aws ec2 attach-network-interface --network-interface-id "$loose" "${attach[@]}" \
    --query AttachmentId --output text)
  interface=$loose
  loose=''
  log "interface $interface is device $index"
  attempt aws ec2 modify-network-interface-attribute --network-interface-id "$interface" \
    --attachment "AttachmentId=$attachment,DeleteOnTermination=true"
  attempt aws ec2 create-tags --resources "$interface" --tags "Key=wekactl.io/cluster_name,Value=$CLUSTER" \
    Key=wekactl.io/managed,Value=true Key=wekactl.io/api_version,Value=v1 \
    Key=wekactl.io/hostgroup_name,Value=Backends Key=wekactl.io/hostgroup_type,Value=backend
}

# A string of curl's configuration, in which a line of its own would be another option.
quoted() {
  local value=${1//\\/\\\\}
  value=${value//$'\n'/\\n}
  printf '"%s"' "${value//\"/\\\"}"
}

# The key goes through a pipe: arguments are there for every local user to read.
ask_to_join() {
  printf 'url = %s\nheader = %s\n' "$(quoted "$JOIN_URL?instance_id=$instance")" "$(quoted "x-api-key: $API_KEY")" |
    curl --config - --silent --show-error --connect-timeout 10 --max-time 30 \
      --output "$work/join" --write-out '%{http_code} %{time_total}'
}

fetch_join_script() {
  local waited=0 answer status took pause
  while true; do
    # An empty answer leaves the file alone: what an earlier one left must not be run.
    : >"$work/join"
    answer=''
    if answer=$(ask_to_join); then
      status=${answer%% *}
    else
      # Also an answer that broke off in the middle, whatever its status.
      status=000
    fi
    case $status in
      200) return ;;
      000 | 429 | 5??) ;;
      *)
        log "the join function answered with status $status"
        return 1
        ;;
    esac
    if ((waited >= longest_wait)); then
      log "no join script after $waited s, the last status is $status"
      return 1
    fi
    pause=$((RANDOM % 10 + 5))
    log "status $status, again in $pause s"
    sleep "$pause"
    took=${answer#* }
    took=${took%%[.,]*}
    waited=$((waited + pause + ${took:-0}))
  done
}

trap finish EXIT
trap 'exit 143' HUP INT TERM
exec >>/var/log/wekactl-bootstrap.log 2>&1
work=$(mktemp -d)

token=$(metadata_token)
instance=$(metadata instance-id)
address=$(metadata local-ipv4)
log "instance $instance at $address joins cluster $CLUSTER in $REGION"

read_attached
for ((number = 1; number <= INTERFACES; number++)); do
  if [[ $attached != *" $number "* ]]; then
    add_interface "$number"
  fi
done

fetch_join_script
first=''
read -r first <"$work/join" || true
if [[ $first != '#!'* ]]; then
  log 'the join function answered without a script'
  exit 1
fi
WEKACTL_JOIN_URL=$JOIN_URL WEKACTL_API_KEY=$API_KEY bash "$work/join"
log 'joined'
