"""The log on standard error: constant event names, values as keys from one vocabulary.

    container aspect step key desired live cgroup netns revision cycle errno path took_s reason message

info: a change was made · debug: looked · warning: degraded · error: a person is needed. Idle cycles log nothing.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from controller.model.event import Event

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(*, verbose: bool, log_format: str, colours: bool) -> None:
    """Set structlog up, once, for this process."""
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=10, sort_keys=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S.%f" if log_format == "console" else "iso", utc=False
            ),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


class Console:
    """Events as log lines."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()

    def event(self, event: Event) -> None:
        values = {
            "container": event.container,
            "message": event.message,
            "key": event.key,
            "live": event.old,
            "desired": event.new,
        }
        given = {key: value for key, value in values.items() if value}
        self._log.log(LEVELS[event.level], event.type, **given)
