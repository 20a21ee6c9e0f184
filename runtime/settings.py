"""Settings sections: frozen, filled from one TOML file and the environment (which wins).

A program composes them with its own and loads all of them:

    class WorkerSettings(ProgramSettings):
        kafka: KafkaSettings = KafkaSettings()
        worker: WorkerSection = WorkerSection()

    settings = load_settings(WorkerSettings, config_path)

One file may hold the sections of several programs. `[kafka] bootstrap_servers` is `EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS`
in the environment; lists and tables are JSON there. `runtime.settings_sources` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from schemas.codec import WireFormat

DeliveryMode = Literal["at_least_once", "exactly_once"]
Address = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]
"""A folder or a URL; code may also give a folder as `Path`."""


class SettingsSection(BaseModel):
    """Base of every section: frozen, unknown keys rejected, values never printed in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


class ProgramSettings(SettingsSection):
    """Base of a program's whole settings; its fields are sections. Made directly, it reads no environment.

    Attributes:
        renamed: former names of keys or sections, kept for one release: old dotted name to new, also across sections.
        removed: keys that are settings no longer, by dotted name: why, and what to do instead.
        shared_sections: what a settings file may hold; those that are no fields here are another program's.
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    removed: ClassVar[Mapping[str, str]] = {}
    shared_sections: ClassVar[frozenset[str]] = frozenset()


class KafkaSettings(SettingsSection):
    """How to reach Kafka and how to use it."""

    bootstrap_servers: str = Field("localhost:9092", min_length=1, description="host:port, several comma-separated")
    client_id: str = Field("exitstream", min_length=1)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    tls_ca_file: Path | None = Field(None, description="CA certificates (PEM); None: the system's")
    tls_cert_file: Path | None = Field(None, description="client certificate for mutual TLS (PEM)")
    tls_key_file: Path | None = Field(None, description="its key (PEM); None: in tls_cert_file")
    tls_key_password: SecretStr | None = None
    tls_verify_hostname: bool = True

    delivery: DeliveryMode = "at_least_once"
    wire_format: WireFormat = Field("msgpack", description="of all records but answers: worker.answer_format")
    compression: Literal["none", "zstd", "gzip", "snappy"] = Field(
        "none", description="no lz4: this client's compression level doubles latency"
    )
    max_record_bytes: int = Field(1_000_000, ge=1_024, description="larger records are refused, read or written")
    linger_ms: int = Field(2, ge=0, description="how long to wait for more records to send together")
    batch_bytes: int = Field(262_144, ge=1_024)

    connect_timeout_s: float = Field(15.0, gt=0, description="how long the start waits for the broker")
    request_timeout_ms: int = Field(20_000, ge=100)
    stop_timeout_s: float = Field(5.0, gt=0)
    session_timeout_ms: int = Field(
        15_000, ge=1_000, description="a member without heartbeats leaves the group after this"
    )
    max_poll_interval_ms: int = Field(300_000, ge=1_000)
    fetch_max_wait_ms: int = Field(100, ge=1, description="how long the broker may hold an empty fetch")
    commit_interval_ms: int = Field(500, ge=1)
    revocation_limit_s: float = Field(5.0, gt=0, description="how long a rebalance waits for work in flight")
    transaction_timeout_ms: int = Field(10_000, ge=100)

    @model_validator(mode="after")
    def _check_security(self) -> Self:
        if self.security_protocol.startswith("SASL") and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError(f"{self.security_protocol} needs sasl_username and sasl_password")
        if self.tls_key_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_key_file without tls_cert_file: name the certificate as well")
        if "SSL" not in self.security_protocol and (self.tls_ca_file or self.tls_cert_file):
            raise ValueError(
                f"TLS files are named but security_protocol is {self.security_protocol}: use SSL or SASL_SSL"
            )
        if self.batch_bytes > self.max_record_bytes:
            raise ValueError("batch_bytes exceeds max_record_bytes: no batch may be larger than the largest record")
        return self


class TelemetrySettings(SettingsSection):
    """Logs, metrics and the HTTP status endpoint."""

    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    http_host: str = Field("127.0.0.1", description="loopback by default")
    http_port: int = Field(0, ge=0, le=65_535, description="0: any free port")
    http_enabled: bool = True
    live_page: bool = Field(
        False, description="a worker's page at /live: figures, prompts, typed requests; see docs/security.md"
    )
    traces: bool = Field(
        False,
        description="OpenTelemetry traces of requests and interactions; needs the extra `tracing`: docs/traces.md",
    )
    stall_not_ready_s: float = Field(30.0, gt=0, description="lag without progress before it is not ready")
    stall_exit_s: float = Field(120.0, gt=0, description="lag without progress before the program exits")
    drain_limit_s: float = Field(20.0, gt=0, description="how long SIGTERM waits for work in flight")

    @model_validator(mode="after")
    def _check_live_page(self) -> Self:
        if self.live_page and not self.http_enabled:
            raise ValueError("telemetry.live_page is served by the status port: set telemetry.http_enabled as well")
        return self
