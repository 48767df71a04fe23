"""The second half of the sandbox's own test: what a running sandbox does.

Machines boot, time moves, functions die, roles are checked. Part of
``selftest.py``, which imports it.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import unittest
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Aging", "Functions", "Groups", "Launcher", "Machines", "Roles"]

REGION = "eu-central-1"
ACCOUNT = "123456789012"
HERE = Path(__file__).parent
LAUNCHER = [sys.executable, "-s", "-m", "localaws"]
KEY = "a-key-that-is-long-enough"


class Weka(ThreadingHTTPServer):
    """Stands for Weka: notes what it is told, answers what it is asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WekaHandler)
        self.told: list[tuple[str, str, Any]] = []
        self.answer: dict[str, Any] = {}
        self.slow = 0.0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def of(self, instance_id: str) -> list[str]:
        """What was told of a machine, as `VERB path`."""
        return [
            f"{verb} {path}".replace(instance_id, "ID")
            for verb, path, body in self.told
            if instance_id in path
            or (body or {}).get("instance_id") == instance_id
        ]


class WekaHandler(BaseHTTPRequestHandler):
    """Any request."""

    protocol_version = "HTTP/1.1"
    server: Weka

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Note it and answer."""
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(text or b"null")
        time.sleep(self.server.slow)
        self.server.told.append((self.command, self.path, body))
        answer = self.server.answer if self.path == "/weka" else {}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_DELETE = do_POST


class Running(unittest.TestCase):
    """One sandbox for all tests of a class, emptied before each."""

    sandbox: subprocess.Popen[str]
    url: str
    weka: Weka

    @classmethod
    def setUpClass(cls) -> None:
        """Start it."""
        command = [*LAUNCHER, "start", "--json"]
        command += ["--cold", "--until-stdin-closes"]
        # A thousand policies that no test needs, read at every reset.
        few = {"MOTO_IAM_LOAD_MANAGED_POLICIES": "false"}
        cls.sandbox = subprocess.Popen(
            command,
            cwd=HERE,
            env=os.environ | few,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert cls.sandbox.stdout
        cls.url = json.loads(cls.sandbox.stdout.readline())["url"]
        cls.weka = Weka()

    @classmethod
    def tearDownClass(cls) -> None:
        """End it."""
        assert cls.sandbox.stdin and cls.sandbox.stdout
        cls.sandbox.stdin.close()
        cls.sandbox.wait(20)
        cls.sandbox.stdout.close()
        cls.weka.shutdown()
        cls.weka.server_close()

    def setUp(self) -> None:
        """Start with nothing."""
        settings = {"boot_machines": False, "weka_url": ""}
        settings["machine_sleep_factor"] = 0.02
        self.ask("POST", "settings", settings)
        self.ask("POST", "reset", {})
        self.weka.told.clear()
        self.weka.answer, self.weka.slow = {}, 0.0

    def ask(self, verb: str, path: str, body: Any = None) -> Any:
        """One call of the control API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/sandbox/{path}", data, method=verb
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as failure:
            with failure:
                raise AssertionError(failure.read().decode()) from None

    def aws(self, service: str, operation: str, **params: Any) -> Any:
        """One AWS call."""
        call = {"service": service, "operation": operation, "params": params}
        return self.ask("POST", "call", call)

    @contextlib.contextmanager
    def refused(self, code: str) -> Any:
        """The AWS call in it is refused with the code."""
        with self.assertRaises(AssertionError) as caught:
            yield
        self.assertEqual(json.loads(str(caught.exception))["code"], code)

    # What tests are made of.

    def stack(self) -> dict[str, Any]:
        """A Weka stack of one zone."""
        return self.ask("POST", "stack", {"name": "weka", "zones": 1})

    def group(
        self, size: int, script: str = "", subnets: int = 1, **params: Any
    ) -> list[str]:
        """A group `group` that launches machines with the script; the answer
        is its members.
        """
        made = self.ask("POST", "stack", {"name": "weka", "zones": subnets})
        first = self.described(made["backends"][0]["id"])
        security = first["SecurityGroups"][0]["GroupId"]
        self.subnet = first["SubnetId"]
        script = script.replace("SUBNET", self.subnet).replace(
            "SECURITY", security
        )
        self.aws(
            "ec2",
            "create_launch_template",
            LaunchTemplateName="template",
            LaunchTemplateData={
                "ImageId": first["ImageId"],
                "InstanceType": "i3en.2xlarge",
                "SecurityGroupIds": [security],
                "IamInstanceProfile": {
                    "Arn": first["IamInstanceProfile"]["Arn"]
                },
                "UserData": base64.b64encode(script.encode()).decode(),
                "BlockDeviceMappings": [
                    {"DeviceName": "/dev/sdp", "Ebs": {"VolumeSize": 78}}
                ],
            },
        )
        self.aws(
            "autoscaling",
            "create_auto_scaling_group",
            AutoScalingGroupName="group",
            VPCZoneIdentifier=",".join(made["subnets"][:subnets]),
            LaunchTemplate={"LaunchTemplateName": "template", "Version": "1"},
            **{"MinSize": 0, "MaxSize": 60, "DesiredCapacity": size} | params,
        )
        return self.members()

    def described(self, instance_id: str) -> dict[str, Any]:
        """One instance."""
        found = self.aws(
            "ec2", "describe_instances", InstanceIds=[instance_id]
        )
        return found["Reservations"][0]["Instances"][0]

    def described_group(self) -> dict[str, Any]:
        """The group."""
        found = self.aws("autoscaling", "describe_auto_scaling_groups")
        return found["AutoScalingGroups"][0]

    def members(self) -> list[str]:
        """Its instances."""
        return [i["InstanceId"] for i in self.described_group()["Instances"]]

    def health(self) -> dict[str, str]:
        """Their health."""
        instances = self.described_group()["Instances"]
        return {i["InstanceId"]: i["HealthStatus"] for i in instances}

    def suspend(self, *processes: str) -> None:
        """Suspend processes of the group."""
        self.aws(
            "autoscaling",
            "suspend_processes",
            AutoScalingGroupName="group",
            ScalingProcesses=list(processes),
        )

    def boots(self) -> list[dict[str, Any]]:
        """Every boot, once all have ended."""
        self.assertTrue(self.ask("POST", "settle", {"timeout": 60})["settled"])
        return self.ask("GET", "boots")

    def boot(self, script: str, **params: Any) -> dict[str, Any]:
        """The boot of one machine with the script."""
        self.ask(
            "POST",
            "settings",
            {"boot_machines": True, "weka_url": self.weka.url},
        )
        self.group(1, "#!/bin/bash\n" + script, **params)
        (boot,) = self.boots()
        return boot

    def role(self, name: str, *statements: dict[str, Any]) -> str:
        """A function's role."""
        trust = {
            "Effect": "Allow",
            "Principal": {
                "Service": ["lambda.amazonaws.com", "states.amazonaws.com"]
            },
            "Action": "sts:AssumeRole",
        }
        arn = self.aws(
            "iam",
            "create_role",
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}),
        )["Role"]["Arn"]
        self.allow(name, *statements)
        return arn

    def allow(self, name: str, *statements: dict[str, Any]) -> None:
        """Let the role do this, and nothing else."""
        document = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", **s} for s in statements],
        }
        if statements:
            self.aws(
                "iam",
                "put_role_policy",
                RoleName=name,
                PolicyName="policy",
                PolicyDocument=json.dumps(document),
            )
        else:
            with contextlib.suppress(AssertionError):
                self.aws(
                    "iam",
                    "delete_role_policy",
                    RoleName=name,
                    PolicyName="policy",
                )

    def function(
        self,
        script: str,
        *statements: dict[str, Any],
        name: str = "function",
        answer: Any = None,
        timeout: int = 20,
    ) -> str:
        """A function that runs the script, then answers; its ARN."""
        return self.aws(
            "lambda",
            "create_function",
            FunctionName=name,
            Runtime="provided.al2023",
            Handler="x",
            Role=self.role(name, *statements),
            Code={"ZipFile": {"__bytes__": packed(script, answer)}},
            Timeout=timeout,
        )["FunctionArn"]

    def invoke(self, name: str = "function") -> dict[str, Any]:
        """Run the function; what is known of that run."""
        self.aws("lambda", "invoke", FunctionName=name)
        return self.ask("GET", "invocations")[-1]


