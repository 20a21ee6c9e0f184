"""What each program may do on a broker with an authorizer: exactly what `docs/security.md` tells to grant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)


@dataclass(frozen=True, slots=True)
class Acl:
    """One permission: an operation on a resource, or on all whose names begin alike."""

    operation: str
    kind: str
    name: str
    prefixed: bool = False

    def __str__(self) -> str:
        return f"{self.operation} {self.kind} {self.name}{'*' if self.prefixed else ''}"

    def binding(self, user: str) -> AclBinding:
        """As the admin client takes it."""
        return AclBinding(*self._parts(user))

    def filter(self, user: str) -> AclBindingFilter:
        """What finds exactly this one."""
        return AclBindingFilter(*self._parts(user))

    def command(self, user: str) -> str:
        """What to type to grant it."""
        operation = "".join(word.capitalize() for word in self.operation.split("_"))
        kind = {"topic": "--topic", "group": "--group", "transactional_id": "--transactional-id"}[self.kind]
        pattern = " --resource-pattern-type prefixed" if self.prefixed else ""
        return f"--add --allow-principal User:{user} --operation {operation} {kind} {self.name}{pattern}"

    def _parts(self, user: str) -> tuple:
        pattern = ResourcePatternType.PREFIXED if self.prefixed else ResourcePatternType.LITERAL
        kind, operation = ResourceType[self.kind.upper()], AclOperation[self.operation.upper()]
        return (kind, self.name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)


def _on(operation: str, *topics: str) -> tuple[Acl, ...]:
    return tuple(Acl(operation, "topic", topic) for topic in topics)


_LETTERS = ("interactions.dead-letter", "items.dead-letter", "impression-requests.dead-letter")
WORKER: Final = (
    *_on("read", "impression-requests", "items", "user-states", "item-states"),
    *_on("write", "ctr-scores", "impression-requests.dead-letter"),
    *_on("describe", "interactions", "interactions.dead-letter", "items.dead-letter"),
    Acl("read", "group", "exitstream-worker"),
)
WORKER_EXACTLY_ONCE: Final = (*WORKER, Acl("write", "transactional_id", "exitstream-worker.", prefixed=True))
SHADOW: Final = (
    *_on("read", "impression-requests", "items", "user-states", "item-states"),
    *_on("write", "shadow-scores"),
    *_on("describe", "interactions", *_LETTERS),
    Acl("read", "group", "exitstream-worker-shadow"),
    Acl("write", "transactional_id", "exitstream-worker-shadow.", prefixed=True),
)
"""The last one with exactly once only."""
UPDATER: Final = (
    *_on("read", "interactions", "items", "user-states", "item-states"),
    *_on("write", "user-states", "item-states", "interactions.dead-letter", "items.dead-letter"),
    Acl("read", "group", "exitstream-updater"),
    Acl("read", "group", "exitstream-updater.election"),
    Acl("write", "transactional_id", "exitstream-updater.publisher"),
)
SHARD: Final = (
    *_on("read", "item-parts"),
    *_on("write", "item-parts"),
    Acl("read", "group", "exitstream-updater", prefixed=True),
    Acl("write", "transactional_id", "exitstream-updater.", prefixed=True),
)
"""What an updater needs beyond `UPDATER` where several share the users."""
CLIENT: Final = (*_on("write", "interactions", "items", "impression-requests"), *_on("read", "ctr-scores"))
OPERATOR: Final = tuple(
    Acl(operation, "topic", topic)
    for topic in (
        *("interactions", "items", "impression-requests", "ctr-scores", "shadow-scores"),
        *("user-states", "item-states", "item-parts"),
        *_LETTERS,
    )
    for operation in ("create", "describe", "describe_configs")
)
"""For `exitstream topics create`."""
