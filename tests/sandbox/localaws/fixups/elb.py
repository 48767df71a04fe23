"""Load balancers, classic and not."""

from __future__ import annotations

import http.client
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import ec2_backends
from moto.elb.exceptions import LoadBalancerNotFoundError
from moto.elb.models import ELBBackend
from moto.elb.responses import ELBResponse
from moto.elbv2.exceptions import (
    DuplicateLoadBalancerName,
    ELBClientError,
)
from moto.elbv2.exceptions import (
    LoadBalancerNotFoundError as LoadBalancerV2NotFoundError,
)
from moto.elbv2.models import ELBv2Backend, FakeLoadBalancer, FakeTargetGroup
from moto.elbv2.responses import ELBV2Response

from .patching import fixup, page, wrap

# Zone ids of AWS's load balancers: general knowledge, used for any region
# that is not listed.
HOSTED_ZONES = {
    "eu-central-1": "Z215JYRZR1TBD5",
    "eu-west-1": "Z32O12XQLNTSW2",
    "us-east-1": "Z35SXDOTRQ7X7K",
    "us-west-2": "Z1H1FL5HABSF5",
}


@fixup
def load_balancer_names_are_unique() -> None:
    """CreateLoadBalancer with a name that exists gives the same one back.

    With the same settings, that is; with others it is refused
    (DuplicateLoadBalancerName).  moto makes a second one of that name.  An
    application load balancer needs two zones: moto takes one.
    """

    @wrap(ELBv2Backend, "create_load_balancer")
    def create(
        original: Any, self: ELBv2Backend, name: str, *args: Any, **kwargs: Any
    ) -> FakeLoadBalancer:
        subnets = list(kwargs.get("subnet_ids") or [])
        subnets += [m["SubnetId"] for m in kwargs.get("subnet_mappings") or []]
        for balancer in self.load_balancers.values():
            if balancer.name == name:
                if (
                    {subnet.id for subnet in balancer.subnets} == set(subnets)
                    and balancer.scheme
                    == (kwargs.get("scheme") or "internet-facing")
                    and set(balancer.security_groups)
                    == set(kwargs.get("security_groups") or [])
                ):
                    return balancer
                raise DuplicateLoadBalancerName()
        kind = kwargs.get("loadbalancer_type") or "application"
        zones = {
            self.ec2_backend.get_subnet(subnet).availability_zone
            for subnet in subnets
        }
        if kind == "application" and subnets and len(zones) < 2:
            raise ELBClientError(
                "ValidationError",
                "At least two subnets in two different Availability Zones "
                "must be specified",
            )
        return original(self, name, *args, **kwargs)


@fixup
def load_balancers_have_addresses_of_their_region() -> None:
    """An internal load balancer's name starts with ``internal-``.

    moto has one form for all, and the hosted zone id of an example.  A
    classic load balancer's name says us-east-1 in every region.
    """

    @wrap(ELBv2Backend, "create_load_balancer")
    def create(
        original: Any, self: ELBv2Backend, name: str, *args: Any, **kwargs: Any
    ) -> FakeLoadBalancer:
        balancer = original(self, name, *args, **kwargs)
        region = self.region_name
        number = int(balancer.arn.rpartition("/")[2][:8], 16)
        internal = "internal-" if balancer.scheme == "internal" else ""
        balancer.scheme = balancer.scheme or "internet-facing"
        balancer.dns_name = f"{internal}{name}-{number}.{region}.elb.amazonaws.com"
        balancer.canonical_hosted_zone_id = HOSTED_ZONES.get(
            region, "Z215JYRZR1TBD5"
        )
        return balancer

    @wrap(ELBBackend, "create_load_balancer")
    def create_classic(
        original: Any, self: ELBBackend, *args: Any, **kwargs: Any
    ) -> Any:
        balancer = original(self, *args, **kwargs)
        internal = "internal-" if balancer.scheme == "internal" else ""
        number = sum(ord(letter) * 31**i for i, letter in enumerate(balancer.name)) % 10**9
        balancer.dns_name = (
            f"{internal}{balancer.name}-{number}.{self.region_name}.elb.amazonaws.com"
        )
        ec2 = ec2_backends[self.account_id][self.region_name]
        if not balancer.availability_zones:
            balancer.availability_zones = [
                ec2.get_subnet(subnet).availability_zone
                for subnet in balancer.subnets
            ]
        return balancer


