"""What the service refuses, as branches of the project's error tree.

`service.problems` says how each is answered.

::

    SegMambaError (model_core.errors)
    ├── InputError
    │   ├── KeyReusedError          an idempotency key with another request                 422
    │   ├── UploadTooLargeError     the body or one image exceeds its cap                   413
    │   └── MalformedUploadError    the body is not the multipart form it claims to be      400
    └── ServiceError                the request is fine, the service cannot answer it so
        ├── UnauthenticatedError    no credential, or none that is good; one answer for all 401
        ├── ForbiddenError          a good credential without the scope                     403
        ├── ForeignOriginError      another site's page would act through a browser         403
        ├── NotAcceptableError      no media type in Accept can be produced                 406
        ├── UploadTimeoutError      the body took too long to arrive                        408
        ├── UnsupportedMediaError   the body is no multipart form                           415
        ├── UnknownResourceError    the address is well formed and names nothing            404
        ├── GoneError               cancelled, or deleted                                   410
        ├── ForeignHostError        the name that the request came by is not ours           421
        ├── StorageQuotaError       the caller's own jobs take as much room as they may     507
        └── UnavailableError        try again later; carries Retry-After                    503
            ├── NotFinishedError    a result before the job's end                           409
            ├── QueueFullError      as many jobs wait as may                                429
            ├── TooManyRequestsError  more requests than the caller may make                429
            │   └── TooManyJobsError  more open jobs than the caller may have               429
            ├── StorageFullError    no room for a job's files                                507
            ├── AuthUnavailableError  it cannot be told now whether a credential is good
            ├── NotReadyError       no model is loaded and warmed up yet
            └── ShuttingDownError   the process is going away

What can go wrong between the service and a PACS stands in `service.dicomweb.errors`. A job database
or a storage that is away (`UNREACHABLE`, `StorageUnreachableError`) is answered with
503 and Retry-After as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_core import errors as core

if TYPE_CHECKING:
    from service.auth.principal import Scope


class UploadTooLargeError(core.InputError):
    """The body, or one image in it, is larger than the service takes."""


class MalformedUploadError(core.InputError):
    """The body is not the multipart form that its header claims."""


class ServiceError(core.SegMambaError):
    """The service cannot give this answer; the input is not to blame."""


class UnauthenticatedError(ServiceError):
    """Nobody knows who calls; the answer does not tell what is wrong with the credential."""

    def __init__(self) -> None:
        super().__init__(
            "No valid credential came with the request. Send one as Authorization: Bearer … or, "
            "if it is an API key, as X-API-Key: …."
        )


class ForbiddenError(ServiceError):
    """The caller is known and may not do this."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(f"The credential lacks the scope {scope}. Ask the operator for it.")
        self.scope = scope


class ForeignOriginError(ServiceError):
    """A page of another site would act here through somebody's browser."""

    def __init__(self) -> None:
        super().__init__(
            "The request comes from another site's page, and nobody has to show a key here. "
            "The operator can list the page's origin in SEGMAMBA_CORS_ORIGINS."
        )


class ForeignHostError(ServiceError):
    """The request came by a name that is not this service's: it may be meant for another one."""

    def __init__(self) -> None:
        super().__init__(
            "This service does not answer to the name in the Host header. Call it by its address, "
            "or let the operator list the name in SEGMAMBA_ALLOWED_HOSTS."
        )


class NotAcceptableError(ServiceError):
    """Nothing the service can produce is allowed by the Accept header."""


class UploadTimeoutError(ServiceError):
    """The body took longer to arrive than the service waits."""


class UnsupportedMediaError(ServiceError):
    """The body is of a media type that the route does not read."""


class UnknownResourceError(ServiceError):
    """The address is well formed and names nothing."""


class StorageQuotaError(ServiceError):
    """The caller's jobs take as much room as they may."""


class UnavailableError(ServiceError):
    """The service cannot answer now; ``retry_after`` seconds later it may."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFullError(UnavailableError):
    """As many jobs wait as may."""


class TooManyRequestsError(UnavailableError):
    """The caller makes more requests than it may."""


class TooManyJobsError(TooManyRequestsError):
    """The caller has as many open jobs as it may."""


class AuthUnavailableError(UnavailableError):
    """The database or the issuer that knows about the credential does not answer."""

    def __init__(self) -> None:
        super().__init__("Credentials cannot be checked at the moment.", retry_after=5)


class StorageFullError(UnavailableError):
    """The disk that holds the jobs' files is full, or nearly so."""

    def __init__(self) -> None:
        super().__init__(
            "The disk that holds the jobs' files has no room. Send the study again later.",
            retry_after=600,
        )


class NotFinishedError(UnavailableError):
    """A result was asked for before the job had ended."""


class GoneError(ServiceError):
    """The job has no result: it was cancelled, or its result has been deleted."""


class KeyReusedError(core.InputError):
    """An idempotency key came with another request than the first time."""


class NotReadyError(UnavailableError):
    """No model has been loaded and warmed up yet."""


class ShuttingDownError(UnavailableError):
    """The process has been asked to stop."""
