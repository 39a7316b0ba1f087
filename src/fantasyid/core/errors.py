"""Every error a user can meet: each names the value at fault and the remedy, in one sentence."""


def short_reason(error: BaseException) -> str:
    """The first line of a library's message, at most 200 characters, what is not ASCII escaped."""
    return ascii(str(error).partition("\n")[0][:200])[1:-1]


class FantasyIDError(Exception):
    """Base of all errors caused by input or set-up; the command line shows the message and exits with 2."""


class InvalidRequestError(FantasyIDError):
    """A setting is outside what the model or the command allows."""


class UnreadablePhotoError(FantasyIDError):
    """The file is missing, damaged, or not an image."""


class NoFaceError(FantasyIDError):
    """No face was found in the photo."""


class FaceChoiceError(FantasyIDError):
    """The face number asked for does not exist in the photo."""


class FaceTooSmallError(FantasyIDError):
    """The chosen face has too few pixels to tell a person by."""


class ExtremeProfileError(FantasyIDError):
    """The chosen face is turned too far from the camera."""


class IncompleteFaceError(FantasyIDError):
    """The photo ends inside the chosen face."""


class UnreadableVideoError(FantasyIDError):
    """The file is missing, damaged, or not a video."""


class UnreadableMeshError(FantasyIDError):
    """The file is missing, damaged, or not a triangle mesh."""


class NotFiniteError(FantasyIDError):
    """A network gave numbers that are not finite, so there is no video."""


class ImpossibleHeadError(FantasyIDError):
    """The vertices are not a head: of another unit, lying or turned, or nothing at all."""


class UnwritableOutputError(FantasyIDError):
    """A disk was full or failed while a file was written."""


class OutOfMemoryError(FantasyIDError):
    """The GPU's memory does not suffice."""


class MissingBackendError(FantasyIDError):
    """An optional package is needed and not installed."""


class MissingWeightsError(FantasyIDError):
    """A model or data file is needed and not there."""


class CorruptWeightsError(FantasyIDError):
    """A weights file does not match its manifest, or its keys do not match the model."""


class CorruptDatasetError(FantasyIDError):
    """A file of a dataset is missing, damaged, or was made by another version."""


class TopologyMismatchError(FantasyIDError):
    """Vertices or coefficients of one head model were given to what was made for another."""


class FantasyIDWarning(UserWarning):
    """Something the user should know that does not stop the work; the command line shows the message."""
