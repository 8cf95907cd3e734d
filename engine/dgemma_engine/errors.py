"""Faults the engine can name, each with what to do about it.

EngineError
├── CheckpointError      a model folder that cannot be used: missing or truncated file, wrong key, contradiction
├── ModelStoreError      a model cannot be fetched, kept or removed
├── AdapterStoreError    a repository's adapter cannot be read, kept or removed
├── FormatError          an `infill.json` or hole file that cannot be used
├── TaskError            a file of task rows that cannot be used, or not with this model
├── EngineUnavailable    no engine answers on the socket and none could be started
│   ├── NoEngine         none runs, and none was to be started
│   ├── OlderEngine      the one that runs speaks an older protocol
│   ├── NewerEngine      the one that runs speaks a newer protocol
│   ├── EngineSilent     one runs and cannot be reached: its process is stopped, or its socket was removed
│   ├── SocketRefused    the socket directory or socket belongs to someone else, or cannot be written
│   └── OutOfReach       the engine on another machine cannot be asked: network, certificate, key, version
├── EngineFault          the engine answered, but with an error
│   └── NotNow           the engine on another machine answered nothing to one request: busy, loading, broken off
├── TrainingError        a corpus, configuration or checkpoint the trainer cannot go on with
│   ├── CannotResume     a state that is damaged, or belongs to another model, configuration or set of files
│   ├── Interrupted      the user ended it; exit code 130
│   └── Diverged         a loss or gradient that is not a number
└── WrongUsage           an argument that cannot be used, such as a model folder that is not there; exit code 2
    └── PortInUse        another program listens on the address; exit code 3

"Nothing to say", "cancelled" and "deadline" are `Finish` values, not errors.
"""


class EngineError(Exception):
    """Root of every fault a user may see; `str()` is one line that names the cause and the remedy."""


class CheckpointError(EngineError, ValueError):
    """A model folder cannot be loaded."""


class ModelStoreError(EngineError):
    """A model cannot be fetched, kept or removed."""


class AdapterStoreError(EngineError):
    """A repository's adapter cannot be read, kept or removed."""


class FormatError(EngineError, ValueError):
    """A description of the infilling format cannot be used."""


class TaskError(EngineError, ValueError):
    """Rows of a task cannot be read, trained on or solved."""


class EngineUnavailable(EngineError):
    """No engine answers and none could be started."""


class NoEngine(EngineUnavailable):
    """None runs, and the caller did not want one started."""


class OlderEngine(EngineUnavailable):
    """The engine that runs speaks an older protocol than its client."""


class NewerEngine(EngineUnavailable):
    """The engine that runs speaks a newer protocol than its client."""


class EngineSilent(EngineUnavailable):
    """An engine runs and cannot be reached; the message names its process."""


class SocketRefused(EngineUnavailable):
    """The socket directory or the socket cannot be trusted or written."""


class OutOfReach(EngineUnavailable):
    """The engine on another machine cannot be asked; a state of the network or of its settings, not an error."""


class EngineFault(EngineError):
    """The engine answered a request with an error."""


class NotNow(EngineFault):
    """The engine on another machine answered nothing to one request; the next one may be answered."""


class TrainingError(EngineError, ValueError):
    """The trainer cannot start or go on."""


class CannotResume(TrainingError):
    """A training cannot go on from its state; one that begins anew can. The reason is what stands before the `;`."""


class Interrupted(TrainingError):
    """The user ended a training."""


class Diverged(TrainingError):
    """A loss or gradient is not a number."""


class WrongUsage(EngineError, ValueError):
    """An argument cannot be used."""


class PortInUse(WrongUsage):
    """Another program listens on the address."""