def packed(script: str, answer: Any) -> str:
    """A function's zip, in base64."""
    program = f"""#!/bin/bash
runtime=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation
call() {{
  # service, then curl's arguments; AWS's signatures are not checked here
  curl -sS -o /dev/null -w '%{{http_code}}\\n' "$AWS_ENDPOINT_URL/" -H "Authorization: \
AWS4-HMAC-SHA256 Credential=$AWS_ACCESS_KEY_ID/20260101/$AWS_REGION/$1/aws4_request" "${{@:2}}"
}}
dynamodb() {{
  call dynamodb -H "X-Amz-Target: DynamoDB_20120810.$1" \
-H 'Content-Type: application/x-amz-json-1.0' -d "$2"
}}
head=$(curl -sS -D - -o /dev/null "$runtime/next")
id=$(grep -i aws-request-id <<<"$head" | tr -d '\\r' | cut -d ' ' -f 2)
{script}
curl -sS -o /dev/null --data-binary "@$LAMBDA_TASK_ROOT/answer" "$runtime/$id/response"
sleep 60
"""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in (
            ("bootstrap", program),
            ("answer", json.dumps(answer)),
        ):
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o755 << 16
            file.writestr(member, text)
    return base64.b64encode(archive.getvalue()).decode()


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it never came true")
        time.sleep(0.02)


def runs(process: str) -> bool:
    """Does it run, other than as a zombie that nobody waits for?"""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


METADATA = """
token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
http://169.254.169.254/latest/api/token)
metadata() {
  curl -sf -H "X-aws-ec2-metadata-token: $token" \
"http://169.254.169.254/latest/meta-data/$1"
}
"""
ATTACH = """
interface=$(aws ec2 create-network-interface --subnet-id SUBNET \
--groups SECURITY SECURITY --description 'a b' \
--query NetworkInterface.NetworkInterfaceId --output text)
attachment=$(aws ec2 attach-network-interface --device-index 2 \
--network-interface-id $interface --instance-id $(metadata instance-id) \
--query AttachmentId --output text)
aws ec2 modify-network-interface-attribute --network-interface-id $interface \
--attachment AttachmentId=$attachment,DeleteOnTermination=true
"""


