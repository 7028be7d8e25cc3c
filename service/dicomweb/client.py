"""The door to archives: `pull_study` and `push`, and what they take and give."""

from __future__ import annotations

from service.dicomweb.pull import PULL_LIMITS, PullLimits, pull_study
from service.dicomweb.push import push
from service.dicomweb.receipt import Delivery, Receipt
from service.dicomweb.servers import DicomwebServer, choose_server, find_server, parse_servers

__all__ = [
    "PULL_LIMITS",
    "Delivery",
    "DicomwebServer",
    "PullLimits",
    "Receipt",
    "choose_server",
    "find_server",
    "parse_servers",
    "pull_study",
    "push",
]
