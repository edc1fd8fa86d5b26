"""The host of this process: where its process id means something."""

from __future__ import annotations

import os
import socket

_FIRST_NAMESPACE = "pid:[4026531836]"  # Linux: the namespace of processes outside containers


def host() -> str:
    """The host's name; in a container, also the namespace of its process ids."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        return socket.gethostname()
    return socket.gethostname() + ("" if namespace == _FIRST_NAMESPACE else f" {namespace}")
