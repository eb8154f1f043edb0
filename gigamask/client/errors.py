"""What a service can refuse, and that it may not be there.

GigamaskError
├── Refused        the service's own code, status and words; `members` are what else it told
├── Unreachable    503 server_unreachable    nobody answers, or not for long enough
└── FileChanged    409 file_changed          a file that was changed while it was sent
"""

from __future__ import annotations

from typing import Any

from gigamask.errors import GigamaskError


class Refused(GigamaskError):
    """The service answered with a problem (RFC 9457)."""

    title = "The service refused"

    def __init__(self, code: str, detail: str, status: int, **members: Any) -> None:
        super().__init__(detail, **members)
        self.code, self.detail, self.status = code, detail, status

    def __str__(self) -> str:
        return self.detail


class Unreachable(GigamaskError):
    code, status, title = "server_unreachable", 503, "The service does not answer"


class FileChanged(GigamaskError):
    code, status, title = "file_changed", 409, "The file was changed while it was sent"
