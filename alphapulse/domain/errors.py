"""Every error AlphaPulse raises on purpose, as one tree.

AlphaPulseError
├── ConfigError      (ValueError)   a setting is unknown or has a value it cannot have       exit 2
├── NoData           (LookupError)  no exchange and no recording to run on                   exit 3
├── InvalidRecording (ValueError)   a folder or file is not a recording we can read          exit 3
├── InvalidBar       (ValueError)   prices that cannot be one bar
├── InvalidEvent     (ValueError)   a market event that cannot have happened
├── InvalidRequest       (ValueError)    a question or a wish that cannot be met as it was asked
├── InvalidInput     (ValueError)   an input that no model may be fed
│   └── ShapeMismatch               an array whose axes are not those of its spec
├── CheckpointError  (ValueError)   weights that are missing, damaged or of another layout
├── StoreError       (OSError)      the journal or the lake did not take or give a record
├── HomeInUse        (RuntimeError) a second process on a home that is in use                exit 1
├── PortTaken        (OSError)      a port AlphaPulse needs belongs to another process       exit 1
├── ClusterError     (RuntimeError) the Ray cluster did not start, answer or accept us       exit 1
└── Unavailable      (RuntimeError) a thing that is not built, or not there at the moment

Each message says what, where, what was expected, what was found and what to do. All of them survive
a pickle, because they cross process borders: the message is their only argument.
"""


class AlphaPulseError(Exception):
    """Any error AlphaPulse raises on purpose.

    `code` names it in tables, `exit_code` ends the command line.
    """

    exit_code = 1

    @property
    def code(self) -> str:
        """Return the stable name of the error, as the errors table and HTTP answers carry it."""
        return type(self).__name__


class ConfigError(AlphaPulseError, ValueError):
    """A setting is unknown or holds a value it cannot hold."""

    exit_code = 2


class NoData(AlphaPulseError, LookupError):
    """Neither an exchange nor a recording is there to run on."""

    exit_code = 3


class InvalidRecording(AlphaPulseError, ValueError):
    """A folder or a file is not a recording that can be read."""

    exit_code = 3


class InvalidBar(AlphaPulseError, ValueError):
    """Prices or a volume that cannot belong to one bar."""


class InvalidEvent(AlphaPulseError, ValueError):
    """A trade or a book change that cannot have happened."""


class InvalidRequest(AlphaPulseError, ValueError):
    """A question or a wish that cannot be met as it was asked."""


class InvalidInput(AlphaPulseError, ValueError):
    """An input that no model may be fed; the message begins with the reason's code."""


class ShapeMismatch(InvalidInput):
    """An array whose axes differ from its spec; the message names axis, expected and actual."""


class CheckpointError(AlphaPulseError, ValueError):
    """Weights that are missing, damaged or made for another layout."""


class StoreError(AlphaPulseError, OSError):
    """The journal or the lake did not take or give a record."""


class HomeInUse(AlphaPulseError, RuntimeError):
    """Another process works in this home."""


class PortTaken(AlphaPulseError, OSError):
    """A port AlphaPulse needs belongs to another process."""


class ClusterError(AlphaPulseError, RuntimeError):
    """The Ray cluster did not start, answer or accept us."""


class Unavailable(AlphaPulseError, RuntimeError):
    """A thing that is not built yet, or not there at the moment; the screen prints the message."""
