"""The backend's environment variables, read and validated."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, ByteSize, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def _from_project_root(path: Path) -> Path:
    """Resolves a path; a relative one is relative to the repository, not to the present folder."""
    return (PROJECT_ROOT / path.expanduser()).resolve()


def _make_private(database: Path) -> None:
    """Creates a SQLite file where it is missing, and makes it readable by the owner only."""
    database.touch(mode=0o600)
    for path in (database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm")):
        with suppress(FileNotFoundError, PermissionError):  # missing, or another user's who shares it with us
            path.chmod(0o600)


Folder = Annotated[Path, AfterValidator(_from_project_root)]
Hosts = Annotated[tuple[str, ...], NoDecode]  # separated by commas


class Settings(BaseSettings):
    """The settings of one process. Field names are the environment variables' names in lower case.

    Raises:
        pydantic.ValidationError: a variable's value can't be used; the message names the variable.
    """

    model_config = SettingsConfigDict(
        extra="ignore", protected_namespaces=(), env_ignore_empty=True, validate_default=True
    )

    host: str = "127.0.0.1"
    port: int = Field(9090, ge=0, le=65535)
    workers: int = Field(1, ge=1, description="gunicorn worker processes")
    threads: int = Field(8, ge=2, description="threads of each gunicorn worker")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"

    basic_auth_user: str | None = None
    basic_auth_pass: SecretStr | None = None
    allow_no_password: bool = Field(False, description="whether HOST may be beyond loopback without a password")
    allowed_hosts: Hosts = Field((), description="more host names that requests may name: ml.example.com, …")
    forwarded_allow_ips: Hosts = Field(
        (), description="addresses or networks of proxies before this server; gunicorn reads it, too"
    )

    label_studio_url: str | None = Field(
        None,
        validation_alias=AliasChoices("label_studio_url", "label_studio_host"),
        description="wins over /setup's hostname",
    )
    label_studio_api_key: SecretStr | None = None
    local_files_document_root: Folder | None = None
    media_allowed_hosts: Hosts = Field(
        (), description="private hosts that tasks' videos may be fetched from: host, host:port, 10.1.0.0/16, …"
    )

    model_root: Folder = Path("models")
    cache_dir: Folder = Path("cache_dir")
    cache_size_limit: ByteSize = Field(ByteSize(20 * 10**9), description="bytes, or with a unit: 20GB")
    data_dir: Folder = Path("data")
    database_url: str | None = Field(None, description="SQLAlchemy URL; by default a SQLite file in DATA_DIR")

    allow_custom_model_path: bool = True
    model_score_threshold: float = Field(0.5, ge=0, le=1)
    model_fallback: bool = True
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"

    predict_timeout: float = Field(
        90, ge=0, description="seconds that /predict waits for features; Label Studio waits 100"
    )
    keep_predictions: int = Field(1, ge=1, description="versions of which a task keeps the prediction")
    train_in_request: bool = False
    run_worker: bool = Field(True, description="false where the jobs' worker is started elsewhere")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("allowed_hosts", "media_allowed_hosts", "forwarded_allow_ips", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        hosts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        for host in hosts if isinstance(hosts, list | tuple) else ():
            if "://" in host:
                raise ValueError(f"{host!r} must be a host, host:port or a network, without a scheme")
            if "/" in host:
                ipaddress.ip_network(host, strict=False)
        return hosts

    @cached_property
    def database(self) -> str:
        """The SQLAlchemy URL of the database. A SQLite file, which holds tokens, is readable by its owner only."""
        if not self.database_url:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        url = self.database_url or f"sqlite:///{self.data_dir / 'state.db'}"
        if url.startswith("sqlite:///"):
            _make_private(Path(url.removeprefix("sqlite:///")))
        return url

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine can reach HOST."""
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    @property
    def password(self) -> tuple[str, str] | None:
        """The user and password that requests need, None where they need none.

        Raises:
            ValueError: one is set without the other.
        """
        user, password = self.basic_auth_user, self.secret("basic_auth_pass")
        if bool(user) != bool(password):
            missing = "BASIC_AUTH_USER" if password else "BASIC_AUTH_PASS"
            raise ValueError(f"{missing} is missing: set BASIC_AUTH_USER and BASIC_AUTH_PASS, or neither.")
        return (user, password) if user and password else None

    @property
    def proves_webhooks(self) -> bool:
        """Whether webhooks need a secret: the backend can put it into Label Studio."""
        return bool(self.label_studio_url and self.label_studio_api_key)

    def check_access(self) -> None:
        """Checks that a server may start with these settings.

        Raises:
            ValueError: only one of user and password is set, or other machines could reach HOST without a password.
        """
        if self.password is None and not self.is_local and not self.allow_no_password:
            raise ValueError(
                f"HOST={self.host} opens this backend to other machines without a password: set BASIC_AUTH_USER and "
                "BASIC_AUTH_PASS, or ALLOW_NO_PASSWORD=true where its network is closed to all others."
            )

    def secret(self, name: str) -> str | None:
        """The plain text of a secret field, None where the field isn't set."""
        value: SecretStr | None = getattr(self, name)
        return value.get_secret_value() if value else None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read from the environment once."""
    return Settings()
