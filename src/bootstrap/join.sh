#!/bin/bash
# Joins this new backend to its cluster, as root; the user data runs it, and shuts the machine down when it fails.
# Up to the containers a failure leaves nothing behind. After that it takes this machine out of the cluster again.
{ set +x; } 2>/dev/null
set -euo pipefail
# The user data keeps its files to itself; what is installed here is for every user.
umask 022

# The one line below becomes the values of this cluster.
#@values@

join_url=$WEKACTL_JOIN_URL
api_key=$WEKACTL_API_KEY
# No child sees the key.
unset WEKACTL_API_KEY
export PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin" HOME="${HOME:-/root}"

devices=/dev
system=/sys
uptime=/proc/uptime
fstab=/etc/fstab
weka_directory=/opt/weka
agent_directory=/opt/aws/amazon-cloudwatch-agent
label=wekaiosw

# Seconds of uptime at which the join ends, whatever it does then, and seconds that the undo may take after it: in the
# cluster, and on this machine.
ends=1500
longest_undo=480
longest_local_undo=120

work=''
username=''
password=''
backend=''
# Names of the containers that were begun, and `name id` of those that the cluster knows, a line each.
begun=''
ids=''

log() {
  printf '%(%Y-%m-%dT%H:%M:%S)T %s\n' -1 "$*" >&2
}

fail() {
  log "$*"
  exit 1
}

attempt() {
  "$@" || log "failed, going on: $*"
}

now() {
  local seconds
  read -r seconds _ <"$uptime"
  echo "${seconds%%.*}"
}

# Runs a command for at most so many seconds, and not beyond the end of the join.
run() {
  local most=$1 left
  shift
  left=$((ends - $(now)))
  if ((left <= 0)); then
    log "no time is left for: $1 ${2-}"
    return 124
  fi
  timeout --kill-after=5 "$((most < left ? most : left))" "$@" </dev/null
}

# Repeats a command until it succeeds, for at most so many seconds, and not beyond the end of the join.
await() {
  local what=$1 deadline
  deadline=$(($(now) + $2))
  shift 2
  ((deadline < ends)) || deadline=$ends
  until "$@"; do
    if (($(now) >= deadline)); then
      log "waited too long for $what"
      return 1
    fi
    sleep 5
  done
}

metadata() {
  printf 'url = "http://169.254.169.254/latest/meta-data/%s"\nheader = "X-aws-ec2-metadata-token: %s"\n' "$1" "$token" |
    curl --config - --silent --show-error --fail --noproxy '*' --max-time 5 --retry 5
}

# Yum and dnf are Python programs, so Amazon Linux always has one, but Amazon Linux 2 not always Python 3, and neither
# has jq. The program runs in both. Lists come as lists or, as in the API, as maps by id.
read_json() {
  local python
  python=$(command -v python3 || command -v python2 || command -v python) || return 1
  "$python" - "$@" <<'PYTHON'
import io
import json
import re
import sys
import uuid


def rows(found, key):
    if isinstance(found, dict):
        return [dict(row, **{key: name}) for name, row in found.items()]
    return found


def number(identifier):
    found = re.search("[0-9]+", str(identifier))
    return found.group() if found else ""


def credentials(found):
    for key in ("username", "password"):
        yield found[key] + "\0"


def containers(found, instance, address):
    for row in rows(found, "host_id"):
        owner = (row.get("cloud") or row.get("aws") or {}).get("instance_id")
        addresses = [row.get("host_ip")] + (row.get("ips") or [])
        # What is down at this address was there before this machine.
        here = address in addresses and row.get("status") != "DOWN"
        if owner == instance if owner else here:
            yield "%s %s %s\n" % (row["container_name"], number(row["host_id"]), row.get("state") or "-")


def drives(found, container):
    for row in rows(found, "disk_id"):
        if number(row.get("host_id")) == container:
            yield "%s\n" % uuid.UUID(row["uuid"])


with io.open(sys.argv[2], encoding="utf-8") as file:
    text = "".join(globals()[sys.argv[1]](json.load(file), *sys.argv[3:]))
getattr(sys.stdout, "buffer", sys.stdout).write(text.encode("utf-8"))
PYTHON
}

