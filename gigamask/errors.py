"""Everything that can go wrong on purpose, each with a stable code and an HTTP status.

GigamaskError
├── BadImage                 422 bad_image             the file is not an image we can decode rightly
│   ├── UnsupportedImage     415 unsupported_image     a known format or codec that nothing here decodes
│   └── ImageTooLarge        413 image_too_large       over a limit on pixels, bytes, bands or pages
│       └── DecodeTimeout    422 decode_timeout        over the limit on time
├── InvalidOption            422 invalid_option        an option out of its range
├── UploadTooLarge           413 upload_too_large
├── BadUpload                400 bad_upload            a multipart body that is broken or lacks a field
├── BadPicture               400 bad_picture           a picture asked for in words that mean nothing
├── UploadExpired            410 upload_expired        a resumable upload that nobody went on with in time
├── UploadLocked             423 upload_locked         another request writes to the upload
├── ChecksumMismatch         460 checksum_mismatch     a piece of an upload that arrived changed (tus 1.0.0)
├── InsufficientStorage      507 insufficient_storage
├── NotFound                 404 not_found
│   ├── UnknownModel         404 unknown_model
│   ├── UnknownImage         404 unknown_image
│   ├── UnknownUpload        404 unknown_upload
│   └── UnknownJob           404 unknown_job
├── BadModel                 422 bad_model             a model folder that is broken or was changed
├── Conflict                 409 conflict              not possible in the present state
│   ├── WrongOffset          409 wrong_offset          a piece that does not begin where the upload ends
│   ├── UploadUnfinished     409 upload_unfinished     bytes are missing still
│   └── UploadUsed           409 upload_used           the upload has become an image already
├── RegionFailed             500 region_failed         a region used up its attempts
├── ExportFailed             500 export_failed         a file of a result could not be made
├── Busy                     503 busy                  as much is under way as this process takes on
└── QueueUnavailable         503 queue_unavailable     Redis does not answer

A client is shown `code` and the message; whatever is not in this tree is shown as `internal` and nothing more.
"""

from __future__ import annotations

from typing import Any


class GigamaskError(Exception):
    code = "internal"
    status = 500
    title = "Internal error"

    def __init__(self, *words: object, **members: Any) -> None:
        """members: what a program should know beside the code, such as `offset`; shown to clients."""
        super().__init__(*words)
        self.members = members

    @property
    def message(self) -> str:
        return str(self)


class BadImage(GigamaskError):
    code, status, title = "bad_image", 422, "The image cannot be decoded"


class UnsupportedImage(BadImage):
    code, status, title = "unsupported_image", 415, "The image's format is not supported"


class ImageTooLarge(BadImage):
    code, status, title = "image_too_large", 413, "The image is over a limit"


class DecodeTimeout(ImageTooLarge):
    code, status, title = "decode_timeout", 422, "The image took too long to decode"


class InvalidOption(GigamaskError):
    code, status, title = "invalid_option", 422, "An option is out of its range"


class UploadTooLarge(GigamaskError):
    code, status, title = "upload_too_large", 413, "The upload is over the limit"


class BadUpload(GigamaskError):
    code, status, title = "bad_upload", 400, "The upload is broken"


class UploadExpired(GigamaskError):
    code, status, title = "upload_expired", 410, "The upload has expired"


class UploadLocked(GigamaskError):
    code, status, title = "upload_locked", 423, "Another request writes to the upload"


class ChecksumMismatch(GigamaskError):
    code, status, title = "checksum_mismatch", 460, "The piece arrived changed"


class BadPicture(GigamaskError):
    code, status, title = "bad_picture", 400, "There is no such picture"


class InsufficientStorage(GigamaskError):
    code, status, title = "insufficient_storage", 507, "Not enough space"


class NotFound(GigamaskError):
    code, status, title = "not_found", 404, "Not found"


class UnknownModel(NotFound):
    code, title = "unknown_model", "No such model"


class UnknownImage(NotFound):
    code, title = "unknown_image", "No such image"


class UnknownUpload(NotFound):
    code, title = "unknown_upload", "No such upload"


class UnknownJob(NotFound):
    code, title = "unknown_job", "No such job"


class BadModel(GigamaskError):
    code, status, title = "bad_model", 422, "The model cannot be used"


class Conflict(GigamaskError):
    code, status, title = "conflict", 409, "Not possible in the present state"


class WrongOffset(Conflict):
    code, title = "wrong_offset", "The piece does not begin where the upload ends"


class UploadUnfinished(Conflict):
    code, title = "upload_unfinished", "The upload is not finished"


class UploadUsed(Conflict):
    code, title = "upload_used", "The upload has become an image already"


class RegionFailed(GigamaskError):
    code, status, title = "region_failed", 500, "A region failed"


class ExportFailed(GigamaskError):
    code, status, title = "export_failed", 500, "A file of a result could not be made"


class Busy(GigamaskError):
    code, status, title = "busy", 503, "Too much is under way; try again"


class QueueUnavailable(GigamaskError):
    code, status, title = "queue_unavailable", 503, "The queue does not answer"
