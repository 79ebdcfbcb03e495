"""Whether anybody may manage the host whose administrators are known by host names only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipfw.compiler.context import Context
from sipfw.deploy.names.resolve import ADMINS, name_of
from sipfw.errors import BackendError
from sipfw.policy.merge import Origins
from sipfw.policy.rules import Finding

if TYPE_CHECKING:
    from sipfw.deploy.names.cache import Resolution
    from sipfw.policy.load import LoadedPolicy

_HINT = "or apply with --force, with another way into this host at hand"


def require_way_in(loaded: LoadedPolicy, resolution: Resolution, *, force: bool = False) -> None:
    """Raise BackendError where `admin.networks` has nothing but names without an address.

    What is dropped then is every ssh login from the outside. With `force` nothing is raised: the
    warning about each name says it already.
    """
    policy = loaded.policy
    guarded = policy.admin.networks and policy.host.default_drop
    if force or not guarded:
        return
    if Context(policy, Origins(), resolution.addresses).admin_networks():
        return
    names = [name_of(key) for key, _ in resolution.failures if resolution.uses[key] == ADMINS]
    shown = " and ".join(f"'{name}'" for name in names)
    message = (
        f"{shown} never had an address and no other network is named, so nobody could reach ssh; "
        "add a network that does not change"
    )
    raise BackendError(str(loaded.locate(Finding(("admin", "networks"), message))), hint=_HINT)