# A string of curl's configuration, in which a line of its own would be another option.
quoted() {
  local value=${1//\\/\\\\}
  value=${value//$'\n'/\\n}
  printf '"%s"' "${value//\"/\\\"}"
}

cloudwatch_agent() {
  local control=$agent_directory/bin/amazon-cloudwatch-agent-ctl
  local config=$agent_directory/etc/wekactl.json
  if [[ ! -x $control ]]; then
    run 120 yum install -y -q amazon-cloudwatch-agent || return 1
  fi
  printf '{"logs": {"logs_collected": {"files": {"collect_list": [{"file_path": "%s", "log_group_name": "%s", "log_stream_name": "%s"}]}}}}\n' \
    /var/log/wekactl-bootstrap.log "/wekaio/$CLUSTER" "$instance-bootstrap" >"$config" || return 1
  run 60 "$control" -a fetch-config -m ec2 -s -c "file:$config"
}

# The device and its partitions: `name mounted-at` a line each.
layout_of() {
  lsblk -n -r -o NAME,MOUNTPOINT "$1"
}

# What blkid sees on the device, such as TYPE=ext4 and LABEL=…, a line each; nothing for a blank one.
content_of() {
  local status=0 found
  found=$(blkid -p -o export "$1") || status=$?
  case $status in
    0) echo "$found" ;;
    2) ;;
    *)
      log "blkid can not say what $1 holds"
      return 1
      ;;
  esac
}

has_line() {
  [[ $'\n'$2$'\n' == *$'\n'"$1"$'\n'* ]]
}

# The name that a volume was attached under, which Nitro instances keep in the disk itself.
attached_as() {
  local name=''
  if command -v ebsnvme-id >/dev/null; then
    name=$(ebsnvme-id -b "$1") || true
  elif command -v nvme >/dev/null; then
    name=$(nvme id-ctrl --raw-binary "$1" | dd bs=32 skip=96 count=1 2>/dev/null | tr -d ' \0') || true
  fi
  echo "${name#/dev/}"
}

find_data_volume() {
  local path model device
  for device in "$devices/sdp" "$devices/xvdp"; do
    if [[ -e $device ]]; then
      data_volume=$(readlink -f "$device")
      return 0
    fi
  done
  for path in "$system"/block/nvme*; do
    model=''
    read -r model <"$path/device/model" || true
    device=$devices/${path##*/}
    if [[ $model == 'Amazon Elastic Block Store' && $(attached_as "$device") =~ ^(sdp|xvdp)$ ]]; then
      data_volume=$device
      return 0
    fi
  done
  return 1
}

prepare_data_volume() {
  local layout content
  await 'the data volume' 60 find_data_volume
  layout=$(layout_of "$data_volume")
  content=$(content_of "$data_volume")
  if has_line "LABEL=$label" "$content" && has_line TYPE=ext4 "$content"; then
    log "$data_volume is the data volume already"
  elif [[ -n $content || $layout == *$'\n'* || $layout =~ [^[:space:]]\ +[^[:space:]] ]]; then
    fail "$data_volume holds something else and is not touched"
  else
    run 300 mkfs.ext4 -q -L "$label" "$data_volume"
  fi
  mkdir -p "$weka_directory"
  if [[ $layout != *" $weka_directory" ]]; then
    mount "$data_volume" "$weka_directory"
  fi
  if ! grep -q "^LABEL=$label " "$fstab"; then
    echo "LABEL=$label $weka_directory ext4 defaults 0 2" >>"$fstab"
  fi
}

# Sets `disks` to the names of the instance-store disks.
find_disks() {
  local path model rotational layout content name names
  names=''
  for path in "$system"/block/nvme*; do
    model=''
    read -r model <"$path/device/model" || true
    read -r rotational <"$path/queue/rotational" || continue
    if [[ $model != 'Amazon EC2 NVMe Instance Storage' || $rotational != 0 ]]; then
      continue
    fi
    layout=$(layout_of "$devices/${path##*/}")
    if [[ $layout =~ [^[:space:]]\ +[^[:space:]] ]]; then
      log "${path##*/} is mounted and left alone"
      continue
    fi
    for name in $layout; do
      content=$(content_of "$devices/$name")
      if [[ $'\n'$content == *$'\n'TYPE=* ]]; then
        fail "$name holds a file system that is not Weka's and is not touched"
      fi
    done
    names+="${path##*/} "
  done
  if [[ -z $names ]]; then
    fail 'there is no instance-store disk to give to the cluster'
  fi
  read -r -a disks <<<"$names"
}

# Sets `spread` to one thread of every physical core but that of CPU 0, from the NUMA nodes in turn.
read_cores() {
  local listing cpu core socket node more rest cores seen=' ' order=''
  cores=([0]='')
  listing=$(lscpu -p=CPU,CORE,SOCKET,NODE)
  while IFS=, read -r cpu core socket node; do
    if [[ $cpu == '#'* || $seen == *" $socket/$core "* ]]; then
      continue
    fi
    seen+="$socket/$core "
    [[ $node =~ ^[0-9]+$ ]] || node=0
    if ((cpu != 0)); then
      cores[node]="${cores[node]-}$cpu "
    fi
  done <<<"$listing"
  more=1
  while ((more)); do
    more=0
    for node in "${!cores[@]}"; do
      read -r cpu rest <<<"${cores[node]}"
      if [[ -n $cpu ]]; then
        order+="$cpu "
        cores[node]=$rest
        more=1
      fi
    done
  done
  if (($(wc -w <<<"$order") < COMPUTE + DRIVE + FRONTEND)); then
    fail "$((COMPUTE + DRIVE + FRONTEND)) physical cores are needed besides the first, there are only: $order"
  fi
  read -r -a spread <<<"$order"
}

# Sets `interfaces` to the interfaces' names by device index. Only the address tells which is which: a card's name and
# the order of names depend on the kernel.
map_interfaces() {
  local macs mac index path found number
  macs=$(metadata network/interfaces/macs/) || return 1
  interfaces=([0]='')
  for mac in $macs; do
    mac=${mac%/}
    index=$(metadata "network/interfaces/macs/$mac/device-number") || return 1
    for path in "$system"/class/net/*; do
      # A bond or a bridge repeats the address of a card, but has no device of its own.
      if [[ -e $path/device ]] && read -r found <"$path/address" && [[ $found == "$mac" ]]; then
        interfaces[index]=${path##*/}
      fi
    done
  done
  for ((number = 1; number <= COMPUTE + DRIVE + FRONTEND; number++)); do
    [[ -n ${interfaces[number]-} ]] || return 1
  done
}

