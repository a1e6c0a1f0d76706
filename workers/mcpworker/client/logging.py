"""What a client does with the log messages of a server."""

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from mcp.client.session import LoggingFnT, MessageHandlerFnT
from mcp_types import LoggingLevel, LoggingMessageNotificationParams

LogMessage: TypeAlias = LoggingMessageNotificationParams
LogHandler: TypeAlias = Callable[[LogMessage], Awaitable[None] | None]
MessageHandler: TypeAlias = MessageHandlerFnT

PYTHON_LEVELS: dict[LoggingLevel, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "emergency": logging.CRITICAL,
}

__all__ = ["LogHandler", "LogMessage", "MessageHandler", "create_log_callback", "default_log_handler"]

_logger = logging.getLogger("FastMCP.client")


async def default_log_handler(message: LogMessage) -> None:
    """Put a server's message into this process's log, under `FastMCP.client`."""
    origin = f" [{message.logger}]" if message.logger else ""
    _logger.log(PYTHON_LEVELS[message.level], "server log%s: %s", origin, message.data)


def create_log_callback(handler: LogHandler | None = None) -> LoggingFnT:
    """Return the SDK's callback for `handler`, async or not; without one, `default_log_handler`."""
    chosen: Callable[[LogMessage], Any] = handler or default_log_handler

    async def deliver(params: LoggingMessageNotificationParams) -> None:
        given = chosen(params)
        if inspect.isawaitable(given):
            await given

    return deliver