class Machines(Running):
    """Machines boot, and Weka is told."""

    def test_machines_boot_only_when_told_to(self) -> None:
        """Neither without the setting, nor those that a group did not launch."""
        self.group(1, "#!/bin/bash\n")
        self.assertEqual(self.boots(), [])

    def test_user_data_runs_as_the_machine(self) -> None:
        """Each has its own identity, log and exit status."""
        script = f"exec >>/var/log/own.log\n{METADATA}\n"
        script += "metadata instance-id\nexit 3"
        self.ask("POST", "settings", {"boot_machines": True})
        ids = self.group(3, "#!/bin/bash\n" + script)
        boots = self.boots()
        self.assertEqual(sorted(b["instance_id"] for b in boots), sorted(ids))
        for boot in boots:
            self.assertEqual(boot["log"], boot["instance_id"])
            self.assertEqual((boot["state"], boot["exit"]), ("ended", 3))
        self.assertFalse(Path("/var/log/own.log").exists())

    def test_metadata_needs_a_token_and_knows_interfaces(self) -> None:
        """Also those attached later; a script sees them by their addresses."""
        boot = self.boot(
            f"""
{METADATA}
curl -s -o /dev/null -w '%{{http_code}}\\n' \
http://169.254.169.254/latest/meta-data/instance-id
{ATTACH}
for mac in $(metadata network/interfaces/macs/); do
  metadata network/interfaces/macs/${{mac}}device-number
  echo
  grep -l "${{mac%/}}" "$SANDBOX_ROOT"/sys/class/net/*/address | wc -l
done
metadata local-ipv4
"""
        )
        lines = boot["log"].split("\n")
        self.assertEqual(
            lines, ["401", "0", "1", "2", "1", boot["private_ip"]]
        )
        described = self.described(boot["instance_id"])["NetworkInterfaces"]
        later = described[1]
        self.assertEqual(later["Description"], "a b")
        self.assertEqual(later["Attachment"]["DeviceIndex"], 2)
        self.assertTrue(later["Attachment"]["DeleteOnTermination"])
        callers = {
            entry["caller"]
            for entry in self.ask("GET", "journal?caller=^instance")
        }
        self.assertEqual(callers, {f"instance:{boot['instance_id']}"})

    def test_a_refused_call_fails_the_command(self) -> None:
        """The stack's role may not tag; nor is everything a command."""
        boot = self.boot(
            "aws ec2 create-tags --resources i-1 --tags Key=a,Value=b 2>&1;"
            " echo $?; aws ec2 stop-everything 2>&1; echo $?"
        )
        self.assertIn("(UnauthorizedOperation)", boot["log"])
        self.assertIn("\n254\n", boot["log"])
        self.assertTrue(boot["log"].endswith("\n252\n"), boot["log"])

    def test_joining_needs_the_key(self) -> None:
        """The join URL answers over TLS, as on AWS."""
        arn = self.function(":", answer={"statusCode": 200, "body": "joined"})
        url = self.api(arn)
        boot = self.boot(
            f"curl -sS -w ' %{{http_code}}\\n' '{url}?a=b'\n"
            f"curl -sS -w ' %{{http_code}}\\n' -H 'x-api-key: {KEY}' '{url}'"
        )
        self.assertEqual(
            boot["log"], '{"message": "Forbidden"} 403\njoined 200\n'
        )

    def test_a_request_to_join_can_be_made_to_fail(self) -> None:
        """By the machine that sends it, and by what it asks for."""
        arn = self.function(":", answer={"statusCode": 200, "body": "joined"})
        url = self.api(arn)
        common = {"service": "execute-api", "caller": "^instance:"}
        self.ask(
            "POST",
            "faults",
            [
                common | {"match": "x=1", "action": "error", "status": 429},
                common | {"match": "x=2", "action": "drop"},
            ],
        )
        ask = (
            f"curl -s -o /dev/null -w '%{{http_code}} ' -H 'x-api-key: {KEY}'"
        )
        script = "".join(f"{ask} '{url}?x={x}'\n" for x in (1, 1, 2, 3))
        self.assertEqual(self.boot(script)["log"], "429 200 000 200 ")

    def test_a_machine_that_weka_refuses_does_not_boot(self) -> None:
        """And does not keep anyone waiting."""
        nobody = {"boot_machines": True, "weka_url": "http://127.0.0.1:9"}
        self.ask("POST", "settings", nobody)
        self.group(1, "#!/bin/bash\n")
        (boot,) = self.boots()
        self.assertIn("Weka does not take the machine", boot["failure"])
        self.assertIsNone(boot["start"])

    def api(self, function_arn: str) -> str:
        """A REST API in front of the function; its URL."""
        api = self.aws("apigateway", "create_rest_api", name="api")
        resource = self.aws(
            "apigateway",
            "create_resource",
            restApiId=api["id"],
            parentId=api["rootResourceId"],
            pathPart="join",
        )["id"]
        key = {
            "restApiId": api["id"],
            "resourceId": resource,
            "httpMethod": "GET",
        }
        self.aws(
            "apigateway",
            "put_method",
            **key,
            authorizationType="NONE",
            apiKeyRequired=True,
        )
        uri = f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions"
        self.aws(
            "apigateway",
            "put_integration",
            **key,
            type="AWS_PROXY",
            integrationHttpMethod="POST",
            uri=f"{uri}/{function_arn}/invocations",
        )
        self.aws(
            "apigateway",
            "create_deployment",
            restApiId=api["id"],
            stageName="default",
        )
        made = self.aws(
            "apigateway", "create_api_key", name="key", value=KEY, enabled=True
        )
        plan = self.aws(
            "apigateway",
            "create_usage_plan",
            name="plan",
            apiStages=[{"apiId": api["id"], "stage": "default"}],
        )
        self.aws(
            "apigateway",
            "create_usage_plan_key",
            usagePlanId=plan["id"],
            keyId=made["id"],
            keyType="API_KEY",
        )
        self.aws(
            "lambda",
            "add_permission",
            FunctionName="function",
            StatementId="api",
            Action="lambda:InvokeFunction",
            Principal="apigateway.amazonaws.com",
        )
        host = f"{api['id']}.execute-api.{REGION}.amazonaws.com"
        return f"https://{host}/default/join"

    def test_weka_answers_weka(self) -> None:
        """With every byte of the arguments and the credentials."""
        self.weka.answer = {
            "exit": 7,
            "stdout": "é" * 3000,
            "stderr": "no\n",
        }
        boot = self.boot(
            "export WEKA_USERNAME=admin WEKA_PASSWORD=$'a \"b\\nc'\n"
            "weka local '' 'x y' 2>&1"
        )
        self.assertEqual(boot["exit"], 7)
        self.assertEqual(boot["log"], "é" * 3000 + "no\n")
        asked = [body for _, path, body in self.weka.told if path == "/weka"]
        self.assertEqual(
            asked,
            [
                {
                    "instance_id": boot["instance_id"],
                    "argv": ["local", "", "x y"],
                    "env": {
                        "WEKA_USERNAME": "admin",
                        "WEKA_PASSWORD": 'a "b\nc',
                    },
                }
            ],
        )

    def test_drives_are_as_they_were_left(self) -> None:
        """Formatted, mounted, signed; a script's directories are its own."""
        boot = self.boot(
            """
cat >"$TMPDIR/script" <<'END'
devices=/dev
fstab=/etc/fstab
uptime=/proc/uptime
cat "$fstab" "$uptime"
volume=$(readlink -f "$devices/sdp")
blkid -p -o export "$volume"; echo $?
mkfs.ext4 -q -L label "$volume"
blkid -p -o export "$volume" | grep LABEL
mount "$volume" /mount
lsblk -n -r -o NAME,MOUNTPOINT "$volume"
weka local exec weka_sign_drive /dev/nvme3n1
lsblk -n -r -o NAME,MOUNTPOINT "$devices/nvme3n1"
lscpu -p=CPU,CORE,SOCKET,NODE | tail -1
sleep 100
cat "$uptime"
END
bash "$TMPDIR/script"
"""
        )
        self.assertEqual(
            boot["log"].splitlines(),
            [
                "LABEL=/ / xfs defaults 0 0",
                "20.00 0.00",
                "2",
                "LABEL=label",
                "nvme1n1 /mount",
                "nvme3n1 ",
                "nvme3n1p1 ",
                "7,3,0,0",
                "120.00 0.00",
            ],
        )

    def test_shutdown_stops_the_instance(self) -> None:
        """By the instance's own shutdown behaviour, and not at once."""
        boot = self.boot("shutdown -h now\necho after\nsleep 900\nexit 4")
        instance = boot["instance_id"]
        self.assertEqual(self.described(instance)["State"]["Name"], "stopped")
        self.assertTrue(boot["log"].startswith("after"))
        self.assertIn("POST /machines/ID/stop", self.weka.of(instance))

    def test_weka_knows_a_machine_before_it_boots(self) -> None:
        """And everything that happens to it, in order."""
        self.weka.slow = 0.3
        boot = self.boot("weka status")
        instance = boot["instance_id"]
        described = self.described(instance)
        (told,) = [
            body
            for _, path, body in self.weka.told
            if path == "/machines" and body["instance_id"] == instance
        ]
        self.assertEqual(
            told,
            {
                "instance_id": instance,
                "private_ip": described["PrivateIpAddress"],
                "ips": [described["PrivateIpAddress"]],
                "instance_type": "i3en.2xlarge",
                "availability_zone": f"{REGION}a",
            },
        )
        self.weka.slow = 0.0
        self.suspend("ReplaceUnhealthy")
        for action in ("stop", "start", "reboot", "kill"):
            self.ask(
                "POST", f"machines/{action}", {"instance_ids": [instance]}
            )
        self.assertEqual(
            self.weka.of(instance),
            [
                "POST /machines",
                "POST /weka",
                "POST /machines/ID/stop",
                "POST /machines",
                "DELETE /machines/ID",
            ],
        )
        self.assertEqual(len(self.boots()), 1)

    def test_a_killed_machine_boots_no_further(self) -> None:
        """Nor does what it started go on."""
        self.ask(
            "POST",
            "settings",
            {"boot_machines": True, "machine_sleep_factor": 1},
        )
        script = (
            "#!/bin/bash\necho $$\ntimeout 60 bash -c 'echo $$; sleep 50'\n"
        )
        (instance,) = self.group(1, script)
        until(lambda: self.ask("GET", "boots")[0]["log"].count("\n") == 2)
        processes = self.ask("GET", "boots")[0]["log"].split()
        self.suspend("Launch")
        self.ask("POST", "machines/kill", {"instance_ids": [instance]})
        (boot,) = self.boots()
        self.assertEqual(boot["state"], "killed")
        for process in processes:
            self.assertFalse(runs(process), process)

    def test_a_stopped_machine_ends_its_scripts(self) -> None:
        """They are told, and can still act."""
        self.ask("POST", "settings", {"boot_machines": True})
        script = "#!/bin/bash\ntrap 'echo told; exit 143' TERM\necho up\n"
        (instance,) = self.group(1, script + "while :; do sleep 1; done\n")
        until(lambda: self.ask("GET", "boots")[0]["log"] == "up\n")
        self.aws("ec2", "stop_instances", InstanceIds=[instance])
        (boot,) = self.boots()
        self.assertEqual((boot["log"][-6:], boot["exit"]), ("\ntold\n", 143))