@fixup
def listeners_do_not_share_a_port() -> None:
    """CreateListener on a port in use is refused, or repeated unchanged.

    AWS gives the listener back where everything is equal, and
    DuplicateListener otherwise.  moto makes a second listener.
    """

    @wrap(ELBv2Backend, "create_listener")
    def create(
        original: Any, self: ELBv2Backend, load_balancer_arn: str, *args: Any, **kwargs: Any
    ) -> Any:
        names = ("protocol", "port", "ssl_policy", "certificate", "actions")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        balancer = self.load_balancers.get(load_balancer_arn)
        for listener in balancer.listeners.values() if balancer else ():
            if str(listener.port) != str(given.get("port")):
                continue
            if listener.protocol == given.get("protocol") and [
                target_of(a) for a in listener.default_actions
            ] == [target_of(a) for a in given.get("actions") or []]:
                return listener
            raise ELBClientError(
                "DuplicateListener",
                "A listener already exists on this port for this load balancer "
                f"'{load_balancer_arn}'",
            )
        listener = original(self, load_balancer_arn, *args, **kwargs)
        if listener.protocol == "HTTP":
            listener.ssl_policy = None
        return listener


def target_of(action: Any) -> tuple[Any, Any]:
    """The part of a listener's action that this project sets."""
    data = action if isinstance(action, dict) else action.data
    return data.get("Type"), data.get("TargetGroupArn")


@fixup
def target_groups_can_be_made_twice() -> None:
    """CreateTargetGroup with the same settings gives the same one back.

    AWS: "If a target group with the same name and settings exists, the call
    succeeds".  moto refuses it.
    """

    @wrap(ELBv2Backend, "create_target_group")
    def create(
        original: Any, self: ELBv2Backend, name: str, **kwargs: Any
    ) -> FakeTargetGroup:
        for group in self.target_groups.values():
            if group.name != name:
                continue
            compared = {
                "protocol": group.protocol,
                "port": group.port,
                "vpc_id": group.vpc_id,
                "health_check_path": group.health_check_path,
                "target_type": group.target_type,
            }
            if all(
                kwargs.get(key) is None or str(kwargs[key]) == str(value)
                for key, value in compared.items()
            ):
                return group
        return original(self, name, **kwargs)


@fixup
def targets_are_as_healthy_as_they_answer() -> None:
    """A target is healthy when something answers at its private address.

    The sandbox's private addresses are loopback addresses, so this can be
    really tried.  moto calls every target healthy.
    """

    @wrap(FakeTargetGroup, "health_for")
    def health_for(
        original: Any, self: FakeTargetGroup, target: dict[str, Any], ec2_backend: Any
    ) -> Any:
        health = original(self, target, ec2_backend)
        registered = self.targets.get(target["Id"])
        if registered is None or health.status != "healthy":
            return health
        instance = ec2_backend.get_instance_by_id(target["Id"])
        if instance is None or not instance.private_ip_address:
            return health
        port = int(registered.get("Port") or self.port)
        path = getattr(self, "health_check_path", None) or "/"
        connection = http.client.HTTPConnection(
            instance.private_ip_address, port, timeout=1
        )
        try:
            connection.request("GET", path)
            if connection.getresponse().status >= 400:
                health.status = "unhealthy"
                health.reason = "Target.ResponseCodeMismatch"
                health.description = "Health checks failed"
        except OSError:
            health.status = "unhealthy"
            health.reason = "Target.Timeout"
            health.description = "Request timed out"
        finally:
            connection.close()
        return health


@fixup
def tags_of_missing_load_balancers_are_an_error() -> None:
    """DescribeTags of what does not exist fails; moto answers no tags."""

    @wrap(ELBV2Response, "describe_tags")
    def describe(original: Any, self: ELBV2Response) -> ActionResult:
        backend = self.elbv2_backend
        for arn in self._get_param("ResourceArns", []):
            if ":loadbalancer/" in arn and arn not in backend.load_balancers:
                raise LoadBalancerV2NotFoundError()
        return original(self)