# Sets `scheme` and `release` to how the backend answers and what it runs.
query_backend() {
  local answer status
  for scheme in https http; do
    status=0
    answer=$(curl --silent --insecure --fail --noproxy '*' --connect-timeout 3 --max-time 10 \
      --header 'Content-Type: application/json' \
      --data '{"jsonrpc":"2.0","id":"1","method":"client_query_backend","params":{}}' \
      "$scheme://$1:14000/api/v1") || status=$?
    if ((status == 0)) && [[ $answer =~ \"software_release\":\ ?\"([0-9A-Za-z._-]+)\" ]]; then
      release=${BASH_REMATCH[1]}
      return 0
    fi
    # Nobody listens there, or nothing comes back: plain HTTP would meet the same.
    if ((status == 7 || status == 28)); then
      return 1
    fi
  done
  return 1
}

# Sets `backend` to the first that answers.
find_backend() {
  local candidate
  for candidate in ${join_ips//,/ }; do
    if (($(now) < ends)) && query_backend "$candidate"; then
      backend=$candidate
      return 0
    fi
  done
  log 'no backend answers'
  return 1
}

# Sets `backend`, its `backend_scheme` and the `version` that every answering backend runs.
find_version() {
  local candidate
  backend=''
  for candidate in ${join_ips//,/ }; do
    if ! query_backend "$candidate"; then
      log "backend $candidate does not answer"
    elif [[ -z $backend ]]; then
      backend=$candidate
      backend_scheme=$scheme
      version=$release
    elif [[ $release != "$version" ]]; then
      log "an upgrade is running: $backend has $version, $candidate has $release"
      return 1
    fi
  done
  [[ -n $backend ]]
}

install_weka() {
  local first=''
  curl --silent --show-error --insecure --fail --noproxy '*' --connect-timeout 10 --max-time 120 \
    --output "$work/install" "$backend_scheme://$backend:14000/dist/v1/install"
  read -r first <"$work/install" || true
  if [[ $first != '#!'* ]]; then
    fail "backend $backend answered without an installer"
  fi
  run 600 bash "$work/install"
  run 600 weka version get --from "$backend:14000" "$version" --set-current
  run 600 weka version prepare "$version"
  run 120 weka local stop
  run 120 weka local rm --all -f
}

# Sets up one container with the next cores and interfaces.
set_up() {
  local name=$1 port=$2 count=$3 cores index net
  shift 3
  cores=$(
    IFS=,
    echo "${spread[*]:used:count}"
  )
  # The first interface is left to the machine itself.
  net=(--net "${interfaces[used + 1]}")
  for ((index = used + 2; index <= used + count; index++)); do
    net+=(--net "${interfaces[index]}")
  done
  used=$((used + count))
  log "setting up $name on cores $cores"
  begun+="$name "
  run 300 weka local setup container --name "$name" --base-port "$port" --cores "$count" "$@" \
    --core-ids "$cores" "${net[@]}" --join-ips "$join_ips" --management-ips "$address" \
    --failure-domain "$failure_domain" --dedicate
}

set_up_containers() {
  used=0
  set_up drives0 14000 "$DRIVE" --drives-dedicated-cores "$DRIVE" --no-frontends
  set_up compute0 15000 "$COMPUTE" --compute-dedicated-cores "$COMPUTE" --no-frontends --memory "$MEMORY"
  if ((FRONTEND > 0)); then
    set_up frontend0 16000 "$FRONTEND" --frontend-dedicated-cores "$FRONTEND" --allow-protocols true
  fi
}

# The key goes through a pipe: arguments are there for every local user to read.
ask_for_credentials() {
  printf 'url = %s\nheader = %s\n' "$(quoted "$join_url?instance_id=$instance&step=credentials")" \
    "$(quoted "x-api-key: $api_key")" |
    curl --config - --silent --show-error --connect-timeout 10 --max-time 30 \
      --output "$work/credentials" --write-out '%{http_code}'
}

# Sets `username` and `password`.
fetch_credentials() {
  local status pause deadline
  deadline=$(($(now) + $1))
  while true; do
    (umask 077 && : >"$work/credentials")
    status=$(ask_for_credentials) || status=000
    case $status in
      200) break ;;
      000 | 429 | 5??) ;;
      *)
        log "the join function answered with status $status when asked for credentials"
        return 1
        ;;
    esac
    if (($(now) >= deadline || $(now) >= ends)); then
      log "no credentials, the last status is $status"
      return 1
    fi
    pause=$((RANDOM % 5 + 3))
    log "status $status, asking for credentials again in $pause s"
    sleep "$pause"
  done
  if ! { IFS= read -r -d '' username && IFS= read -r -d '' password; } \
    < <(read_json credentials "$work/credentials" 2>/dev/null) || [[ -z $username || -z $password ]]; then
    username=''
    log 'the join function answered without credentials'
    return 1
  fi
}

with_credentials() {
  WEKA_USERNAME=$username WEKA_PASSWORD=$password run "$@"
}

# The cluster is asked through a backend: this machine's own containers may be what is wrong.
ask_cluster() {
  with_credentials "$@" -H "$backend"
}

# `name id state` of this machine's containers, a line each: by instance id, or by address where the cluster knows
# none, but never by host name, which a neighbour's may begin with.
own_containers() {
  ask_cluster 60 weka cluster container -J >"$work/containers" || return 1
  read_json containers "$work/containers" "$instance" "$address"
}

# Sets `ids` to what the cluster knows of the containers that were begun; fails while it does not know all of them.
record_ids() {
  local listed name id row missing=''
  listed=$(own_containers) || return 1
  ids=''
  for name in $begun; do
    id=''
    while read -r row; do
      if [[ $row =~ ^$name\ ([0-9]+)\  ]]; then
        if [[ -n $id ]]; then
          log "the cluster knows $name of this machine twice: as $id and ${BASH_REMATCH[1]}"
          id=''
          break
        fi
        id=${BASH_REMATCH[1]}
      fi
    done <<<"$listed"
    if [[ -n $id ]]; then
      ids+="$name $id"$'\n'
    else
      missing+="$name "
    fi
  done
  if [[ -n $missing ]]; then
    log "the cluster does not know yet: $missing"
    return 1
  fi
}

# The recorded ids of these containers, in one line.
ids_of() {
  local name id
  while read -r name id; do
    if [[ " $1 " == *" $name "* ]]; then
      printf '%s ' "$id"
    fi
  done <<<"$ids"
}

is_ready() {
  local answer
  answer=$(with_credentials 30 weka debug manhole -s 0 operational_status) || return 1
  [[ $answer =~ \"is_ready\":\ *true ]]
}

has_partitions() {
  local disk path
  for disk in "${disks[@]}"; do
    for path in "$system/block/$disk/$disk"p*; do
      [[ -e $path ]] || return 1
    done
  done
}

# Uuids of the drives of this machine's drive container, a line each.
own_drives() {
  ask_cluster 60 weka cluster drive -J >"$work/drives" || return 1
  read_json drives "$work/drives" "$drives_id"
}

add_drives() {
  local disk count try uuids
  read -r drives_id <<<"$(ids_of drives0)"
  for disk in "${disks[@]}"; do
    log "signing $disk"
    run 120 weka local exec --container drives0 /weka/tools/weka_sign_drive "/dev/$disk"
  done
  await 'the partitions of the signed disks' 120 has_partitions
  for ((try = 1; try <= 60; try++)); do
    # Whether the drives are there decides, not what the command says of itself.
    attempt ask_cluster 60 weka cluster drive scan "$drives_id"
    if uuids=$(own_drives); then
      count=$(wc -w <<<"$uuids")
      log "scan $try of 60: $count of ${#disks[@]} drives are in the cluster"
      if ((count >= ${#disks[@]})); then
        return 0
      fi
    fi
    (($(now) < ends)) || break
    sleep 3
  done
  fail 'the signed drives are not in the cluster'
}

# The containers of the record that are not INACTIVE and still listed.
still_active() {
  local listed name id
  listed=$(own_containers) || return 0
  while read -r name id; do
    if [[ -n $name && $'\n'$listed == *$'\n'"$name $id "* ]] && ! has_line "$name $id INACTIVE" "$listed"; then
      return 0
    fi
  done <<<"$ids"
  return 1
}

are_inactive() {
  ! still_active
}

leave_cluster() {
  local uuids='' uuid id numbers
  attempt await 'the ids of this machine'\''s containers' 60 record_ids
  if [[ -z $ids ]]; then
    return 0
  fi
  log "taking out: ${ids//$'\n'/, }"
  read -r -a numbers <<<"$(ids_of "$begun")"
  read -r drives_id <<<"$(ids_of drives0)"
  if [[ -n $drives_id ]]; then
    uuids=$(own_drives) || log 'the drives of this machine can not be listed'
  fi
  for uuid in $uuids; do
    attempt ask_cluster 60 weka cluster drive deactivate "$uuid" --force
  done
  attempt ask_cluster 60 weka cluster container deactivate "${numbers[@]}"
  attempt await 'this machine'\''s containers to become inactive' 240 are_inactive
  for uuid in $uuids; do
    attempt ask_cluster 60 weka cluster drive remove "$uuid" --force
  done
  for id in "${numbers[@]}"; do
    attempt ask_cluster 60 weka cluster container remove "$id"
  done
}

undo() {
  local left
  ends=$(($(now) + longest_undo))
  log 'the join failed: taking this machine out of the cluster again'
  attempt find_backend
  if [[ -z $username ]]; then
    attempt fetch_credentials 60
  fi
  if [[ -n $username ]]; then
    leave_cluster
  fi
  ends=$(($(now) + longest_local_undo))
  attempt run 60 weka local stop
  attempt run 60 weka local rm --all -f
  left='not known, without credentials'
  if [[ -n $username ]]; then
    left=$(own_containers) || left='not known'
  fi
  log "left in the cluster (name, id, state): ${left:-nothing}"
}

# What is called from here says what it returns: in a trap a plain `return` returns the status from before the trap.
finish() {
  local status=$?
  # A second signal does not stop the undo.
  trap : HUP INT TERM
  trap - EXIT
  set +e
  if ((status != 0)) && [[ -n $begun ]]; then
    undo
  fi
  if [[ -n $work ]]; then
    rm -rf -- "$work"
  fi
  exit "$status"
}

trap finish EXIT
trap 'exit 143' HUP INT TERM
work=$(mktemp -d)

token=$(curl --silent --show-error --fail --noproxy '*' --max-time 5 --retry 5 --request PUT \
  --header 'X-aws-ec2-metadata-token-ttl-seconds: 3600' http://169.254.169.254/latest/api/token)
instance=$(metadata instance-id)
address=$(metadata local-ipv4)
failure_domain=$(printf '%s' "$address" | sha256sum)
failure_domain=${failure_domain:0:16}
# Amazon Linux 2 has bash 4.2, where an empty array counts as unset: lists that may be empty are words.
join_ips=''
for other in $BACKENDS; do
  if [[ $other != "$address" ]]; then
    join_ips+=",$other"
  fi
done
join_ips=${join_ips#,}
if [[ -z $join_ips ]]; then
  fail 'there is no other backend to join'
fi

attempt cloudwatch_agent
prepare_data_volume
find_disks
read_cores
await "$((COMPUTE + DRIVE + FRONTEND)) interfaces" 120 map_interfaces
await 'backends that all run one version' 300 find_version
log "installing Weka $version from $backend"
install_weka
set_up_containers
fetch_credentials 120
await 'the ids of this machine'\''s containers' 300 record_ids
log "this machine's containers: ${ids//$'\n'/, }"
await 'the cluster to be ready' 300 is_ready
add_drives
attempt ask_cluster 60 weka events trigger-event \
  "Scale up operation completed on host $address ($instance), data redistribution may still be running"
log 'the drives are in the cluster'