class Groups(Running):
    """What happens to machines, and what their group makes of it."""

    def test_dead_members_stay_while_replacing_is_suspended(self) -> None:
        """Stopped and purged ones are found by the health check."""
        ids = self.group(4)
        self.suspend("ReplaceUnhealthy")
        killed, stopped, purged, well = ids
        for action, instance in (
            ("kill", killed),
            ("stop", stopped),
            ("purge", purged),
        ):
            self.ask(
                "POST", f"machines/{action}", {"instance_ids": [instance]}
            )
        self.assertEqual(self.health()[purged], "Healthy")
        self.ask("POST", "tick", {})
        self.assertEqual(
            self.health(),
            {i: "Healthy" if i == well else "Unhealthy" for i in ids},
        )
        with self.refused("InvalidInstanceID.NotFound"):
            self.described(purged)
        found = self.aws(
            "ec2",
            "describe_instances",
            Filters=[{"Name": "instance-id", "Values": ids}],
        )["Reservations"]
        known = {i["InstanceId"] for r in found for i in r["Instances"]}
        self.assertEqual(known, {killed, stopped, well})
        # Detached without decrement, they are replaced.
        self.aws(
            "autoscaling",
            "detach_instances",
            AutoScalingGroupName="group",
            InstanceIds=[killed, purged],
            ShouldDecrementDesiredCapacity=False,
        )
        left = self.members()
        self.assertEqual(left[:2], [stopped, well])
        self.assertEqual(len(left), 4)

    def test_the_tick_replaces_what_is_not_suspended(self) -> None:
        """Protection does not save a dead member."""
        ids = self.group(2, NewInstancesProtectedFromScaleIn=True)
        self.ask("POST", "machines/stop", {"instance_ids": ids[:1]})
        self.ask("POST", "tick", {})
        self.assertEqual(self.members()[0], ids[1])
        self.assertEqual(len(self.members()), 2)
        state = self.described(ids[0])["State"]["Name"]
        self.assertEqual(state, "terminated")

    def test_the_tick_launches_what_is_missing(self) -> None:
        """Once Launch is resumed."""
        self.group(2)
        self.suspend("Launch")
        self.aws(
            "autoscaling",
            "set_desired_capacity",
            AutoScalingGroupName="group",
            DesiredCapacity=3,
        )
        self.ask("POST", "tick", {})
        self.assertEqual(len(self.members()), 2)
        self.aws(
            "autoscaling", "resume_processes", AutoScalingGroupName="group"
        )
        self.ask("POST", "tick", {})
        self.assertEqual(len(self.members()), 3)

    def test_the_tick_takes_only_what_is_not_protected(self) -> None:
        """A member too many goes as soon as it is not protected any more."""
        ids = self.group(3, NewInstancesProtectedFromScaleIn=True)
        group = {"AutoScalingGroupName": "group"}
        self.aws(
            "autoscaling", "set_desired_capacity", **group, DesiredCapacity=2
        )
        self.ask("POST", "tick", {})
        self.assertEqual(self.members(), ids)
        self.aws(
            "autoscaling",
            "set_instance_protection",
            **group,
            InstanceIds=ids[1:2],
            ProtectedFromScaleIn=False,
        )
        self.ask("POST", "tick", {})
        self.assertEqual(self.members(), [ids[0], ids[2]])

    def test_zones_are_balanced(self) -> None:
        """Unless that is suspended."""
        ids = self.group(6, subnets=2)
        zones = {
            i: self.described(i)["Placement"]["AvailabilityZone"] for i in ids
        }
        one = [i for i in ids if zones[i] == f"{REGION}a"]
        self.suspend("AZRebalance")
        self.aws(
            "autoscaling",
            "detach_instances",
            AutoScalingGroupName="group",
            InstanceIds=[i for i in ids if i not in one][:2],
            ShouldDecrementDesiredCapacity=True,
        )
        before = self.members()
        self.ask("POST", "tick", {})
        self.assertEqual(self.members(), before)
        self.aws(
            "autoscaling", "resume_processes", AutoScalingGroupName="group"
        )
        self.ask("POST", "tick", {})
        after = self.members()
        self.assertEqual(len(after), 4)
        self.assertEqual(len(set(after) & set(one)), 2)

    def test_a_member_can_be_in_any_state(self) -> None:
        """Such as one that nothing leads to here."""
        (instance,) = self.group(1)
        self.ask(
            "POST",
            "members",
            {
                "group": "group",
                "instance_id": instance,
                "lifecycle_state": "Terminating:Wait",
            },
        )
        (member,) = self.described_group()["Instances"]
        self.assertEqual(member["LifecycleState"], "Terminating:Wait")