@fixup
def classic_registration_answers_with_the_members() -> None:
    """Registering and deregistering answer with all members that are left.

    moto answers with an empty list.  An instance registered twice is a
    member once, one that does not exist is InvalidInstance.
    """

    @wrap(ELBBackend, "register_instances")
    def register(
        original: Any,
        self: ELBBackend,
        load_balancer_name: str,
        instance_ids: Any,
        from_autoscaling: bool = False,
    ) -> Any:
        balancer = self.get_load_balancer(load_balancer_name)
        if balancer is None:
            raise LoadBalancerNotFoundError(load_balancer_name)
        ec2 = ec2_backends[self.account_id][self.region_name]
        known = set(balancer.instance_ids)
        for instance_id in instance_ids:
            if ec2.get_instance_by_id(instance_id) is None:
                from moto.elb.exceptions import ELBClientError as ClassicError

                raise ClassicError(
                    "InvalidInstance",
                    f"Could not find EC2 instance {instance_id}.",
                )
        new = [i for i in instance_ids if i not in known]
        return original(self, load_balancer_name, new, from_autoscaling)

    @wrap(ELBBackend, "deregister_instances")
    def deregister(
        original: Any,
        self: ELBBackend,
        load_balancer_name: str,
        instance_ids: Any,
        from_autoscaling: bool = False,
    ) -> Any:
        if self.get_load_balancer(load_balancer_name) is None:
            raise LoadBalancerNotFoundError(load_balancer_name)
        # A member is deregistered however it came in.
        if not from_autoscaling:
            original(self, load_balancer_name, instance_ids, True)
        return original(self, load_balancer_name, instance_ids, from_autoscaling)

    @wrap(ELBBackend, "configure_health_check")
    def configure(
        original: Any, self: ELBBackend, load_balancer_name: str, *args: Any, **kwargs: Any
    ) -> Any:
        if self.get_load_balancer(load_balancer_name) is None:
            raise LoadBalancerNotFoundError(load_balancer_name)
        return original(self, load_balancer_name, *args, **kwargs)

    def answer(name: str) -> None:
        @wrap(ELBResponse, name)
        def call(original: Any, self: ELBResponse) -> ActionResult:
            original(self)
            balancer = self.elb_backend.get_load_balancer(
                self._get_param("LoadBalancerName")
            )
            return ActionResult({"Instances": balancer.instances})

    answer("register_instances_with_load_balancer")
    answer("deregister_instances_from_load_balancer")


@fixup
def terminated_instances_leave_classic_load_balancers() -> None:
    """Terminated instances are no members any more; moto keeps them."""
    from moto.ec2.models.instances import Instance

    @wrap(Instance, "terminate")
    def terminate(original: Any, self: Instance) -> Any:
        result = original(self)
        from moto.elb.models import elb_backends

        backend = self.ec2_backend
        balancers = elb_backends[backend.account_id][backend.region_name]
        for balancer in balancers.load_balancers.values():
            for name in ("instance_sparse_ids", "instance_autoscaling_ids"):
                ids = [i for i in getattr(balancer, name) if i != self.id]
                setattr(balancer, name, ids)
        return result


@fixup
def classic_load_balancers_come_in_pages() -> None:
    """The classic DescribeLoadBalancers gives 400 at a time; moto 50."""

    @wrap(ELBResponse, "describe_load_balancers")
    def describe(original: Any, self: ELBResponse) -> ActionResult:
        names = self._get_param("LoadBalancerNames", [])
        for name in names:
            if name not in self.elb_backend.load_balancers:
                raise LoadBalancerNotFoundError(name)
        found = self.elb_backend.describe_load_balancers(names)
        shown, token = page(
            found,
            self._get_param("Marker"),
            int(self._get_param("PageSize") or 400),
        )
        return ActionResult(
            {"LoadBalancerDescriptions": shown, "NextMarker": token}
        )
