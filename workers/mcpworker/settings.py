"""Settings of servers and clients: constructor over environment over `.env` over default, read at construction."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["ClientSettings", "DuplicateBehavior", "LogLevel", "ServerSettings", "Settings"]

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
DuplicateBehavior = Literal["warn", "error", "replace", "ignore"]


class Settings(BaseSettings):
    """What holds for the whole process: environment variables `FASTMCP_…`."""

    model_config = SettingsConfigDict(env_prefix="FASTMCP_", env_file=".env", extra="ignore")

    test_mode: bool = False
    log_level: LogLevel = "INFO"


class ServerSettings(BaseSettings):
    """What holds for one server: environment variables `FASTMCP_SERVER_…`; unknown keys are ignored."""

    model_config = SettingsConfigDict(env_prefix="FASTMCP_SERVER_", env_file=".env", extra="ignore")

    log_level: LogLevel = Field(default_factory=lambda: Settings().log_level)
    host: str = "0.0.0.0"  # noqa: S104 - the documented default; binding it is logged as a warning
    port: int = 8000
    sse_path: str = "/sse"
    message_path: str = "/messages/"
    streamable_http_path: str = "/mcp"
    json_response: bool = False
    stateless_http: bool = False
    debug: bool = False
    on_duplicate_resources: DuplicateBehavior = "warn"
    on_duplicate_tools: DuplicateBehavior = "warn"
    on_duplicate_prompts: DuplicateBehavior = "warn"
    dependencies: list[str] = Field(default_factory=list)
    cache_expiration_seconds: float = 0


class ClientSettings(BaseSettings):
    """What holds for clients: environment variables `FASTMCP_CLIENT_…`."""

    model_config = SettingsConfigDict(env_prefix="FASTMCP_CLIENT_", env_file=".env", extra="ignore")

    log_level: LogLevel = Field(default_factory=lambda: Settings().log_level)