class Aging(Running):
    """Time moves."""

    def times(self, instance: str) -> list[float]:
        """Times of everything."""
        described = self.described(instance)
        activities = self.aws("autoscaling", "describe_scaling_activities")
        machines = self.aws("stepfunctions", "list_state_machines")
        machine = machines["stateMachines"][0]["stateMachineArn"]
        executions = self.aws(
            "stepfunctions", "list_executions", stateMachineArn=machine
        )["executions"]
        history = self.aws(
            "stepfunctions",
            "get_execution_history",
            executionArn=executions[0]["executionArn"],
        )["events"]
        texts = [
            described["LaunchTime"],
            described["NetworkInterfaces"][0]["Attachment"]["AttachTime"],
            self.described_group()["CreatedTime"],
            activities["Activities"][0]["StartTime"],
            executions[0]["startDate"],
            executions[0]["stopDate"],
            history[0]["timestamp"],
            self.aws("lambda", "list_functions")["Functions"][0][
                "LastModified"
            ],
        ]
        return [moment(text) for text in texts]

    def test_everything_gets_older(self) -> None:
        """By the same."""
        (instance,) = self.group(1)
        self.function(":")
        machine = self.aws(
            "stepfunctions",
            "create_state_machine",
            name="machine",
            roleArn=self.role("machine"),
            definition=json.dumps(
                {
                    "StartAt": "A",
                    "States": {"A": {"Type": "Pass", "End": True}},
                }
            ),
        )["stateMachineArn"]
        execution = self.aws(
            "stepfunctions", "start_execution", stateMachineArn=machine
        )["executionArn"]
        until(
            lambda: (
                self.aws(
                    "stepfunctions",
                    "describe_execution",
                    executionArn=execution,
                )["status"]
                == "SUCCEEDED"
            )
        )
        before = self.times(instance)
        self.assertGreater(min(before), time.time() - 600)
        self.ask("POST", "age", {"seconds": 5000})
        self.ask("POST", "age", {"seconds": 2200})
        passed = [
            a - b for a, b in zip(before, self.times(instance), strict=True)
        ]
        self.assertEqual([round(p) for p in passed], [7200] * len(before))

    def test_a_machine_that_boots_gets_older(self) -> None:
        """Its uptime goes on."""
        self.ask("POST", "settings", {"boot_machines": True})
        script = "#!/bin/bash\nread -r up _ <$SANDBOX_ROOT/proc/uptime\n"
        script += "until ((${up%%.*} > 1500)); do /bin/sleep 0.05\n"
        script += "read -r up _ <$SANDBOX_ROOT/proc/uptime; done; exit 9\n"
        self.group(1, script)
        until(lambda: self.ask("GET", "boots")[0]["state"] == "running")
        until(
            lambda: (
                self.ask("POST", "age", {"seconds": 800})
                and self.ask("GET", "boots")[0]["exit"] == 9
            )
        )


