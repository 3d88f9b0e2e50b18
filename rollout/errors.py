"""The errors of this project, named by the boundary at which they happen."""


class InfrastructureError(Exception):
    """The infrastructure failed, not the agent; the action is retried or dropped and counted, never rewarded."""


class ServerError(InfrastructureError):
    """The policy server did not start, did not answer, or did not load new weights."""


class ExecutorError(InfrastructureError):
    """The sandbox could not be created or was lost, so nothing is known about the script."""


class CoderError(InfrastructureError):
    """The endpoint of the coder did not answer."""


class ExpertError(InfrastructureError):
    """The endpoint of the expert did not answer."""


class CorruptRecord(ValueError):
    """A stored trajectory, journal or blob is damaged or has another schema."""


class BudgetSpent(ValueError):
    """The next request could exceed the configured budget; it is not a failure, so it is not retried."""


class EndpointRefused(ValueError):
    """An endpoint refuses to answer until the user corrects a key, an address or an account."""


class WorthlessResult(ValueError):
    """The work ended, but so large a share of it failed that its result is of no use; the message says how to go on."""


class PromptTooLong(ValueError):
    """A prompt and the requested answer do not fit the context of the model behind an endpoint."""