def moment(text: str) -> float:
    """Seconds since 1970."""
    from datetime import datetime

    return datetime.fromisoformat(text.replace("+0000", "+00:00")).timestamp()


RUN = "call ec2 -d 'Version=2016-11-15&Action=CreateSecurityGroup"
RUN += "&GroupName=made&GroupDescription=d'"
MAY_RUN = {"Action": "ec2:*", "Resource": "*"}


class Functions(Running):
    """Functions die, or do not."""

    def groups_made(self) -> int:
        """How often RUN took effect."""
        found = self.aws("ec2", "describe_security_groups")["SecurityGroups"]
        return len([g for g in found if g["GroupName"] == "made"])

    def test_a_function_dies_before_a_call(self) -> None:
        """The call has no effect, and the function no answer."""
        self.dies("kill", 0)

    def test_a_function_dies_after_a_call(self) -> None:
        """The call has its effect, and the function no answer."""
        self.dies("apply_kill", 1)

    def dies(self, action: str, made: int) -> None:
        """A function that dies at its call."""
        self.function(f"{RUN}\necho survived", MAY_RUN)
        rule = {"caller": "^lambda:function$", "action": action}
        self.ask("POST", "faults", [rule])
        invocation = self.invoke()
        payload = json.loads(invocation["payload"])
        self.assertEqual(payload["errorType"], "Runtime.ExitError")
        self.assertIn("signal: killed", payload["errorMessage"])
        self.assertNotIn("survived", invocation["log"])
        self.assertEqual(self.groups_made(), made)
        # The next run is as ever.
        self.assertIsNone(self.invoke()["error"])

    def test_a_function_can_be_killed_by_name(self) -> None:
        """By whoever it calls, for instance."""
        self.function("sleep 15")
        threading.Thread(
            target=lambda: until(
                lambda: self.ask("POST", "functions/kill", {"name": "^fun"})[
                    "killed"
                ]
            ),
            daemon=True,
        ).start()
        began = time.monotonic()
        self.assertEqual(self.invoke()["error"], "Unhandled")
        self.assertLess(time.monotonic() - began, 10)

    def test_a_function_outlives_its_state(self) -> None:
        """The state times out; the function goes on, and has its effect."""
        arn = self.function(RUN, MAY_RUN)
        rule = {"caller": "^lambda:", "action": "delay", "seconds": 3}
        self.ask("POST", "faults", [rule])
        task = {
            "Type": "Task",
            "Resource": arn,
            "TimeoutSeconds": 1,
            "End": True,
        }
        invoke = {"Action": "lambda:InvokeFunction", "Resource": "*"}
        machine = self.aws(
            "stepfunctions",
            "create_state_machine",
            name="machine",
            roleArn=self.role("machine", invoke),
            definition=json.dumps({"StartAt": "A", "States": {"A": task}}),
        )["stateMachineArn"]
        execution = self.aws(
            "stepfunctions", "start_execution", stateMachineArn=machine
        )["executionArn"]
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(
                self.aws(
                    "stepfunctions",
                    "describe_execution",
                    executionArn=execution,
                )
            )
            return found["status"] != "RUNNING"

        until(ended)
        self.assertEqual(
            (found["status"], found["error"]), ("FAILED", "States.Timeout")
        )
        self.assertEqual(self.groups_made(), 0)
        until(lambda: self.ask("GET", "invocations"))
        self.assertEqual(self.groups_made(), 1)
        self.assertIsNone(self.ask("GET", "invocations")[0]["error"])


class Launcher(Running):
    """What `sandbox` says, and to whom it belongs."""

    def launch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The launcher, run to its end."""
        return subprocess.run(
            [*LAUNCHER, *arguments],
            cwd=HERE,
            env=os.environ | {"WEKACTL_SANDBOX": self.url},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_mistakes_are_told_in_a_line(self) -> None:
        """Where the user is to blame, no traceback is shown."""
        self.stack()
        network = self.ask("GET", "ready")["network"]
        for line, words in (
            ("stack weka", "Stack weka already exists"),
            ("stack big --backends 300", "not in the subnet"),
            ("stack far --region xx-nowhere-9", "no region 'xx-nowhere-9'"),
            ("stack odd --network 127.300", "the network '127.300' is not"),
            ("settings strict=true nonsense=1", "unknown setting 'nonsense'"),
            ("settings strict=true delay_ms=abc", "delay_ms is a number"),
            ("settings delay_ms=-1", "delay_ms is a number from 0 on"),
            ("settings strict=yes", "strict is true or false, not 'yes'"),
            ("settings boots_at_once=1.5", "is a whole number"),
            ("machine kill i-0123", "'i-0123' does not exist"),
            ("journal --caller [", "unterminated character set"),
            ("journal --url nonsense", "nonsense is no sandbox"),
            ("journal --url http://127.0.0.1:1", "does not answer"),
            ("start --region xx-nowhere-9", "no region 'xx-nowhere-9'"),
            ("start --network 10.0", "'10.0' is not one of"),
            (f"start --network {network}", "is another sandbox's"),
            (f"start --port {self.url.rpartition(':')[2]}", "already in use"),
        ):
            with self.subTest(line):
                run = self.launch(*line.split())
                self.assertEqual((run.returncode, run.stdout), (1, ""))
                self.assertIn(words, run.stderr)
                self.assertRegex(run.stderr, r"\Asandbox: [^\n]*\n\Z")
        # A change of which one part is refused changes nothing.
        self.assertIs(self.ask("GET", "settings")["strict"], False)

    def test_wrong_usage_is_told_by_the_code_2(self) -> None:
        """What can be told without a sandbox."""
        for line in (
            "settings nonsense",
            "age soon",
            "age nan",
            "tick --timeout -1",
            "start --port 65536",
            "start --delay-ms=-1",
        ):
            with self.subTest(line):
                run = self.launch(*line.split())
                self.assertEqual((run.returncode, run.stdout), (2, ""))
                self.assertNotIn("Traceback", run.stderr)

    def test_text_is_a_setting_without_quotes(self) -> None:
        """`weka_url` is one."""
        run = self.launch("settings", "weka_url=http://127.0.0.1:1/x=y")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(
            self.ask("GET", "settings")["weka_url"], "http://127.0.0.1:1/x=y"
        )

    def test_readers_may_stop(self) -> None:
        """`sandbox inventory | head` says nothing of the closed pipe."""
        self.stack()
        reader, writer = os.pipe()
        os.close(reader)
        run = subprocess.run(
            [*LAUNCHER, "inventory", "--url", self.url],
            cwd=HERE,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        os.close(writer)
        self.assertEqual((run.returncode, run.stderr), (1, ""))

    def test_the_environment_is_complete(self) -> None:
        """Also for the AWS command line's first version. And sandboxes do not
        share addresses, whoever starts them.
        """
        flags = ["--cold", "--until-stdin-closes", "--region", "eu-west-1"]
        with subprocess.Popen(
            [*LAUNCHER, "start", *flags],
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdin and other.stdout
            lines = [other.stdout.readline().rstrip() for _ in range(7)]
            self.assertIn("export AWS_REGION=eu-west-1", lines)
            self.assertIn("export AWS_DEFAULT_REGION=eu-west-1", lines)
            (url,) = (
                line.partition("=")[2]
                for line in lines
                if line.startswith("export WEKACTL_SANDBOX=")
            )
            with urllib.request.urlopen(f"{url}/sandbox/ready") as answer:
                theirs = json.load(answer)["network"]
            other.stdin.close()
        ours = self.ask("GET", "ready")["network"]
        self.assertRegex(theirs, r"^127\.\d+$")
        self.assertNotEqual(theirs, ours)
        # What ends gives its addresses back.
        from localaws import networks

        network, holder = networks.claim(theirs)
        with holder:
            self.assertEqual(network, theirs)
            with self.assertRaisesRegex(ValueError, "another sandbox's"):
                networks.claim(theirs)

    def test_unknown_regions_know_no_credentials(self) -> None:
        """Whatever is asked: no SDK tries that again."""
        from localaws.server import WARM

        for service, operation in WARM.items():
            with self.subTest(service):
                call = {"service": service, "operation": operation}
                call["region"] = "xx-nowhere-9"
                with self.assertRaises(AssertionError) as caught:
                    self.ask("POST", "call", call)
                answer = json.loads(str(caught.exception))
                self.assertIn(
                    answer["code"],
                    (
                        "AuthFailure",
                        "InvalidClientTokenId",
                        "UnrecognizedClientException",
                    ),
                )
                self.assertIn(answer["status"], (400, 401, 403))


class Roles(Running):
    """A call that a role's statements do not cover is refused."""

    def answers(self, script: str, *statements: dict[str, Any]) -> list[str]:
        """The status of each call of a function with the statements."""
        known = self.aws("lambda", "list_functions")["Functions"]
        logs = {
            "Action": "logs:*",
            "Resource": "*",
        }
        if known:
            self.allow("function", logs, *statements)
            self.aws(
                "lambda",
                "update_function_code",
                FunctionName="function",
                ZipFile={"__bytes__": packed(script, None)},
            )
        else:
            self.function(script, logs, *statements)
        return self.invoke()["log"].split()

    def test_tables_need_key_and_item(self) -> None:
        """The leading key, and the KMS key by way of DynamoDB."""
        key = self.aws("kms", "create_key")["KeyMetadata"]["Arn"]
        self.aws(
            "dynamodb",
            "create_table",
            TableName="table",
            KeySchema=[{"AttributeName": "Key", "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": "Key", "AttributeType": "S"}
            ],
            BillingMode="PAY_PER_REQUEST",
            SSESpecification={
                "Enabled": True,
                "SSEType": "KMS",
                "KMSMasterKeyId": key,
            },
        )
        table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/table"
        read = {"Action": "dynamodb:GetItem", "Resource": table}
        write = {
            "Action": ["dynamodb:PutItem", "dynamodb:UpdateItem"],
            "Resource": table,
            "Condition": {
                "ForAllValues:StringEquals": {
                    "dynamodb:LeadingKeys": ["lease"]
                }
            },
        }
        of_key = {
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": key,
            "Condition": {
                "StringEquals": {
                    "kms:ViaService": f"dynamodb.{REGION}.amazonaws.com"
                }
            },
        }
        item = '{"TableName": "table", "%s": {"Key": {"S": "%s"}}%s}'
        change = ', "UpdateExpression": "REMOVE Holder"'
        script = "\n".join(
            f"dynamodb {operation} '{item % (name, value, more)}'"
            for operation, name, value, more in (
                ("PutItem", "Item", "lease", ""),
                ("UpdateItem", "Key", "lease", change),
                ("GetItem", "Key", "other", ""),
                ("PutItem", "Item", "other", ""),
            )
        )
        found = self.answers(script, read, write, of_key)
        self.assertEqual(found, ["200", "200", "200", "400"])
        found = self.answers(script, read, write)
        self.assertEqual(found, ["400", "400", "400", "400"])
        found = self.answers(
            script, read, write, of_key | {"Action": "kms:Decrypt"}
        )
        self.assertEqual(found, ["400", "400", "200", "400"])
        elsewhere = {"StringEquals": {"kms:ViaService": "s3.amazonaws.com"}}
        found = self.answers(
            script, read, write, of_key | {"Condition": elsewhere}
        )
        self.assertEqual(found, ["400", "400", "400", "400"])

    def test_instances_need_their_tag(self) -> None:
        """And a tag that is written its name."""
        ids = self.group(2)
        tag = {"Key": "cluster", "Value": "C"}
        self.aws("ec2", "create_tags", Resources=ids[:1], Tags=[tag])
        ours = {"StringEquals": {"ec2:ResourceTag/cluster": "C"}}
        arn = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/*"
        change = {
            "Action": [
                "ec2:ModifyInstanceAttribute",
                "ec2:TerminateInstances",
            ],
            "Resource": arn,
            "Condition": ours,
        }
        mark = {
            "Action": "ec2:CreateTags",
            "Resource": arn,
            "Condition": ours
            | {"ForAllValues:StringEquals": {"aws:TagKeys": ["joined"]}},
        }
        form = "call ec2 -d 'Version=2016-11-15&Action=%s'"
        script = "\n".join(
            form % action
            for action in (
                f"CreateTags&ResourceId.1={ids[0]}&Tag.1.Key=joined&Tag.1.Value=",
                f"CreateTags&ResourceId.1={ids[0]}&Tag.1.Key=cluster&Tag.1.Value=D",
                f"ModifyInstanceAttribute&InstanceId={ids[0]}"
                "&DisableApiTermination.Value=false",
                f"ModifyInstanceAttribute&InstanceId={ids[1]}"
                "&DisableApiTermination.Value=false",
                f"TerminateInstances&InstanceId.1={ids[0]}&InstanceId.2={ids[1]}",
                f"TerminateInstances&InstanceId.1={ids[0]}",
            )
        )
        found = self.answers(script, change, mark)
        self.assertEqual(found, ["200", "403", "200", "403", "403", "200"])
        self.assertEqual(self.answers(script), ["403"] * 6)

    def test_groups_need_their_name(self) -> None:
        """For protecting and detaching."""
        ids = self.group(1)
        form = "call autoscaling -d 'Version=2011-01-01&AutoScalingGroupName="
        form += "group&InstanceIds.member.1=" + ids[0] + "&Action=%s'\n"
        script = form % "SetInstanceProtection&ProtectedFromScaleIn=true"
        script += form % "DetachInstances&ShouldDecrementDesiredCapacity=true"
        of = f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:autoScalingGroup:*"
        statement = {
            "Action": [
                "autoscaling:DetachInstances",
                "autoscaling:SetInstanceProtection",
            ],
            "Resource": f"{of}:autoScalingGroupName/other",
        }
        self.assertEqual(self.answers(script, statement), ["403", "403"])
        statement["Resource"] = f"{of}:autoScalingGroupName/group"
        self.assertEqual(self.answers(script, statement), ["200", "200"])

    def test_a_functions_own_calls_are_told_from_lambdas(self) -> None:
        """A statement can deny the function's code what Lambda needs."""
        arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:function"
        mine = {"lambda:SourceFunctionArn": arn}
        script = "call ec2 -d 'Version=2016-11-15&Action=DescribeSubnets'"
        everything = {"Action": "ec2:*", "Resource": "*"}
        self.assertEqual(self.answers(script, everything), ["200"])
        deny = everything | {
            "Effect": "Deny",
            "Condition": {"ArnEquals": mine},
        }
        self.assertEqual(self.answers(script, everything, deny), ["403"])
